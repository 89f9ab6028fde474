"""When each picture of a video is on screen, read from packets without decoding them."""

import time
from array import array
from collections.abc import Generator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.video_stream import (
    SECONDS_BETWEEN_SIGNS,
    decoded_frames,
    open_video,
    short_reason,
)

__all__ = ["Timeline", "read_timeline", "short_reason"]

_DEFAULT_FPS = Fraction(25)
# decord seeks at every group of pictures. *Measured*: in these containers it lands on the right
# picture, in others (MPEG-TS) it returned pictures seconds away without an error.
_SEEKABLE_BY_DECORD = frozenset(("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv"))


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Display times of a stream's pictures.

    Attributes:
        display_times: Ascending, in units of ``time_base``, ``[N]``.
        time_base: Seconds per unit.
        end_time: When the last picture goes off screen, same units.
        has_timestamps: False where packets carry none and a constant rate is assumed.
        offsets: What to add to time stamps for display times: one number, or one per stretch
            where the container's clock starts anew (recordings put one behind the other).
        unfit_for_decord: Why decord would return other pictures than those asked for, None if
            nothing is known against it.
        note: What was odd about the container, None if nothing.
    """

    display_times: NDArray[np.int64]
    time_base: Fraction
    end_time: int
    has_timestamps: bool = True
    offsets: tuple[int, ...] = (0,)
    unfit_for_decord: str | None = None
    note: str | None = None


@dataclass
class _PacketFacts:
    """What is kept of the packets: 16 bytes each, so that a file of hours costs some MB."""

    display_times: "array[int]" = field(default_factory=lambda: array("q"))
    decode_times: "array[int]" = field(default_factory=lambda: array("q"))
    num_untimed: int = 0
    num_hidden: int = 0
    num_keys: int = 0
    num_leading: int = 0  # shown before the key frame that they are stored behind
    first_key_time: int | None = None
    last_key_time: int | None = None
    latest: tuple[int, int] | None = None  # display time and duration of the last picture shown
    some_duration: int = 0
    error: str | None = None

    def add(self, packet: "Packet[VideoStream]") -> None:
        if packet.is_discard:
            self.num_hidden += 1
            return
        duration, shown_at = packet.duration or 0, packet.pts
        self.some_duration = duration or self.some_duration
        if packet.dts is not None:
            self.decode_times.append(packet.dts)
        if shown_at is None:
            self.num_untimed += 1
            return
        self.display_times.append(shown_at)
        if packet.is_keyframe:
            self.num_keys += 1
            self.last_key_time = shown_at
            self.first_key_time = shown_at if self.first_key_time is None else self.first_key_time
        elif self.last_key_time is not None and shown_at < self.last_key_time:
            self.num_leading += 1
        if self.latest is None or shown_at >= self.latest[0]:
            self.latest = (shown_at, duration)


def read_timeline(path: str) -> Generator[None, None, Timeline]:
    """Read the display times of all pictures; yield now and then as a sign of progress.

    Pictures before the first key frame need pictures that the file lacks (a recording cut out of
    a stream begins so): if decoding bears that out, they do not count, and the clip starts at the
    first one that decodes. Pictures lost to damage further on do count.

    Raises:
        DecodeError: If the file has no video or no picture.
    """
    container, stream = open_video(path)
    with container:
        facts = yield from _read_packets(container, stream)
        num_pictures = len(facts.display_times) + facts.num_untimed
        if num_pictures == 0:
            raise DecodeError(f"no picture in the video stream ({facts.error or 'headers only'})")
        time_base = stream.time_base or Fraction(1, 90_000)
        rate = stream.average_rate or stream.guessed_rate or _DEFAULT_FPS
        step = max(1, round(1 / (rate * time_base)))
        # AVI stores no display times: FFmpeg gives those of decoding, out of order.
        is_timed = facts.num_untimed == 0 and container.format.name != "avi"
        times = np.array(facts.display_times, dtype=np.int64)
        decoded_at = np.array(facts.decode_times, dtype=np.int64)
        offsets: tuple[int, ...] = (0,)
        if is_timed and len(decoded_at) == len(times):
            times, offsets = _continuous(times, decoded_at, time_base=time_base, step=step)
        if not is_timed:
            is_regular = len(np.unique(decoded_at)) == num_pictures
            times = decoded_at if is_regular else np.arange(num_pictures, dtype=np.int64) * step
        notes = [f"the container ends early: {facts.error}"] if facts.error else []
        if len(container.streams.video) > 1:
            notes.append(f"video stream {stream.index} of several")
        unfit = _unfit_for_decord(container, facts)
        if len(offsets) > 1:
            notes.append(f"the clock starts anew {len(offsets) - 1} times")
            unfit = unfit or "decord sorts time stamps that start anew"
    times = np.unique(times)
    if is_timed:
        start = yield from _first_decodable(path, int(times[0]), facts)
        num_headless = int(np.searchsorted(times, start))
        if num_headless:
            notes.append(f"begins with {num_headless} pictures that need earlier ones")
            unfit, times = "decord counts pictures that do not decode", times[num_headless:]
    is_last = facts.latest is not None and facts.latest[0] + offsets[-1] == times[-1]
    duration = facts.latest[1] if facts.latest is not None and is_last else 0
    return Timeline(
        display_times=times,
        time_base=time_base,
        end_time=int(times[-1]) + (duration or facts.some_duration or step),
        has_timestamps=is_timed,
        offsets=offsets,
        unfit_for_decord=unfit,
        note="; ".join(notes) or None,
    )


def _read_packets(
    container: InputContainer, stream: VideoStream
) -> Generator[None, None, _PacketFacts]:
    facts = _PacketFacts()
    signed_at = time.monotonic()
    try:
        for packet in container.demux(stream):
            if packet.size:
                facts.add(packet)
            if time.monotonic() - signed_at > SECONDS_BETWEEN_SIGNS:
                signed_at = time.monotonic()
                yield None
    except (av.FFmpegError, OSError) as error:
        facts.error = short_reason(error)
    return facts


def clock_restarts(times: NDArray[np.int64], time_base: Fraction) -> NDArray[np.int64]:
    """Places before which a clock goes back by over a second and stays there; one outlier is none.

    Args:
        times: Decoding time stamps in stored order, ``[N]``.
        time_base: Seconds per unit.
    """
    back = np.flatnonzero(np.diff(times) < -1 / time_base)
    stays = [i + 2 >= len(times) or times[i + 2] < times[i] for i in back]
    restarts: NDArray[np.int64] = back[np.array(stays, dtype=bool)] + 1
    return restarts


def _continuous(
    times: NDArray[np.int64], decoded_at: NDArray[np.int64], *, time_base: Fraction, step: int
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Put stretches whose clocks start anew one behind the other."""
    bounds = [0, *clock_restarts(decoded_at, time_base).tolist(), len(times)]
    shifted, offsets = times.copy(), [0]
    for first, stop in pairwise(bounds[1:]):
        offsets.append(int(shifted[:first].max()) + step - int(times[first:stop].min()))
        shifted[first:stop] += offsets[-1]
    return shifted, tuple(offsets)


def _unfit_for_decord(container: InputContainer, facts: _PacketFacts) -> str | None:
    if container.format.name not in _SEEKABLE_BY_DECORD:
        return f"decord seeks inexactly in {container.format.long_name}"
    if facts.num_hidden:
        return "decord ignores the file's edit list"
    if facts.num_leading:
        return "decord miscounts pictures stored behind the key frame that they precede"
    return None


def _first_decodable(path: str, first: int, facts: _PacketFacts) -> Generator[None, None, int]:
    """Display time of the first picture that needs none which the file lacks."""
    if facts.first_key_time is not None and facts.first_key_time <= first:
        return first
    decoded = yield from _first_decoded_time(path)
    candidates = [t for t in (decoded, facts.first_key_time) if t is not None]
    return min(candidates, default=first)


def _first_decoded_time(path: str) -> Generator[None, None, int | None]:
    container, stream = open_video(path)
    with container:
        for frame in decoded_frames(container, stream, on_error=lambda _: None):
            if frame is None:
                yield None
            elif frame.pts is not None:
                return int(frame.pts)
    return None
