"""Run a command and measure it whole: wall clock, and the peak memory of all its processes."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_SECONDS_BETWEEN_LOOKS = 0.05
_MAX_SHARE_OF_COUNTS = 0.25  # of the time: the kernel goes through the pages of all processes
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Measured:
    """What a command printed last, as JSON, and what it took.

    Attributes:
        result: Its last line on standard output.
        peak_mib: Most memory that it and its children held at once. What belongs to one process is
            looked at 20 times a second; what they share counts once (PSS), as it was last counted.
        cpu_seconds: Of all processes that were seen alive, user and system.
    """

    result: dict[str, Any]
    peak_mib: float
    cpu_seconds: float


def run_measured(arguments: Sequence[str]) -> Measured:
    """Run ``python ARGUMENTS`` and follow its process tree."""
    child = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    family = _Family(child.pid)
    is_over = threading.Event()
    follower = threading.Thread(target=family.follow, args=(is_over,), daemon=True)
    follower.start()
    output, messages = child.communicate()
    is_over.set()
    follower.join()
    if child.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{messages[-3000:]}")
    return Measured(
        json.loads(output.strip().splitlines()[-1]),
        family.peak_bytes / 2**20,
        sum(family.cpu_by_pid.values()),
    )


class _Family:
    """A process, its children and theirs, as long as they live."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._processes = [self._root]
        self._shared_bytes = 0  # PSS less what _own_bytes says
        self.peak_bytes = 0.0
        self.cpu_by_pid: dict[int, float] = {}

    def follow(self, is_over: threading.Event) -> None:
        """Look again and again, until it is over."""
        next_count = 0.0
        while not is_over.wait(_SECONDS_BETWEEN_LOOKS):
            started = time.monotonic()
            if started >= next_count:
                self._count()
                took = time.monotonic() - started
                next_count = started + took / _MAX_SHARE_OF_COUNTS
            own = sum(_own_bytes(process.pid) for process in self._processes)
            self.peak_bytes = max(self.peak_bytes, own + self._shared_bytes)

    def _count(self) -> None:
        """See which processes there are, their CPU time, and how much memory they share."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._processes = [self._root, *self._root.children(recursive=True)]
        shared = 0
        for process in self._processes:
            try:
                shared += process.memory_full_info().pss - _own_bytes(process.pid)
                times = process.cpu_times()
            except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                continue
            self.cpu_by_pid[process.pid] = times.user + times.system
        self._shared_bytes = shared  # below 0 where processes share what is neither's alone


def _own_bytes(pid: int) -> int:
    """Resident memory that is neither a file's nor shared; 0 for a process that is gone."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES
