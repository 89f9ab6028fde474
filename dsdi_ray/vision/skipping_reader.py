"""Planned samples through PyAV without decoding what neither they nor other pictures need.

Gives the pictures of a full decode, bit for bit, or raises: errors, damage, fields and time stamps
that do not fit are left to :class:`dsdi_ray.vision.pyav_reader.PyavReader`, which accounts for them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
from av.packet import Packet
from av.video.stream import VideoStream

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.damage import Faults
from dsdi_ray.vision.pictures import Sample, SquareScaler
from dsdi_ray.vision.pyav_reader import frames_from
from dsdi_ray.vision.sampling import SamplingPlan
from dsdi_ray.vision.timeline import Timeline
from dsdi_ray.vision.video_stream import VideoFile


@dataclass
class SkippingReader:
    """Reads with PyAV; packets of ``plan.unneeded_times`` are not decoded.

    Attributes:
        video: The file.
        plan: What to read.
        timeline: The stream's display times.
        sizes: Sides in pixels of the squares wanted.
    """

    video: VideoFile
    plan: SamplingPlan
    timeline: Timeline
    sizes: Sequence[int]

    def read(self, first: int) -> Iterator[Sample | None]:
        """Yield samples from position ``first`` of the plan on.

        Raises:
            DecodeError: Where a full decode is called for.
        """
        faults, scaler = Faults(), SquareScaler(self.sizes, like_decord=False)
        times = self.plan.display_times.tolist()
        position = first
        for frame in frames_from(
            self.video, self.timeline, times[first], faults, is_wanted=self._is_wanted
        ):
            if faults.places:
                break
            if frame is None:
                yield None
                continue
            # The other field of a picture may be in a packet that was skipped.
            if frame.is_corrupt or frame.interlaced_frame or frame.pts is None:
                break
            if frame.pts > times[position] or (
                position > first and frame.pts == times[position - 1]
            ):
                break
            if frame.pts == times[position]:
                try:
                    squares = scaler.squares(frame)
                except (av.FFmpegError, ValueError):
                    break
                yield position, squares
                position += 1
                if position == len(times):
                    return
        reason = faults.first_error or "damaged, interlaced or missing pictures"
        raise DecodeError(f"pictures cannot be skipped: {reason}")

    def _is_wanted(self, packet: "Packet[VideoStream]") -> bool:
        unneeded = self.plan.unneeded_times
        # What an edit list hides may share a time with a picture that is shown.
        if packet.pts is None or packet.is_discard or not len(unneeded):
            return True
        place = min(int(unneeded.searchsorted(packet.pts)), len(unneeded) - 1)
        return bool(unneeded[place] != packet.pts)
