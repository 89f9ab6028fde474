"""Decode one clip into chunks of frames; runs in a process that may be killed.

Which decoder is tried first: PyAV where at least a tenth of the pictures need no decoding, which
decord cannot skip; decord for all others. What the first refuses, gives up on (decord, too, once its
log tells of damage), or (decord) returns suspiciously (a black picture, a picture repeated) is
decoded again in full with PyAV, whose pictures count; where decord and PyAV agree decord goes on.
All ways in which a clip may be served give the same bytes. A chunk is passed on only once it is
settled whose pictures it holds. A hang or a crash is the parent process's business: it starts again
at the first chunk that it did not get.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision import failures
from dsdi_ray.vision.damage import Faults
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings, FrameChunk
from dsdi_ray.vision.decord_reader import DecordReader
from dsdi_ray.vision.failures import is_io_error, reading_fault, short_reason
from dsdi_ray.vision.pictures import read_image, resize_square
from dsdi_ray.vision.pyav_reader import PyavReader
from dsdi_ray.vision.sample_stream import Pictures, SampleStream, are_same
from dsdi_ray.vision.sampling import SamplingPlan, plan_samples
from dsdi_ray.vision.skipping_reader import SkippingReader
from dsdi_ray.vision.timeline import Timeline
from dsdi_ray.vision.timeline_reader import read_timeline
from dsdi_ray.vision.video_stream import VideoFile, check_file, looks_encrypted

Progress = float | None  # a sign of life; a number asks for so many seconds without another
_PATIENCE = 4.0  # times what reading the same packets with PyAV took


class ClipReader:
    """One clip on its way through the decoders.

    Args:
        source: The clip.
        sizes: Sides in pixels of the squares wanted.
        settings: How it is sampled.
        is_careful: Decode every picture with PyAV; for a clip on which the fast way crashed or hung.

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
        is_careful: bool = False,
    ) -> None:
        self._source = source
        self._path = local_path(source.uri)
        self._sizes = sorted(set(sizes))
        self._settings = settings
        self._is_careful = is_careful
        self._fast: tuple[str, SampleStream] | None = None
        self._full: SampleStream | None = None
        self.served_by: set[str] = set()
        self._notes: list[str] = []
        self._attempts = 0
        self.num_expected = 0
        self._num_scored = 0
        self._faults = Faults()
        self._is_cut = False
        self._complaint: str | None = None

    def read(self, first_chunk: int = 0) -> Iterator[FrameChunk | DecodeOutcome | Progress]:
        """Yield chunks from ``first_chunk`` on, signs of progress, and the outcome last.

        The outcome counts only the frames of the chunks that this call yielded.
        """
        started = time.monotonic()
        error, is_transient, may_be_unreadable = None, False, False
        try:
            check_file(self._path)
            if self._source.media == "image":
                error = yield from self._read_image()
            else:
                with closing(VideoFile(str(self._path))) as video:
                    error = yield from self._read_video(video, first_chunk)
        except Exception as problem:  # one bad clip never ends a job
            is_ours = isinstance(problem, DecodeError)
            error = str(problem) if is_ours else f"cannot be read: {short_reason(problem)}"
            is_transient, may_be_unreadable = failures.is_transient(problem), is_io_error(problem)
        if may_be_unreadable or self._is_cut or self._faults.has_io_error:
            fault = yield from reading_fault(self._path)
            if fault is not None:
                error, is_transient = f"cannot be read: {short_reason(fault)}", True
        if error is not None and not self._num_scored and looks_encrypted(self._path):
            error = f"encrypted: {error}"
        yield DecodeOutcome(
            status="ok" if error is None else "partial" if self._num_scored else "failed",
            error=error,
            is_transient=is_transient,
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

    def _read_video(
        self, video: VideoFile, first_chunk: int
    ) -> Generator[FrameChunk | Progress, None, str | None]:
        started = time.monotonic()
        source = self._source
        timeline = yield from read_timeline(video, source.start_seconds, source.end_seconds)
        self._is_cut = timeline.is_cut
        if timeline.has_hole(source.start_seconds, source.end_seconds):
            self._complaint = timeline.complaint
        if timeline.is_cut:
            video.close()  # a container that failed is opened anew
        # decord gives no sign of progress while it reads the same packets once more.
        yield _PATIENCE * (time.monotonic() - started)
        plan = plan_samples(timeline, source, fps=self._settings.fps)
        self.num_expected = len(plan) + plan.num_lost + plan.num_in_holes
        if not len(plan):
            where = (
                "beyond the end of a file that was cut off" if plan.num_lost else "outside the file"
            )
            raise DecodeError(f"the clip's part lies {where}")
        if timeline.note:
            self._notes.append(timeline.note)
        self._reader = PyavReader(video, plan, timeline, self._sizes, self._faults)
        size = self._settings.chunk_frames
        if not self._is_careful and not plan.num_beyond:  # decord crashes on such times
            self._open_fast(video, plan, timeline, first_chunk * size)
        for chunk_index in range(first_chunk, -(-len(plan) // size)):
            first, stop = chunk_index * size, min((chunk_index + 1) * size, len(plan))
            pictures = yield from self._read_chunk(first, stop)
            positions = sorted(pictures)
            self._num_scored += len(positions)
            if positions:
                indices = plan.frame_indices[positions]
                pixels = {s: np.stack([pictures[p][s] for p in positions]) for s in self._sizes}
                pictures.clear()  # of a chunk there is one copy while the next one is decoded
                yield FrameChunk(
                    chunk_index=chunk_index,
                    frame_indices=indices,
                    times_seconds=indices / self._settings.fps,
                    pixels=pixels,
                )
                del pixels
        return self._shortfall(plan, len(plan) - first_chunk * size)

    def _open_fast(
        self, video: VideoFile, plan: SamplingPlan, timeline: Timeline, first: int
    ) -> None:
        """Start the fast decoder: PyAV where it may skip a tenth of the pictures, else decord."""
        self._attempts += 1
        if plan.is_worth_skipping:
            self._notes.append(f"{plan.unneeded_share:.0%} of the pictures are skipped undecoded")
            skipping = SkippingReader(video, plan, timeline, self._sizes)
            self._fast = "pyav", SampleStream(skipping.read(first))
            return
        try:
            decord = DecordReader(video.path, plan, timeline, self._sizes)
        except DecodeError as problem:
            self._notes.append(str(problem))
        else:
            self._fast = "decord", SampleStream(decord.read(first))

    def _read_chunk(self, first: int, stop: int) -> Generator[None, None, Pictures]:
        """Decode the samples ``first`` to ``stop``; those that do not decode are left out."""
        if self._fast is not None:
            name, stream = self._fast
            try:
                pictures = yield from stream.take(stop)
            except DecodeError as problem:
                self._notes.append(str(problem))
                self._fast = None
            else:
                if name == "decord" and stream.looks_wrong(pictures):
                    return (yield from self._check_decord(pictures, first, stop))
                self.served_by.add(name)
                return pictures
        if self._full is None:
            self._attempts += 1
            self._full = SampleStream(self._reader.read(first))
        pictures = yield from self._full.take(stop)
        self.served_by.update(["pyav"] if pictures else [])
        return pictures

    def _check_decord(
        self, pictures: Pictures, first: int, stop: int
    ) -> Generator[None, None, Pictures]:
        """Decode a chunk of decord's that looks wrong again; where PyAV's differs PyAV goes on."""
        self._attempts += 1
        full = SampleStream(self._reader.read(first))
        truth = yield from full.take(stop)
        if are_same(pictures, truth):
            self.served_by.add("decord")
            return pictures
        self._notes.append("decord returned black or repeated pictures that are not so")
        self._fast, self._full = None, full
        self.served_by.update(["pyav"] if truth else [])
        return truth

    def _shortfall(self, plan: SamplingPlan, num_wanted: int) -> str | None:
        """Why the clip is not whole, None if it is."""
        faults = self._faults
        reason = faults.first_error or self._complaint
        because = f": {reason}" if reason else ""
        if num_wanted > 0 and not self._num_scored:
            return f"no frame decodes{because}"
        if self._num_scored < num_wanted:
            num_missing = num_wanted - self._num_scored
            return f"{num_missing} of {self.num_expected} frames do not decode{because}"
        if plan.num_beyond:
            return f"{plan.num_beyond} pictures are not sampled: their times are years away"
        if plan.num_lost:
            return (
                f"{plan.num_lost} of {self.num_expected} frames are missing: the file was cut off"
            )
        if self._is_cut:
            return "the container cannot be read to its end"
        if plan.num_in_holes:
            missing = f"{plan.num_in_holes} of {self.num_expected} frames are missing"
            return f"{missing}: the container is damaged: {self._complaint}"
        if faults.damaged:
            return f"{len(faults.damaged)} frames may show damage{because}"
        if self._complaint:
            return f"the container is damaged: {self._complaint}"
        if faults.places:
            self._notes.append(f"{len(faults.places)} packets beside the samples fail{because}")
        return None


def local_path(uri: str) -> Path:
    """Path of a local file given as a path or a ``file://`` URI."""
    return Path(unquote(urlparse(uri).path)) if uri.startswith("file://") else Path(uri)
