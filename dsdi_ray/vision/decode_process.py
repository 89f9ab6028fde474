"""A decoder that can be killed: a child process with a deadline on progress.

decord and FFmpeg hang or crash on some real files, and a thread in them cannot be stopped. A child
that gives no sign of progress for too long is killed; the clip is tried again with PyAV alone,
from the first chunk that has not arrived, in a new child. What fails twice is the clip's outcome.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from dsdi_ray.errors import DecodeError, ResourceError
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings, FrameChunk
from dsdi_ray.vision.decode_child import HEADER

_START_TIMEOUT_SECONDS = 120.0  # a loaded machine; imports alone take half a second
_DECORD_TIMEOUT_SECONDS = 15.0  # decord has a fallback, so it gets less patience
_PIPE_BYTES = 2**20


class DecodeProcess:
    """Decodes clip after clip in one child process, which is replaced when it hangs or dies.

    Not for several threads at once. Use as a context manager, or call :meth:`close`.
    """

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None
        self._num_expected = 0
        self._served_by: set[str] = set()

    def decode(
        self, source: ClipSource, sizes: Sequence[int]
    ) -> Iterator[FrameChunk | DecodeOutcome]:
        """Yield a clip's chunks in order, then its outcome; a bad clip raises nothing.

        Args:
            source: The clip.
            sizes: Sides in pixels of the squares wanted.

        Raises:
            ResourceError: If no child can be started, which is no clip's fault.
        """
        started = time.monotonic()
        next_chunk = num_delivered = 0
        self._num_expected = 0
        self._served_by.clear()
        restarts: list[str] = []
        last: DecodeOutcome | None = None
        while last is None:
            is_first = not restarts
            try:
                for part in self._attempt(source, sizes, next_chunk, is_first=is_first):
                    if isinstance(part, DecodeOutcome):
                        last = part
                        break
                    yield part
                    next_chunk = part.chunk_index + 1
                    num_delivered += len(part.frame_indices)
            except DecodeError as problem:
                self._kill()
                if is_first and source.media == "video":
                    restarts.append(f"the first attempt {problem}")
                else:
                    last = DecodeOutcome(status="failed", error=f"the decoder {problem}")
        yield _merge(
            last,
            num_delivered=num_delivered,
            num_expected=self._num_expected,
            restarts=restarts,
            served=self._served_by,
            started=started,
        )

    def probe(self, uri: str, media: str) -> dict[str, Any]:
        """Probe a file, see :func:`dsdi_ray.vision.probe.probe`; a crash is its error.

        Returns:
            The fields of :class:`dsdi_ray.vision.probe.ProbeResult`.

        Raises:
            DecodeError: If the prober hangs or crashes on the file.
            ResourceError: If no child can be started.
        """
        try:
            self._send({"op": "probe", "uri": uri, "media": media})
            message, _ = self._receive(self._settings.progress_timeout_seconds)
        except DecodeError:
            self._kill()
            raise
        return dict(message["result"])

    def close(self) -> None:
        """End the child."""
        self._kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._kill()

    @property
    def pid(self) -> int | None:
        """The child's process id, None before the first clip."""
        return self._child.pid if self._child else None

    def _attempt(
        self, source: ClipSource, sizes: Sequence[int], first_chunk: int, *, is_first: bool
    ) -> Iterator[FrameChunk | DecodeOutcome]:
        patience = self._settings.progress_timeout_seconds
        self._send(
            {
                "op": "decode",
                "source": asdict(source),
                "sizes": list(sizes),
                "settings": asdict(self._settings),
                "first_chunk": first_chunk,
                "is_careful": not is_first,
            }
        )
        if is_first:
            patience = min(patience, _DECORD_TIMEOUT_SECONDS)
        is_over, wait = False, patience
        try:
            while not is_over:
                message, payload = self._receive(wait)
                wait = max(patience, message.get("patience_seconds", 0.0))
                if message["kind"] == "chunk":
                    self._num_expected = message["num_expected"]
                    self._served_by.update(message["served_by"])
                    yield _chunk(message, payload)
                elif message["kind"] == "outcome":
                    is_over = True
                    yield DecodeOutcome(**message["outcome"])
        finally:
            if not is_over:  # the consumer left in the middle: what is in the pipe is not wanted
                self._kill()

    def _send(self, request: dict[str, Any]) -> None:
        if self._child is None or self._child.poll() is not None:
            self._start()
        assert self._child is not None
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except OSError as error:
            raise DecodeError("process died before the clip") from error

    def _start(self) -> None:
        self._kill()
        # The child imports from where this process does: a Ray worker's path is not in its
        # environment. Without -P a file in the working directory could stand in for a module.
        search_path = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "dsdi_ray.vision.decode_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path},
        )
        assert self._child.stdout is not None
        if sys.platform == "linux":
            import fcntl

            fcntl.fcntl(self._child.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._receive(_START_TIMEOUT_SECONDS)
        except DecodeError as problem:
            self._kill()
            raise ResourceError(f"the decode process does not start: it {problem}") from problem

    def _kill(self) -> None:
        child, self._child = getattr(self, "_child", None), None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, self._messages):
            if stream is not None:
                stream.close()

    def _receive(self, timeout_seconds: float) -> tuple[dict[str, Any], memoryview]:
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
        data = memoryview(bytearray(length))
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


def _chunk(message: dict[str, Any], payload: memoryview) -> FrameChunk:
    num_frames, sizes = message["num_frames"], message["sizes"]
    shapes = [(num_frames, size, size, 3) for size in sizes]
    ends = np.cumsum([4 * num_frames, 8 * num_frames, *(int(np.prod(s)) for s in shapes)])
    parts = [payload[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    return FrameChunk(
        chunk_index=message["chunk_index"],
        frame_indices=np.frombuffer(parts[0], np.int32),
        times_seconds=np.frombuffer(parts[1], np.float64),
        pixels={
            size: np.frombuffer(part, np.uint8).reshape(shape)
            for size, part, shape in zip(sizes, parts[2:], shapes, strict=True)
        },
    )


def _merge(
    last: DecodeOutcome,
    *,
    num_delivered: int,
    num_expected: int,
    restarts: Sequence[str],
    served: Iterable[str],
    started: float,
) -> DecodeOutcome:
    """The clip's outcome over all children that worked on it; ``last`` is of the last one."""
    num_expected = max(last.frames_expected, num_expected, num_delivered)
    error = last.error
    if error is None and num_delivered < num_expected:  # missing from what came before a restart
        error = f"{num_expected - num_delivered} of {num_expected} frames do not decode"
    notes = [*restarts, *([last.note] if last.note else [])]
    decoders = {d for d in (*served, *(last.decoder or "").split("+")) if d}
    return replace(
        last,
        status="failed" if not num_delivered else "partial" if error else "ok",
        error=error,
        note="; ".join(notes) or None,
        decoder="+".join(sorted(decoders)) or None,
        frames_expected=num_expected,
        frames_scored=num_delivered,
        attempts=last.attempts + len(restarts),
        seconds=time.monotonic() - started,
    )


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
