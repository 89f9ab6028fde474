"""The pipe to a decoder's child process: requests there, messages back, each with a deadline."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from dsdi_ray.errors import DecodeError, ResourceError
from dsdi_ray.vision.decode_child import HEADER

_START_TIMEOUT_SECONDS = 120.0  # a loaded machine; imports alone take half a second
_PIPE_BYTES = 2**20
# Of glibc's malloc; elsewhere they say nothing to anyone. Memory of one clip's pictures is kept for the
# next one's, not returned to the system, which would hand it out anew page by page, each filled with
# zeros. *Measured*: 4 % less CPU time on 1080p.
_MEMORY_IS_KEPT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**27),
    "MALLOC_ARENA_MAX": "1",  # for decord's thread too; an arena of its own keeps up to 64 MiB more
}


class ChildPipe:
    """One child at a time, which is started when there is something to do and ends with its pipe.

    Not for several threads at once.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None where there is none."""
        return self._child.pid if self._child else None

    def send(self, request: dict[str, Any]) -> None:
        """Send a request; a child that is gone is replaced.

        Raises:
            DecodeError: If the child dies meanwhile.
            ResourceError: If none can be started.
        """
        if self._child is None or self._child.poll() is not None:
            self._start()
        assert self._child is not None
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except OSError as error:
            raise DecodeError("process died before the clip") from error

    def receive(self, timeout_seconds: float) -> tuple[dict[str, Any], memoryview]:
        """Wait for the next message.

        Raises:
            DecodeError: If none comes in time or the child dies; the text completes a sentence
                that begins with what it was doing.
        """
        header = self._read(HEADER.size, timeout_seconds)
        text_length, payload_length = HEADER.unpack(header)
        text = self._read(text_length, timeout_seconds)
        return json.loads(bytes(text)), self._read(payload_length, timeout_seconds)

    def _read(self, length: int, timeout_seconds: float) -> memoryview:
        child = self._child
        assert child is not None
        assert child.stdout is not None
        descriptor = child.stdout.fileno()
        data = np.empty(length, np.uint8).data  # not filled with zeros first
        filled = 0
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while filled < length:
                if not selector.select(timeout_seconds):
                    raise DecodeError(f"made no progress for {timeout_seconds:g} s and was killed")
                num_read = os.readv(descriptor, [data[filled:]])
                if num_read == 0:
                    raise DecodeError(f"crashed ({_exit_reason(child, self._messages)})")
                filled += num_read
        return data

    def kill(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, self._messages):
            if stream is not None:
                stream.close()

    def __del__(self) -> None:
        self.kill()

    def _start(self) -> None:
        self.kill()
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._child = subprocess.Popen(
            # Without -P a file in the working directory could stand in for a module.
            [sys.executable, "-P", "-m", "dsdi_ray.vision.decode_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            bufsize=0,
            env=child_environment(),
        )
        assert self._child.stdout is not None
        if sys.platform == "linux":
            import fcntl

            fcntl.fcntl(self._child.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self.receive(_START_TIMEOUT_SECONDS)
        except DecodeError as problem:
            self.kill()
            raise ResourceError(f"the decode process does not start: it {problem}") from problem


def child_environment() -> dict[str, str]:
    """The environment of a decoder's process."""
    # It imports from where this process does: a Ray worker's path is not in its environment.
    search_path = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
    return {
        **os.environ,
        **_MEMORY_IS_KEPT,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": search_path,
    }


def _exit_reason(child: subprocess.Popen[bytes], messages: IO[bytes] | None) -> str:
    """How a child ended, and what Python said last if it was an exception."""
    code = child.wait()
    if code < 0:
        return signal.strsignal(-code) or f"signal {-code}"
    lines: list[str] = []
    if messages is not None:
        messages.seek(0)
        lines = messages.read(2**16).decode(errors="replace").strip().splitlines()
    return f"exit status {code}{f': {lines[-1][:200]}' if lines else ''}"
