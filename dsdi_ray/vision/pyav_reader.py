"""Planned samples through PyAV, packet by packet, with an account of what fails.

A reader yields ``(position in the plan, upright RGB squares)`` with positions ascending; one that
comes twice replaces the first, one that is passed over did not decode. It yields None now and then
as a sign of progress.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import av
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from dsdi_ray.vision.damage import Damage, Faults
from dsdi_ray.vision.packet_decoding import Place, decoded_frames
from dsdi_ray.vision.pictures import Sample, SquareScaler
from dsdi_ray.vision.sampling import SamplingPlan
from dsdi_ray.vision.timeline import Timeline
from dsdi_ray.vision.video_stream import VideoFile

_MAX_OUTLIERS = 16  # a bound on memory


class _Picture(NamedTuple):
    """A decoded picture, when it is shown, and whether damage may have reached it."""

    frame: VideoFrame
    shown_at: int
    is_damaged: bool

    @property
    def end(self) -> int:
        """When it goes off screen, by its own account."""
        return self.shown_at + (self.frame.duration or 0)


PacketTest = Callable[["Packet[VideoStream]"], bool]


def frames_from(
    video: VideoFile,
    timeline: Timeline,
    display_time: int,
    faults: Faults,
    *,
    is_wanted: PacketTest = lambda _: True,
) -> Iterator[VideoFrame | None]:
    """Decode from the key frame at or before a display time on, or from the file's start.

    A container may mark as key frames pictures that need others, or land elsewhere than asked. So
    after a seek pictures only count from one on that needs no other and is shown in time; where
    two key frames give none, decoding starts at the file's start.

    Args:
        video: The file.
        timeline: The stream's display times.
        display_time: The first one wanted.
        faults: Told of what fails on the way.
        is_wanted: Whether the decoder gets a packet.

    Yields:
        Pictures in display order, and None now and then as a sign of progress.
    """
    for key_time in timeline.keys_before(display_time):
        errors = Faults()
        container, stream = video.open()
        with container:
            try:
                container.seek(key_time, stream=stream, backward=True)
            except (av.FFmpegError, OSError):
                break
            frames = decoded_frames(container, stream, errors.add, is_wanted=is_wanted)
            for frame in frames:
                if frame is None:
                    yield None
                elif frame.pts is None or frame.pts > display_time:
                    break
                elif frame.pict_type == PictureType.I and not frame.is_corrupt:
                    yield frame
                    for following in frames:
                        faults.take(errors)
                        yield following
                    faults.take(errors)
                    return
    container, stream = video.open()
    with container:
        yield from decoded_frames(container, stream, faults.add, is_wanted=is_wanted)


@dataclass
class PyavReader:
    """Reads with PyAV, packet by packet; a packet that does not decode is counted and passed over.

    Attributes:
        video: The file.
        plan: What to read.
        timeline: The stream's display times.
        sizes: Sides in pixels of the squares wanted.
        faults: What went wrong so far.
    """

    video: VideoFile
    plan: SamplingPlan
    timeline: Timeline
    sizes: Sequence[int]
    faults: Faults = field(default_factory=Faults)
    _num_pictures: int = 0
    _stretch: int = 0

    def read(self, first: int) -> Iterator[Sample | None]:
        """Yield samples from position ``first`` of the plan on."""
        if first >= len(self.plan):
            return
        self._scaler = SquareScaler(self.sizes, like_decord=not self.plan.is_worth_skipping)
        # A picture serves the sample at its own time. Where no picture comes at a sample's time,
        # the one before serves it if it says that it is shown so long: the second field of a
        # picture has a packet and a time stamp of its own. Otherwise the sample did not decode.
        position, before = first, None
        times = self.plan.display_times
        for picture in _in_order(self._pictures(int(times[first]))):
            if picture is None:
                yield None
                continue
            while position < len(times) and times[position] < picture.shown_at:
                if before is not None and times[position] < before.end:
                    yield from self._sample(position, before)
                position += 1
            if position < len(times) and times[position] == picture.shown_at:
                yield from self._sample(position, picture)
                position += 1
            elif position > first and times[position - 1] == picture.shown_at:
                yield from self._sample(position - 1, picture)  # of two at a time, the later stays
            if position == len(times):
                return
            # With packets lost, a duration may span pictures that were among them.
            before = picture if self.faults.num_errors == 0 else None
        while before is not None and position < len(times) and times[position] < before.end:
            yield from self._sample(position, before)
            position += 1

    def _pictures(self, display_time: int) -> Iterator[_Picture | None]:
        """Pictures in display order, with their times, from one at or before a time on."""
        self._num_pictures = 0
        self._stretch = 0
        self.faults.places.clear()  # those of another run through the stream
        damage = Damage(self.faults.places, self.timeline)
        for frame in frames_from(self.video, self.timeline, display_time, self.faults):
            if frame is None:
                yield None
            else:
                yield _Picture(frame, self._display_time(frame), damage.reaches(frame))

    def _sample(self, position: int, picture: _Picture) -> Iterator[Sample]:
        try:
            squares = self._scaler.squares(picture.frame)
        except (av.FFmpegError, ValueError) as error:
            self.faults.add(error)
            return
        self.faults.damaged.discard(position)
        if picture.is_damaged:
            self.faults.damaged.add(position)
        yield position, squares

    def _display_time(self, frame: VideoFrame) -> int:
        if self.timeline.has_timestamps and frame.pts is not None:
            if isinstance(frame.opaque, Place):
                self._stretch = bisect_right(self.timeline.restarts, frame.opaque.number)
            return int(frame.pts) + self.timeline.offsets[self._stretch]
        # Pictures come out in display order; a packet that failed took its picture's place.
        place = self._num_pictures + self.faults.num_errors
        self._num_pictures += 1
        times = self.timeline.picture_times
        if times is None:
            times = self.timeline.display_times
        return int(times[min(place, len(times) - 1)])


def _in_order(pictures: Iterator[_Picture | None]) -> Iterator[_Picture | None]:
    """Keep pictures back that claim to be shown after the next one, until their time comes.

    Their time stamps are damaged. Not where the next one itself claims to be shown before those
    that came already.
    """
    held: _Picture | None = None
    latest: int | None = None
    outliers: list[_Picture] = []
    for picture in pictures:
        if picture is None:
            yield None
            continue
        if held is not None:
            is_next_late = latest is not None and picture.shown_at <= latest
            if held.shown_at <= picture.shown_at or is_next_late:
                while outliers and outliers[0].shown_at <= held.shown_at:
                    yield outliers.pop(0)
                yield held
                latest = held.shown_at
            elif len(outliers) < _MAX_OUTLIERS:
                insort(outliers, held, key=lambda outlier: outlier.shown_at)
        held = picture
    rest = outliers if held is None else [*outliers, held]
    yield from sorted(rest, key=lambda picture: picture.shown_at)
