"""A decoder that can be killed: a child process with a deadline on progress.

decord and FFmpeg hang or crash on some real files, and a thread in them cannot be stopped. A child
that gives no sign of progress for too long is killed; the clip is tried again with PyAV alone,
from the first chunk that has not arrived, in a new child. What fails twice is the clip's outcome.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.child_pipe import ChildPipe
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings, FrameChunk

_DECORD_TIMEOUT_SECONDS = 15.0  # decord has a fallback, so it gets less patience


class DecodeProcess:
    """Decodes clip after clip in one child process, which is replaced when it hangs or dies.

    Not for several threads at once. Use as a context manager, or call :meth:`close`.
    """

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
        self._pipe = ChildPipe()
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
                self._pipe.kill()
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
            self._pipe.send({"op": "probe", "uri": uri, "media": media})
            message, _ = self._pipe.receive(self._settings.progress_timeout_seconds)
        except DecodeError:
            self._pipe.kill()
            raise
        return dict(message["result"])

    def close(self) -> None:
        """End the child."""
        self._pipe.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, None before the first clip."""
        return self._pipe.pid

    def _attempt(
        self, source: ClipSource, sizes: Sequence[int], first_chunk: int, *, is_first: bool
    ) -> Iterator[FrameChunk | DecodeOutcome]:
        patience = self._settings.progress_timeout_seconds
        self._pipe.send(
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
                message, payload = self._pipe.receive(wait)
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
                self._pipe.kill()


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
