"""Reads a timeline from a file's packets, without decoding them.

A part of a file costs what the part is long, where the container has an index: the file's first
packets say when it begins, and those from the key frame before the part on say what it shows.
"""

import math
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.avi_times import avi_times
from dsdi_ray.vision.clocks import clock_restarts, join_clocks
from dsdi_ray.vision.cut_files import end_if_whole
from dsdi_ray.vision.decord_fitness import unfit_for_decord
from dsdi_ray.vision.packet_decoding import decoded_frames
from dsdi_ray.vision.packet_facts import PacketFacts, read_packets
from dsdi_ray.vision.references import unreferenced
from dsdi_ray.vision.timeline import Timeline
from dsdi_ray.vision.video_stream import INDEXED, VideoFile, open_video

_DEFAULT_FPS = Fraction(25)
_NO_TIMES = np.empty(0, np.int64)
# Decoding times bound the display times still to come; some containers are a little off.
_MARGIN_SECONDS = 1
_NEVER = np.iinfo(np.int64).max
_NUM_RECENT = 4
_RECENT: dict[tuple[str, int, int], Timeline] = {}  # by path, size, time of change; oldest first
# After a seek into a program stream FFmpeg gives pictures that share a packet other times than before.
_PROGRAM_STREAM = "mpeg"


def read_timeline(
    video: VideoFile, start_seconds: float | None = None, end_seconds: float | None = None
) -> Generator[None, None, Timeline]:
    """Read display times; yield now and then as a sign of progress.

    Pictures before the first key frame need pictures that the file lacks (a recording cut out of
    a stream begins so): if decoding bears that out, they do not count, and the clip starts at the
    first one that decodes. Pictures lost to damage further on do count.

    Args:
        video: The file.
        start_seconds: Start of the part of interest, from the file's first picture; None for that.
        end_seconds: Its end, None for the file's.

    Returns:
        The display times of all pictures, or at least of those that the part shows.

    Raises:
        DecodeError: If the file has no video or no picture.
    """
    if start_seconds or end_seconds is not None:
        part = yield from _read_part(video, start_seconds or 0.0, end_seconds)
        return part or (yield from _read_whole_once(video))
    return (yield from _read_whole(video))


def _read_part(
    video: VideoFile, start_seconds: float, end_seconds: float | None
) -> Generator[None, None, Timeline | None]:
    """None where the container has no index or is in any way unusual."""
    with video.packets() as (container, stream):
        time_base = stream.time_base
        if container.format.name not in INDEXED or time_base is None:
            return None
        margin = math.ceil(_MARGIN_SECONDS / time_base)
        head = yield from read_packets(
            container,
            stream,
            lambda facts, packet: _is_behind(packet, next(iter(facts.display_times), None), margin),
        )
        if not _is_regular(head, time_base) or head.key_times[0] > min(head.display_times):
            return None
        first_time = head.key_times[0]
        start = first_time + math.floor(start_seconds / time_base)
        end = None if end_seconds is None else first_time + math.ceil(end_seconds / time_base)
        try:
            container.seek(start, stream=stream, backward=True)
        except (av.FFmpegError, OSError):
            return None
        facts = yield from read_packets(
            container, stream, lambda _, packet: _is_behind(packet, end, margin)
        )
        if not _is_regular(facts, time_base) or facts.key_times[0] > start:
            return None
        stored = np.array(facts.display_times, dtype=np.int64)
        times, is_unneeded = _distinct(stored, facts.references)
        step = _step(stream, time_base)
        return Timeline(
            display_times=times,
            is_unneeded=is_unneeded,
            key_times=np.unique(facts.key_times),
            time_base=time_base,
            first_time=first_time,
            end_time=_end_time(facts, times, offset=0, step=step),
            holes=_holes(facts, stored),
            complaint=facts.complaint,
            lost_end_time=end_if_whole(
                Path(video.path), container, stream, first_time=first_time, step=step
            ),
            unfit_for_decord="decord indexes a whole file for a part of it",
            note="; ".join(_stream_notes(container, stream)) or None,
        )


def _is_behind(packet: "Packet[VideoStream]", display_time: int | None, margin: int) -> bool:
    """Whether all pictures before a display time are stored before a packet.

    One that an edit list hides does not tell: times start anew with the edit behind it.
    """
    if display_time is None or packet.dts is None or packet.is_discard:
        return False
    return packet.dts >= display_time + margin


def _is_regular(facts: PacketFacts, time_base: Fraction) -> bool:
    """Whether a key frame comes first, all pictures are timed and the clock runs on."""
    return (
        facts.error is None
        and facts.are_timed
        and len(facts.key_times) > 0
        and facts.key_times[0] == facts.display_times[0]
        and not len(clock_restarts(np.array(facts.decode_times, dtype=np.int64), time_base))
    )


def _read_whole_once(video: VideoFile) -> Generator[None, None, Timeline]:
    """Read a whole timeline, or recall it: windows of one file come one behind the other."""
    facts = Path(video.path).stat()
    key = (video.path, facts.st_size, facts.st_mtime_ns)
    if key not in _RECENT:
        _RECENT[key] = yield from _read_whole(video)
    while len(_RECENT) > _NUM_RECENT:
        del _RECENT[next(iter(_RECENT))]
    return _RECENT[key]


def _read_whole(video: VideoFile) -> Generator[None, None, Timeline]:
    with video.packets() as (container, stream):
        facts = yield from read_packets(container, stream)
        num_pictures = len(facts.display_times) + facts.num_untimed
        if num_pictures == 0:
            raise DecodeError(f"no picture in the video stream ({facts.error or 'headers only'})")
        time_base = stream.time_base or Fraction(1, 90_000)
        step = _step(stream, time_base)
        is_avi = container.format.name == "avi"
        is_timed = not is_avi and facts.are_timed  # FFmpeg gives AVI's times of decoding for both
        stored = np.array(facts.display_times, dtype=np.int64)
        decoded_at = np.array(facts.decode_times, dtype=np.int64)
        offsets: tuple[int, ...] = (0,)
        restarts: tuple[int, ...] = ()
        if is_timed and len(decoded_at) == len(stored):
            stored, offsets, restarts = join_clocks(
                stored, decoded_at, time_base=time_base, step=step
            )
        picture_times = None
        if not is_timed and len(np.unique(decoded_at)) < num_pictures:
            if stream.frames and stream.duration:
                step = max(1, stream.duration // stream.frames)
                facts.latest, facts.some_duration = None, step
            stored = np.arange(num_pictures, dtype=np.int64) * step
        elif is_avi:
            stored, picture_times = avi_times(stream, facts.decode_times, facts.positions)
        elif not is_timed:
            stored = decoded_at
        notes = [f"the container ends early: {facts.error}"] if facts.error else []
        notes += _stream_notes(container, stream)
        unfit = unfit_for_decord(container, stream, facts)
        lost_end = end_if_whole(
            Path(video.path), container, stream, first_time=int(stored.min()), step=step
        )
        may_seek = container.format.name != _PROGRAM_STREAM
        num_missing = 0 if is_timed else len(stored) - num_pictures
        if num_missing:
            notes.append(f"the file lacks {num_missing} pictures of its index")
            unfit = unfit or "decord counts pictures that the file lacks"
        if len(offsets) > 1:
            notes.append(f"the clock starts anew {len(offsets) - 1} times")
            unfit = unfit or "decord sorts time stamps that start anew"
    times, is_unneeded = _distinct(stored, facts.references)
    if is_timed:
        start = yield from _first_decodable(video.path, int(times[0]), facts)
        num_headless = int(np.searchsorted(times, start))
        if num_headless:
            notes.append(f"begins with {num_headless} pictures that need earlier ones")
            unfit = "decord counts pictures that do not decode"
            times, is_unneeded = times[num_headless:], is_unneeded[num_headless:]
    is_located = len(facts.holes) > 0 or video.complaint is None
    has_one_clock = is_timed and len(offsets) == 1
    return Timeline(
        display_times=times,
        is_unneeded=is_unneeded if has_one_clock else None,
        key_times=np.unique(facts.key_times) if has_one_clock and may_seek else _NO_TIMES,
        time_base=time_base,
        first_time=int(times[0]),
        end_time=_end_time(facts, times, offset=offsets[-1], step=step),
        has_timestamps=is_timed,
        picture_times=picture_times,
        offsets=offsets,
        restarts=restarts,
        is_cut=facts.error is not None,
        lost_end_time=None if lost_end is None else lost_end + offsets[-1],
        holes=_holes(facts, stored) if is_located else np.array([[times[0], _NEVER]]),
        complaint=facts.complaint or video.complaint,
        unfit_for_decord=unfit,
        note="; ".join(notes) or None,
    )


def _distinct(
    stored: NDArray[np.int64], references: bytearray
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Display times in order, and which of their pictures no other picture needs."""
    times, places, counts = np.unique(stored, return_index=True, return_counts=True)
    if len(references) != len(stored):
        return times, np.zeros(len(times), dtype=bool)
    return times, unreferenced(references)[places] & (counts == 1)


def _holes(facts: PacketFacts, stored: NDArray[np.int64]) -> NDArray[np.int64]:
    """Display times around what FFmpeg passed over."""
    behind = np.unique(np.array(facts.holes, dtype=np.int64))
    ends = np.append(stored, _NEVER)
    return np.stack([ends[np.maximum(behind - 1, 0)], ends[behind]], axis=1)


def _step(stream: VideoStream, time_base: Fraction) -> int:
    rate = stream.average_rate or stream.guessed_rate or _DEFAULT_FPS
    return max(1, round(1 / (rate * time_base)))


def _end_time(facts: PacketFacts, times: NDArray[np.int64], *, offset: int, step: int) -> int:
    is_last = facts.latest is not None and facts.latest[0] + offset == times[-1]
    duration = facts.latest[1] if facts.latest is not None and is_last else 0
    return int(times[-1]) + (duration or facts.some_duration or step)


def _stream_notes(container: InputContainer, stream: VideoStream) -> list[str]:
    is_only_one = len(container.streams.video) == 1
    return [] if is_only_one else [f"video stream {stream.index} of several"]


def _first_decodable(path: str, first: int, facts: PacketFacts) -> Generator[None, None, int]:
    """Display time of the first picture that needs none which the file lacks."""
    keys = facts.key_times[:1].tolist()
    if keys and keys[0] <= first:
        return first
    decoded = yield from _first_decoded_time(path)
    candidates = [t for t in (decoded, *keys) if t is not None]
    return min(candidates, default=first)


def _first_decoded_time(path: str) -> Generator[None, None, int | None]:
    container, stream = open_video(path)
    with container:
        for frame in decoded_frames(container, stream, on_fault=lambda *_: None):
            if frame is None:
                yield None
            elif frame.pts is not None:
                return int(frame.pts)
    return None
