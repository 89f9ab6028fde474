"""Run a command and measure it whole: wall clock, and the peak memory of all its processes."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

_SECONDS_BETWEEN_LOOKS = 0.3
_MAX_SHARE_OF_LOOKS = 0.25  # of the time: the kernel counts the pages of all processes in each


@dataclass(frozen=True)
class Measured:
    """What a command printed last, as JSON, and what it took.

    Attributes:
        result: Its last line on standard output.
        peak_mib: Most memory that it and its children held at once (PSS: shared pages count once).
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
    peak, cpu_by_pid = 0.0, dict[int, float]()
    is_over = threading.Event()

    def follow() -> None:
        nonlocal peak
        pause = _SECONDS_BETWEEN_LOOKS
        while not is_over.wait(pause):
            started = time.monotonic()
            peak = max(peak, _memory_mib(child.pid, cpu_by_pid))
            pause = max(_SECONDS_BETWEEN_LOOKS, (time.monotonic() - started) / _MAX_SHARE_OF_LOOKS)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    output, messages = child.communicate()
    is_over.set()
    follower.join()
    if child.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{messages[-3000:]}")
    return Measured(json.loads(output.strip().splitlines()[-1]), peak, sum(cpu_by_pid.values()))


def _memory_mib(pid: int, cpu_by_pid: dict[int, float]) -> float:
    total = 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss
            times = process.cpu_times()
            cpu_by_pid[process.pid] = times.user + times.system
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return total / 2**20
