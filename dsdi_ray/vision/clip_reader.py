"""Decode one clip into chunks of frames; runs in a process that may be killed.

decord is tried first. What it refuses, gives up on, or returns suspiciously (a black picture, a
picture repeated) is decoded again with PyAV, whose pictures count; where both agree decord goes
on. A chunk is passed on only once it is settled whose pictures it holds. A hang or a crash is the parent process's business: it starts again at the first chunk
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
from dsdi_ray.vision.frame_readers import DecordReader, PyavReader, Sample, Squares
from dsdi_ray.vision.pictures import read_image, resize_square
from dsdi_ray.vision.sampling import plan_samples
from dsdi_ray.vision.timeline import read_timeline
from dsdi_ray.vision.video_stream import check_file, looks_encrypted, short_reason

FirstDecoder = Literal["decord", "pyav"]
Progress = float | None  # a sign of life; a number asks for so many seconds without another
_BLACK_LEVEL = 24  # full black is 0, or 16 where limited range was taken for full
_PATIENCE = 4.0  # times what reading the same packets with PyAV took
_Pictures = dict[int, Squares]  # by position in the plan


class _SampleStream:
    """A reader's samples, taken chunk by chunk, with an eye on what looks wrong."""

    def __init__(self, samples: Iterator[Sample | None]) -> None:
        self._samples = samples
        self._ahead: Sample | None = None  # of a chunk to come
        self._before: NDArray[np.uint8] | None = None
        self.is_suspicious = False  # a picture of the last chunk taken is black or repeated

    def take(self, stop: int, *, watch: bool = False) -> Generator[None, None, _Pictures]:
        """Take the samples at positions before ``stop``; those that did not decode are absent."""
        pictures: _Pictures = {}
        self.is_suspicious = False
        while True:
            if self._ahead is None:
                sample = next(self._samples, _END)
                if sample is None:
                    yield None
                    continue
                self._ahead = sample
            position, squares = self._ahead
            if position >= stop:
                return pictures
            self._ahead = None
            pictures[position] = squares
            if watch:
                picture = next(iter(squares.values()))
                self.is_suspicious |= int(picture.max()) <= _BLACK_LEVEL
                self.is_suspicious |= _is_same(picture, self._before)
                self._before = picture


_END: Sample = (2**62, {})


class ClipReader:
    """One clip on its way through the decoders.

    Args:
        source: The clip.
        sizes: Sides in pixels of the squares wanted.
        settings: How it is sampled.
        first_decoder: ``pyav`` passes decord over.

    Attributes:
        num_expected: Samples planned, 0 until the timeline is read.
        served_by: Decoders whose pictures were passed on.
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
        self._sizes = sorted(set(sizes))
        self._settings = settings
        self._use_decord = first_decoder == "decord"
        self._decord: _SampleStream | None = None
        self._pyav: _SampleStream | None = None
        self.served_by: set[str] = set()
        self._notes: list[str] = []
        self._attempts = 0
        self.num_expected = 0
        self._num_scored = 0

    def read(self, first_chunk: int = 0) -> Iterator[FrameChunk | DecodeOutcome | Progress]:
        """Yield chunks from ``first_chunk`` on, signs of progress, and the outcome last.

        The outcome counts only the frames of the chunks that this call yielded.
        """
        started = time.monotonic()
        try:
            check_file(self._path)
            if self._source.media == "image":
                error = yield from self._read_image()
            else:
                error = yield from self._read_video(first_chunk)
        except DecodeError as problem:
            error = str(problem)
        except Exception as problem:  # one bad clip never ends a job
            error = f"cannot be read: {short_reason(problem)}"
        if error is not None and not self._num_scored and looks_encrypted(self._path):
            error = f"encrypted: {error}"
        yield DecodeOutcome(
            status="ok" if error is None else "partial" if self._num_scored else "failed",
            error=error,
            note="; ".join(self._notes) or None,
            decoder="+".join(sorted(self.served_by)) or None,
            frames_expected=self.num_expected,
            frames_scored=self._num_scored,
            attempts=max(1, self._attempts),
            seconds=time.monotonic() - started,
        )

    def _read_image(self) -> Generator[FrameChunk, None, str | None]:
        self.served_by.add("pillow")
        self.num_expected = 1
        picture, damage = read_image(str(self._path))
        self._num_scored = 1
        yield FrameChunk(
            chunk_index=0,
            frame_indices=np.zeros(1, np.int32),
            times_seconds=np.zeros(1),
            pixels={size: resize_square(picture, size)[None] for size in self._sizes},
        )
        return damage

    def _read_video(self, first_chunk: int) -> Generator[FrameChunk | Progress, None, str | None]:
        started = time.monotonic()
        timeline = yield from read_timeline(str(self._path))
        # decord gives no sign of progress while it reads the same packets once more.
        yield _PATIENCE * (time.monotonic() - started)
        plan = plan_samples(timeline, self._source, fps=self._settings.fps)
        self.num_expected = len(plan)
        if not len(plan):
            raise DecodeError("the clip's part lies outside the file")
        if timeline.note:
            self._notes.append(timeline.note)
        self._reader = PyavReader(str(self._path), plan, timeline, self._sizes)
        size = self._settings.chunk_frames
        self._open_decord(first_chunk * size)
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

    def _open_decord(self, first: int) -> None:
        if not self._use_decord:
            return
        self._attempts += 1
        reader = self._reader
        try:
            decord = DecordReader(reader.path, reader.plan, reader.timeline, reader.sizes)
        except DecodeError as problem:
            self._notes.append(str(problem))
        else:
            self._decord = _SampleStream(decord.read(first))

    def _read_chunk(self, first: int, stop: int) -> Generator[None, None, _Pictures]:
        """Decode the samples ``first`` to ``stop``; those that do not decode are left out."""
        if self._decord is not None:
            try:
                pictures = yield from self._decord.take(stop, watch=True)
            except DecodeError as problem:
                self._notes.append(str(problem))
            else:
                if not self._decord.is_suspicious:
                    self.served_by.add("decord")
                    return pictures
                self._attempts += 1
                check = _SampleStream(self._reader.read(first))
                truth = yield from check.take(stop)
                if _agree(pictures, truth):
                    self.served_by.add("decord")
                    return pictures
                self._notes.append("decord returned black or repeated pictures that are not so")
                self._decord, self._pyav = None, check
                self.served_by.update(["pyav"] if truth else [])
                return truth
            self._decord = None
        if self._pyav is None:
            self._attempts += 1
            self._pyav = _SampleStream(self._reader.read(first))
        pictures = yield from self._pyav.take(stop)
        self.served_by.update(["pyav"] if pictures else [])
        return pictures

    def _shortfall(self, num_wanted: int) -> str | None:
        """Why the clip is not whole, None if it is."""
        faults = self._reader.faults
        because = f": {faults.first_error}" if faults.first_error else ""
        if num_wanted > 0 and not self._num_scored:
            return f"no frame decodes{because}"
        if self._num_scored < num_wanted:
            num_missing = num_wanted - self._num_scored
            return f"{num_missing} of {self.num_expected} frames do not decode{because}"
        if faults.num_concealed:
            return f"{faults.num_concealed} frames decode with damage{because}"
        if faults.num_errors:
            self._notes.append(f"{faults.num_errors} packets beside the samples fail{because}")
        return None


def local_path(uri: str) -> Path:
    """Path of a local file given as a path or a ``file://`` URI."""
    return Path(unquote(urlparse(uri).path)) if uri.startswith("file://") else Path(uri)


def _agree(pictures: _Pictures, truth: _Pictures) -> bool:
    return truth.keys() == pictures.keys() and all(
        np.array_equal(truth[p][size], pictures[p][size]) for p in truth for size in truth[p]
    )


def _is_same(picture: NDArray[np.uint8], before: NDArray[np.uint8] | None) -> bool:
    return before is not None and np.array_equal(picture, before)
