"""Edit lists of MP4 files, rewritten (ISO/IEC 14496-12, 8.6.6)."""

import struct
from collections.abc import Sequence
from pathlib import Path

_PARENTS = (b"moov", b"trak", b"edts")


def with_edits(clip: Path, edits: Sequence[tuple[int, int]]) -> Path:
    """Give a clip, stored with ``moov`` last, other edits: ms shown, and from which media time on."""
    data = bytearray(clip.read_bytes())
    places, begin = [], 0
    for kind in (*_PARENTS, b"elst"):
        while data[begin + 4 : begin + 8] != kind:
            begin += int.from_bytes(data[begin : begin + 4], "big")
        places.append(begin)
        begin += 8
    at = places.pop()
    length = int.from_bytes(data[at : at + 4], "big")
    entries = b"".join(struct.pack(">IiI", shown, first, 1 << 16) for shown, first in edits)
    body = b"elst" + struct.pack(">II", 0, len(edits)) + entries
    data[at : at + length] = struct.pack(">I", len(body) + 4) + body
    for place in places:
        (old,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, old + len(body) + 4 - length)
    clip.write_bytes(data)
    return clip
