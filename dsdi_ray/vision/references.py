"""Which packets hold a picture that no other picture needs, told from the packet's headers.

Decoding the rest without them gives the same pixels: standards call that sub-bitstream extraction.
H.264: slices whose nal_ref_idc is 0 (7.4.1). HEVC: sub-layer non-reference pictures, unless a
higher sub-layer, which may need them, exists (7.4.2.2). MPEG-1, -2 and -4 part 2: B pictures.
"""

from collections.abc import Callable, Iterator

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

# Of a picture: twice its temporal sub-layer, plus 1 where no picture of that sub-layer needs it.
ReferenceCode = int
NEEDED: ReferenceCode = 0
_UNNEEDED: ReferenceCode = 1  # in the only sub-layer of codecs that have none

_START_CODE = b"\0\0\1"
_H264_SLICE, _H264_WITHOUT_PICTURE = 1, frozenset((6, 9, 12))  # SEI, delimiter, filler
_HEVC_WITHOUT_PICTURE = frozenset((35, 38, 39))  # delimiter, filler, prefix SEI
_HEVC_FIRST_NON_VCL, _HEVC_FIRST_IRAP = 32, 16


def reference_coder(stream: VideoStream) -> Callable[["Packet[VideoStream]"], ReferenceCode]:
    """Make the function that tells a packet's reference code; when in doubt a picture is needed."""
    context = stream.codec_context
    extradata = context.extradata or b""
    if context.field_order > 1:  # interlaced: a picture may be two packets
        return lambda _: NEEDED
    match context.name:
        case "h264":
            length_size = (extradata[4] & 3) + 1 if extradata[:1] == b"\1" else None
            return lambda packet: _h264_code(_units(packet, length_size))
        case "hevc":
            is_prefixed = len(extradata) > 22 and extradata[:3] not in (b"\0\0\0", _START_CODE)
            length_size = (extradata[21] & 3) + 1 if is_prefixed else None
            return lambda packet: _hevc_code(_units(packet, length_size))
        case "mpeg4":
            return _mpeg4_code
        case "mpeg1video" | "mpeg2video":
            return _mpeg2_code
        case _:
            return lambda _: NEEDED


def unreferenced(codes: bytearray) -> NDArray[np.bool_]:
    """Which of a stream's pictures no other needs, from the codes of all of them, ``[N]``."""
    known = np.frombuffer(codes, np.uint8)
    highest = int(known.max(initial=0)) // 2
    is_unneeded: NDArray[np.bool_] = known == 2 * highest + 1
    return is_unneeded


def _units(packet: "Packet[VideoStream]", length_size: int | None) -> Iterator[memoryview]:
    """NAL units, behind length prefixes as in MP4 or start codes (``length_size`` None)."""
    data = memoryview(packet)
    if length_size is None:
        whole = bytes(data)
        begin = whole.find(_START_CODE)
        while begin >= 0:
            yield data[begin + 3 :]
            begin = whole.find(_START_CODE, begin + 3)
        return
    begin = 0
    while begin + length_size + 2 <= len(data):
        length = int.from_bytes(data[begin : begin + length_size], "big")
        yield data[begin + length_size :]
        begin += length_size + length


def _h264_code(units: Iterator[memoryview]) -> ReferenceCode:
    # All slices of a picture agree on whether nal_ref_idc is 0, so the first one tells.
    for unit in units:
        kind = unit[0] & 31
        if kind not in _H264_WITHOUT_PICTURE:
            return _UNNEEDED if kind == _H264_SLICE and unit[0] >> 5 & 3 == 0 else NEEDED
    return NEEDED


def _hevc_code(units: Iterator[memoryview]) -> ReferenceCode:
    has_parameters = False  # later pictures may need those, so the packet stays
    for unit in units:
        kind = unit[0] >> 1 & 63
        if kind < _HEVC_FIRST_NON_VCL:
            sub_layer = (unit[1] & 7) - 1
            is_unneeded = kind < _HEVC_FIRST_IRAP and kind % 2 == 0 and not has_parameters
            return 2 * max(sub_layer, 0) + is_unneeded
        has_parameters |= kind not in _HEVC_WITHOUT_PICTURE
    return NEEDED


def _mpeg4_code(packet: "Packet[VideoStream]") -> ReferenceCode:
    head = bytes(memoryview(packet)[:5])
    is_picture = len(head) == 5 and head.startswith(_START_CODE + b"\xb6")
    return _UNNEEDED if is_picture and head[4] >> 6 == 2 else NEEDED


def _mpeg2_code(packet: "Packet[VideoStream]") -> ReferenceCode:
    head = bytes(memoryview(packet)[:6])
    is_picture = len(head) == 6 and head.startswith(_START_CODE + b"\0")
    return _UNNEEDED if is_picture and head[5] >> 3 & 7 == 3 else NEEDED
