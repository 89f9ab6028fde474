"""Decode one clip into chunks of frames; runs in a process that may be killed.

decord is tried first. What it refuses, gives up on, or returns suspiciously (a black picture, a
picture repeated) is decoded again with PyAV, whose pictures count; where both agree decord is
trusted on. A hang or a crash is the parent process's business: it starts again at the first chunk
that it did not get.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings, FrameChunk
from dsdi_ray.vision.frame_readers import DecordReader, PyavReader, Sample
from dsdi_ray.vision.pictures import read_image, resize_square
from dsdi_ray.vision.timeline import open_video, plan_samples, read_timeline

FirstDecoder = Literal["decord", "pyav"]
_BLACK_LEVEL = 24  # full black is 0, or 16 where limited range was taken for full
_END: Sample = (2**62, np.empty(0, np.uint8))
_Pictures = dict[int, dict[int, NDArray[np.uint8]]]  # position -> side in px -> picture


class ClipReader:
    """One clip on its way through the decoders.

    Args:
        source: The clip.
        sizes: Sides in pixels of the squares wanted.
        settings: How it is sampled.
        first_decoder: ``pyav`` passes decord over.
    """

    def __init__(
        self,
        source: ClipSource,
        sizes: Sequence[int],
        settings: DecodeSettings,
        *,
        first_decoder: FirstDecoder = "decord",
    ) -> None:
        self._source = source
        self._path = local_path(source.uri)
        self._sizes = sizes
        self._settings = settings
        self._use_decord = first_decoder == "decord"
        self._check_decord = True
        self._decord_samples: Iterator[Sample | None] | None = None
        self._pyav_samples: Iterator[Sample | None] | None = None
        self._ahead: Sample | None = None  # of the next chunk, where samples were passed over
        self._served_by: set[str] = set()
        self._notes: list[str] = []
        self._attempts = 0
        self._num_expected = 0
        self._num_scored = 0

    def read(self, first_chunk: int = 0) -> Iterator[FrameChunk | DecodeOutcome | None]:
        """Yield chunks from ``first_chunk`` on, None as a sign of progress, and the outcome last.

        The outcome counts only the frames of the chunks that this call yielded.
        """
        started = time.monotonic()
        try:
            if self._path.stat().st_size == 0:
                raise DecodeError("the file is empty (0 bytes)")
            if self._source.media == "image":
                yield from self._read_image()
                error: str | None = None
            else:
                error = yield from self._read_video(first_chunk)
        except (DecodeError, OSError) as problem:
            error = getattr(problem, "strerror", None) or str(problem)
        yield DecodeOutcome(
            status="ok" if error is None else "partial" if self._num_scored else "failed",
            error=error,
            note="; ".join(self._notes) or None,
            decoder="+".join(sorted(self._served_by)) or None,
            frames_expected=self._num_expected,
            frames_scored=self._num_scored,
            attempts=max(1, self._attempts),
            seconds=time.monotonic() - started,
        )

    def _read_image(self) -> Iterator[FrameChunk]:
        self._num_expected = 1
        picture = read_image(str(self._path))
        self._num_scored = 1
        self._served_by.add("pillow")
        yield FrameChunk(
            chunk_index=0,
            frame_indices=np.zeros(1, np.int32),
            times_seconds=np.zeros(1),
            pixels={size: resize_square(picture, size)[None] for size in self._sizes},
        )

    def _read_video(self, first_chunk: int) -> Generator[FrameChunk | None, None, str | None]:
        container, stream = open_video(str(self._path))
        with container:
            timeline = read_timeline(container, stream)
            if len(container.streams.video) > 1:
                self._notes.append(f"video stream {stream.index} of several")
        yield None
        plan = plan_samples(timeline, self._source, fps=self._settings.fps)
        self._num_expected = len(plan)
        if not len(plan):
            raise DecodeError("the clip's part lies outside the file")
        if timeline.note:
            self._notes.append(timeline.note)
        self._pyav = PyavReader(str(self._path), plan, timeline)
        self._decord_samples = self._open_decord(first_chunk * self._settings.chunk_frames)
        size = self._settings.chunk_frames
        for chunk_index in range(first_chunk, -(-len(plan) // size)):
            first, stop = chunk_index * size, min((chunk_index + 1) * size, len(plan))
            pictures = yield from self._read_chunk(first, stop)
            positions = sorted(pictures)
            self._num_scored += len(positions)
            if positions:
                indices = plan.frame_indices[positions]
                yield FrameChunk(
                    chunk_index=chunk_index,
                    frame_indices=indices,
                    times_seconds=indices / self._settings.fps,
                    pixels={s: np.stack([pictures[p][s] for p in positions]) for s in self._sizes},
                )
        return self._shortfall(len(plan) - first_chunk * size)

    def _open_decord(self, first: int) -> Iterator[Sample | None] | None:
        if not self._use_decord:
            return None
        self._attempts += 1
        try:
            reader = DecordReader(self._pyav.path, self._pyav.plan, self._pyav.timeline)
        except DecodeError as problem:
            self._notes.append(str(problem))
            return None
        return reader.read(first)

    def _read_chunk(self, first: int, stop: int) -> Generator[None, None, _Pictures]:
        """Decode the samples ``first`` to ``stop``; those that do not decode are left out."""
        if self._decord_samples is not None:
            try:
                pictures, is_suspicious = yield from self._collect(self._decord_samples, stop)
            except DecodeError as problem:
                self._notes.append(str(problem))
            else:
                if not is_suspicious or (yield from self._pyav_agrees(pictures, first, stop)):
                    self._served_by.add("decord")
                    return pictures
                self._notes.append("decord returned black or repeated pictures that are not so")
            self._decord_samples = None
        if self._pyav_samples is None:
            self._attempts += 1
            self._pyav_samples = self._pyav.read(first)
        pictures, _ = yield from self._collect(self._pyav_samples, stop)
        if pictures:
            self._served_by.add("pyav")
        return pictures

    def _pyav_agrees(
        self, pictures: _Pictures, first: int, stop: int
    ) -> Generator[None, None, bool]:
        """Decode a chunk with PyAV too; where it agrees, decord is trusted for the whole clip."""
        if not self._check_decord:
            return True
        self._attempts += 1
        samples = self._pyav.read(first)
        truth, _ = yield from self._collect(samples, stop)
        self._ahead = None
        self._check_decord = False
        return truth.keys() == pictures.keys() and all(
            np.array_equal(truth[p][s], pictures[p][s]) for p in truth for s in self._sizes
        )

    def _collect(
        self, samples: Iterator[Sample | None], stop: int
    ) -> Generator[None, None, tuple[_Pictures, bool]]:
        """Take the samples before ``stop``, resized; say whether any is black or repeated."""
        pictures: _Pictures = {}
        is_suspicious, before = False, None
        while True:
            sample, self._ahead = self._ahead or next(samples, _END), None
            if sample is None:
                yield None
                continue
            position, picture = sample
            if position >= stop:
                self._ahead = sample if sample is not _END else None
                return pictures, is_suspicious
            pictures[position] = {s: resize_square(picture, s) for s in self._sizes}
            is_suspicious |= int(picture.max()) <= _BLACK_LEVEL or _is_same(picture, before)
            before = picture

    def _shortfall(self, num_wanted: int) -> str | None:
        """Why the clip is not whole, None if it is."""
        faults = self._pyav.faults
        because = f": {faults.first_error}" if faults.first_error else ""
        if num_wanted > 0 and not self._num_scored:
            return f"no frame decodes{because}"
        if self._num_scored < num_wanted:
            num_missing = num_wanted - self._num_scored
            return f"{num_missing} of {self._num_expected} frames do not decode{because}"
        if faults.num_concealed:
            return f"{faults.num_concealed} frames decode with damage{because}"
        if faults.num_errors:
            self._notes.append(f"{faults.num_errors} packets beside the samples fail{because}")
        return None


def local_path(uri: str) -> Path:
    """Path of a local file given as a path or a ``file://`` URI."""
    return Path(unquote(urlparse(uri).path)) if uri.startswith("file://") else Path(uri)


def _is_same(picture: NDArray[np.uint8], before: NDArray[np.uint8] | None) -> bool:
    if before is None or before.shape != picture.shape:
        return False
    return np.array_equal(picture[::16, ::16], before[::16, ::16]) and np.array_equal(
        picture, before
    )
