"""The two video decoders behind one interface: planned samples in, pictures out, in order.

A reader yields ``(position in the plan, upright RGB picture [H, W, 3])`` with positions ascending;
a position that is passed over did not decode. It yields None now and then as a sign of progress.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import av
import decord
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.pictures import upright
from dsdi_ray.vision.timeline import SamplingPlan, Timeline, open_video, short_reason

Sample = tuple[int, NDArray[np.uint8]]

_BATCH_BYTES = 64 * 2**20  # of full-size pictures that decord hands over at once
_SECONDS_BETWEEN_SIGNS = 1.0
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


@dataclass
class PyavReader:
    """Reads with PyAV, packet by packet; a packet that does not decode is counted and passed over.

    Attributes:
        path: The file.
        plan: What to read.
        timeline: The stream's display times.
        faults: What went wrong so far.
    """

    path: str
    plan: SamplingPlan
    timeline: Timeline
    faults: Faults = field(default_factory=Faults)
    _num_pictures: int = 0

    def read(self, first: int) -> Iterator[Sample | None]:
        """Yield samples from position ``first`` of the plan on."""
        if first >= len(self.plan):
            return
        self._num_pictures = 0
        container, stream = open_video(self.path)
        with container:
            is_late = first > 0 or self.plan.ordinals[0] > 0
            if is_late and not self._seek(container, stream, first):
                container.seek(0)
            yield from self._samples(self._frames(container, stream), first)

    def _seek(self, container: InputContainer, stream: VideoStream, first: int) -> bool:
        """Go to the last key frame at or before a sample; False if the container cannot."""
        if not self.timeline.has_timestamps:
            return False
        target = int(self.plan.display_times[first])
        try:
            container.seek(target, stream=stream, backward=True)
            landed = next((p for p in container.demux(stream) if p.pts is not None), None)
            if landed is None or landed.pts > target:
                return False
            container.seek(target, stream=stream, backward=True)
        except (av.FFmpegError, OSError):
            return False
        return True

    def _frames(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[VideoFrame | None]:
        signed_at = time.monotonic()
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError) as error:
                self.faults.add(error)
                break
            try:
                yield from packet.decode()
            except av.EOFError:
                break
            except (av.FFmpegError, ValueError) as error:
                if packet.size:
                    self.faults.add(error)
            if time.monotonic() - signed_at > _SECONDS_BETWEEN_SIGNS:
                signed_at = time.monotonic()
                yield None

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
                    yield position, self._picture(before[0])
                position += 1
            if position < len(times) and times[position] == shown_at:
                yield position, self._picture(frame)
                position += 1
            if position == len(times):
                return
            before = (frame, shown_at + (frame.duration or 0))
        while before is not None and position < len(times) and times[position] < before[1]:
            yield position, self._picture(before[0])
            position += 1

    def _picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        self.faults.num_concealed += frame.is_corrupt
        return upright(frame.to_ndarray(format="rgb24"), frame.rotation)

    def _display_time(self, frame: VideoFrame) -> int:
        if self.timeline.has_timestamps and frame.pts is not None:
            return int(frame.pts)
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

    def __post_init__(self) -> None:
        """Open the file.

        Raises:
            DecodeError: If decord refuses the file or sees another timeline.
        """
        if self.timeline.has_hidden:
            raise DecodeError("decord ignores the file's edit list")
        if self.timeline.bit_depth > 8:
            raise DecodeError(f"decord reduces {self.timeline.bit_depth}-bit colour its own way")
        try:
            self._reader = decord.VideoReader(
                self.path, ctx=decord.cpu(0), num_threads=1, fault_tol=_NO_FAULTS
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
            try:
                pictures = self._reader.get_batch(ordinals.tolist()).asnumpy()
            except Exception as error:
                raise DecodeError(f"decord gave up: {_decord_reason(error)}") from error
            yield from enumerate(pictures, start=first)
            yield None
            first += len(ordinals)
            batch_size = max(1, min(16, _BATCH_BYTES // pictures[0].nbytes))


def _decord_reason(error: BaseException) -> str:
    """Decord's message without its time, source line, path and stack."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\[[^\]]*[:/][^\]]*\] ?|\S*\.cc:\d+: ", "", line)[:160]
