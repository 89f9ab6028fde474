"""Whether a file was cut off: containers whose headers say where they end, beyond the file's end.

A recording or a download that broke off plays up to there without an error; what is gone would pass
unnoticed.
"""

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from av.container import InputContainer
from av.video.stream import VideoStream

from dsdi_ray.vision.video_stream import MATROSKA, MP4, tagged_seconds

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_RIFF_HEAD = 8


def end_if_whole(
    path: Path, container: InputContainer, stream: VideoStream, *, first_time: int, step: int
) -> int | None:
    """Where the video of a file that was cut off would have ended.

    Args:
        path: The file.
        container: It, open.
        stream: Its video.
        first_time: When its first picture is shown, in the stream's time base.
        step: Duration of a picture, too.

    Returns:
        In the stream's time base; None where the file is whole, or its headers do not tell.
    """
    num_bytes = path.stat().st_size
    kind, time_base = container.format.name, stream.time_base
    if time_base is None:
        return None
    if kind == MP4:
        entries = stream.index_entries
        if not len(entries) or entries[-1].pos + entries[-1].size <= num_bytes:
            return None
        # Times of decoding, which begin before those of display and end so much before them.
        return first_time + entries[-1].timestamp - entries[0].timestamp + step
    if kind == MATROSKA and _matroska_end(path) > num_bytes:
        seconds = tagged_seconds(stream)
        if seconds is None and len(container.streams) == 1 and container.duration:
            seconds = Fraction(container.duration, 1_000_000)
        return None if seconds is None else round(seconds / time_base)
    if kind == "avi" and _riff_end(path) > num_bytes:
        return first_time + stream.frames * step
    return None


def _riff_end(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(_RIFF_HEAD)
    return _RIFF_HEAD + int.from_bytes(head[4:8], "little") if head[:4] == b"RIFF" else 0


def _matroska_end(path: Path) -> int:
    """Where the segment ends, 0 where it does not say so, as live recordings do not."""
    with path.open("rb") as file:
        for wanted in (_EBML, _SEGMENT):
            if int.from_bytes(file.read(4), "big") != wanted:
                return 0
            size = _ebml_size(file)
            if size is None:
                return 0
            end = file.tell() + size
            if wanted == _EBML:
                file.seek(end)
    return end


def _ebml_size(file: BinaryIO) -> int | None:
    """A size of 1 to 8 bytes, whose first bits say how many; None: unknown, all bits set."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    num_more = 8 - first[0].bit_length()
    size = int.from_bytes(first + file.read(num_more), "big")
    mask = (1 << (7 * (num_more + 1))) - 1
    return None if size & mask == mask else size & mask
