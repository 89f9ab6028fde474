"""When each picture of a video is on screen, read from packets without decoding them."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.decode import ClipSource

_MAX_SIDE_PX = 16_384
_DEFAULT_FPS = Fraction(25)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Display times of a stream's pictures.

    Attributes:
        display_times: Ascending, in units of ``time_base``, ``[N]``.
        time_base: Seconds per unit.
        end_time: When the last picture goes off screen, same units.
        has_timestamps: False where packets carry none and a constant rate is assumed.
        bit_depth: Bits per colour component.
        has_hidden: True where packets decode to pictures that are never shown (edit lists).
        note: What was odd about the container, None if nothing.
    """

    display_times: NDArray[np.int64]
    time_base: Fraction
    end_time: int
    has_timestamps: bool = True
    has_hidden: bool = False
    bit_depth: int = 8
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """Which pictures are sampled.

    Attributes:
        frame_indices: k of each sample, ascending, ``[S]``.
        ordinals: Place of each sample's picture in display order, ``[S]``.
        display_times: Its display time in units of the stream's time base, ``[S]``.
    """

    frame_indices: NDArray[np.int32]
    ordinals: NDArray[np.int64]
    display_times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.frame_indices)


def open_video(path: str) -> tuple[InputContainer, VideoStream]:
    """Open a file and pick its best video stream, as FFmpeg ranks them; cover art does not count.

    Raises:
        DecodeError: If the file cannot be opened, holds no video, or one of absurd size.
    """
    try:
        container = av.open(path, mode="r", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DecodeError(f"cannot be opened: {short_reason(error)}") from error
    stream = container.streams.best("video")
    if stream is not None and stream.disposition & av.stream.Disposition.attached_pic:
        others = [
            s
            for s in container.streams.video
            if not s.disposition & av.stream.Disposition.attached_pic
        ]
        stream = others[0] if others else None
    if stream is None:
        kinds = [s.type for s in container.streams]
        listed = ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))
        container.close()
        raise DecodeError(f"no video stream (streams: {listed or 'none'})")
    if max(stream.width, stream.height) > _MAX_SIDE_PX:
        size = f"{stream.width}x{stream.height}"
        container.close()
        raise DecodeError(f"picture size {size} is above {_MAX_SIDE_PX} px a side")
    stream.codec_context.thread_count = 1
    return container, stream


def short_reason(error: BaseException) -> str:
    """A library's error without paths, numbers of its own and further lines."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().splitlines()[0][:200]


def read_timeline(container: InputContainer, stream: VideoStream) -> Timeline:
    """Read the display times of all pictures; only packet headers are kept.

    Raises:
        DecodeError: If the stream has no packet.
    """
    times: list[int] = []
    decode_times: list[int] = []
    last_duration, has_hidden, num_untimed, note = 0, False, 0, None
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_discard:
                has_hidden = True
                continue
            if packet.pts is None:
                num_untimed += 1
            else:
                times.append(packet.pts)
            if packet.dts is not None:
                decode_times.append(packet.dts)
            last_duration = packet.duration or last_duration
    except (av.FFmpegError, OSError) as error:
        note = f"the container ends early: {short_reason(error)}"
    num_pictures = len(times) + num_untimed
    if num_pictures == 0:
        raise DecodeError(f"no picture in the video stream{f' ({note})' if note else ''}")
    time_base = stream.time_base or Fraction(1, 90_000)
    pixel_format = stream.codec_context.format
    rate = stream.average_rate or stream.guessed_rate or _DEFAULT_FPS
    step = max(1, round(1 / (rate * time_base)))
    is_timed = num_untimed == 0 and container.format.name != "avi"  # AVI stores no display times
    if not is_timed:
        regular = len(decode_times) == num_pictures and len(set(decode_times)) == num_pictures
        times = decode_times if regular else [i * step for i in range(num_pictures)]
    display_times = np.unique(np.array(times, dtype=np.int64))
    return Timeline(
        display_times=display_times,
        time_base=time_base,
        end_time=int(display_times[-1]) + (last_duration or step),
        has_timestamps=is_timed,
        has_hidden=has_hidden,
        bit_depth=pixel_format.components[0].bits if pixel_format else 8,
        note=note,
    )


def plan_samples(timeline: Timeline, source: ClipSource, *, fps: float) -> SamplingPlan:
    """Pick the picture on screen at each grid point, each picture once.

    Args:
        timeline: Display times.
        source: The part of the file that is the clip; seconds count from the first picture.
        fps: Grid points per second.

    Returns:
        The plan; empty if the part lies outside the file.
    """
    seconds = (timeline.display_times - timeline.display_times[0]) * float(timeline.time_base)
    end_of_file = (timeline.end_time - int(timeline.display_times[0])) * float(timeline.time_base)
    start = source.start_seconds or 0.0
    end = min(end_of_file, source.end_seconds if source.end_seconds is not None else end_of_file)
    # A grid point that differs from a display time by less than a rounding error shows it.
    tolerance = min(1e-4, 0.01 / fps)
    num_points = max(0, ceil((end - start - tolerance) * fps))
    if source.end_seconds is None and start <= seconds[-1]:
        num_points = max(num_points, 1)
    grid = start + np.arange(num_points) / fps
    on_screen = np.searchsorted(seconds, grid + tolerance, side="right") - 1
    _, first = np.unique(on_screen, return_index=True)
    first = first[on_screen[first] >= 0]
    ordinals = on_screen[first].astype(np.int64)
    return SamplingPlan(
        frame_indices=first.astype(np.int32),
        ordinals=ordinals,
        display_times=timeline.display_times[ordinals],
    )
