"""The two video decoders behind one interface: planned samples in, pictures out, in order.

A reader yields ``(position in the plan, upright RGB squares)`` with positions ascending;
one that comes twice replaces the first, one that is passed over did not decode. It yields None now and then as a sign of progress.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import av
import decord
import numpy as np
from av.video.frame import PictureType, VideoFrame
from numpy.typing import NDArray

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.pictures import SquareScaler
from dsdi_ray.vision.sampling import SamplingPlan
from dsdi_ray.vision.timeline import Timeline
from dsdi_ray.vision.video_stream import decoded_frames, open_video, short_reason

Squares = dict[int, NDArray[np.uint8]]  # side S in pixels -> [S, S, 3]
Sample = tuple[int, Squares]

_BATCH_SIZE = 16  # pictures that decord hands over at once
_TIMESTAMP_TOLERANCE_SECONDS = 2e-3
_NO_FAULTS = 1e-9  # decord raises once the share of pictures that it made up exceeds this


@dataclass
class Faults:
    """What went wrong in a stream without ending it."""

    num_errors: int = 0
    num_concealed: int = 0
    first_error: str | None = None

    def add(self, error: BaseException) -> None:
        """Count an error and keep the first."""
        self.num_errors += 1
        self.first_error = self.first_error or short_reason(error)

    def take(self, others: "Faults") -> None:
        """Move what others counted here."""
        self.num_errors += others.num_errors
        self.num_concealed += others.num_concealed
        self.first_error = self.first_error or others.first_error
        others.num_errors = others.num_concealed = 0


@dataclass
class PyavReader:
    """Reads with PyAV, packet by packet; a packet that does not decode is counted and passed over.

    Attributes:
        path: The file.
        plan: What to read.
        timeline: The stream's display times.
        sizes: Sides in pixels of the squares wanted.
        faults: What went wrong so far.
    """

    path: str
    plan: SamplingPlan
    timeline: Timeline
    sizes: Sequence[int]
    faults: Faults = field(default_factory=Faults)
    _num_pictures: int = 0
    _stretch: int = 0
    _last_pts: int | None = None

    def read(self, first: int) -> Iterator[Sample | None]:
        """Yield samples from position ``first`` of the plan on."""
        if first >= len(self.plan):
            return
        self._num_pictures = 0
        self._scaler = SquareScaler(self.sizes)
        self._stretch, self._last_pts = 0, None
        can_seek = self.timeline.has_timestamps and len(self.timeline.offsets) == 1
        if self.plan.ordinals[first] > 0 and can_seek:
            frames = self._frames(seek_to=int(self.plan.display_times[first]))
            for frame in frames:
                if frame is not None:
                    yield from self._samples(chain([frame], frames), first)
                    return
                yield None
        yield from self._samples(self._frames(), first)

    def _frames(self, seek_to: int | None = None) -> Iterator[VideoFrame | None]:
        """Decode from the start, or from the key frame at or before a time.

        A container may mark as key frames pictures that need others, or land elsewhere. So after a
        seek pictures only count from one on that needs no other and is shown in time; if the
        decoder gives none, nothing is yielded.
        """
        container, stream = open_video(self.path)
        with container:
            if seek_to is None:
                yield from decoded_frames(container, stream, self.faults.add)
                return
            try:
                container.seek(seek_to, stream=stream, backward=True)
            except (av.FFmpegError, OSError):
                return
            errors = Faults()
            frames = decoded_frames(container, stream, errors.add)
            for frame in frames:
                if frame is None:
                    yield None
                elif frame.pts is None or frame.pts > seek_to:
                    return
                elif frame.pict_type == PictureType.I and not frame.is_corrupt:
                    yield frame
                    break
            else:
                return
            for frame in frames:
                self.faults.take(errors)
                yield frame
            self.faults.take(errors)

    def _samples(self, frames: Iterator[VideoFrame | None], first: int) -> Iterator[Sample | None]:
        # A picture serves the sample at its own time. Where no picture comes at a sample's time,
        # the one before serves it if it says that it is shown so long: the second field of a
        # picture has a packet and a time stamp of its own. Otherwise the sample did not decode.
        position, before = first, None
        times = self.plan.display_times
        for frame in frames:
            if frame is None:
                yield None
                continue
            shown_at = self._display_time(frame)
            while position < len(times) and times[position] < shown_at:
                if before is not None and times[position] < before[1]:
                    yield from self._sample(position, before[0])
                position += 1
            if position < len(times) and times[position] == shown_at:
                yield from self._sample(position, frame)
                position += 1
            elif position > first and times[position - 1] == shown_at:
                yield from self._sample(position - 1, frame)  # of two at a time, the later stays
            if position == len(times):
                return
            # With packets lost, a duration may span pictures that were among them.
            is_whole = self.faults.num_errors == 0
            before = (frame, shown_at + (frame.duration or 0)) if is_whole else None
        while before is not None and position < len(times) and times[position] < before[1]:
            yield from self._sample(position, before[0])
            position += 1

    def _sample(self, position: int, frame: VideoFrame) -> Iterator[Sample]:
        try:
            squares = self._scaler.squares(frame)
        except (av.FFmpegError, ValueError) as error:
            self.faults.add(error)
            return
        self.faults.num_concealed += frame.is_corrupt
        yield position, squares

    def _display_time(self, frame: VideoFrame) -> int:
        if self.timeline.has_timestamps and frame.pts is not None:
            starts_anew = self._last_pts is not None and (
                frame.pts - self._last_pts < -1 / self.timeline.time_base
            )
            if starts_anew and self._stretch + 1 < len(self.timeline.offsets):
                self._stretch += 1
            self._last_pts = frame.pts
            return int(frame.pts) + self.timeline.offsets[self._stretch]
        # Pictures come out in display order; a packet that failed took its picture's place.
        place = self._num_pictures + self.faults.num_errors
        self._num_pictures += 1
        return int(self.timeline.display_times[min(place, len(self.timeline.display_times) - 1)])


@dataclass
class DecordReader:
    """Reads with decord, after checking that it counts and times the pictures as FFmpeg does."""

    path: str
    plan: SamplingPlan
    timeline: Timeline
    sizes: Sequence[int]

    def __post_init__(self) -> None:
        """Open the file.

        Raises:
            DecodeError: If decord refuses the file or sees another timeline.
        """
        if self.timeline.unfit_for_decord:
            raise DecodeError(self.timeline.unfit_for_decord)
        if len(self.sizes) != 1:
            raise DecodeError("decord resizes to one size, PyAV to several in one pass")
        size = self.sizes[0]
        try:
            self._reader = decord.VideoReader(
                self.path,
                ctx=decord.cpu(0),
                width=size,
                height=size,
                num_threads=1,
                fault_tol=_NO_FAULTS,
            )
            shown_at = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0]
        except Exception as error:  # decord raises bare errors of several kinds
            raise DecodeError(f"decord cannot open it: {_decord_reason(error)}") from error
        times = self.timeline.display_times
        seconds = (times - times[0]) * float(self.timeline.time_base)
        if len(shown_at) != len(seconds):
            raise DecodeError(f"decord counts {len(shown_at)} pictures of {len(seconds)}")
        tolerance = _TIMESTAMP_TOLERANCE_SECONDS + 1e-6 * seconds[-1]
        if np.abs(np.sort(shown_at) - shown_at[0] - seconds).max() > tolerance:
            raise DecodeError("decord's time stamps differ from the container's")

    def read(self, first: int) -> Iterator[Sample | None]:
        """Yield samples from position ``first`` of the plan on.

        Raises:
            DecodeError: Where decord gives up.
        """
        batch_size = 1
        while first < len(self.plan):
            ordinals = self.plan.ordinals[first : first + batch_size]
            started = time.monotonic()
            try:
                pictures = self._reader.get_batch(ordinals.tolist()).asnumpy()
            except Exception as error:
                raise DecodeError(f"decord gave up: {_decord_reason(error)}") from error
            # Long groups of pictures and sparse samples: no batch may look like a hang.
            in_time = max(1, int(len(ordinals) / max(time.monotonic() - started, 1e-3)))
            for position, picture in enumerate(pictures, start=first):
                yield position, {self.sizes[0]: picture}
            yield None
            first += len(ordinals)
            batch_size = min(_BATCH_SIZE, in_time)


def _decord_reason(error: BaseException) -> str:
    """Decord's message without its time, source line, path and stack."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\[[^\]]*[:/][^\]]*\] ?|\S*\.cc:\d+: ", "", line)[:160]
