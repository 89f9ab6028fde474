"""Decodes a video stream packet by packet, and tells what fails or is missing on the way."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

SECONDS_BETWEEN_SIGNS = 1.0
# *Measured*: of recordings put one behind the other, FFmpeg finds the last packet but one torn.
_NUM_AHEAD = 2


class Place(NamedTuple):
    """Where a packet stands; its pictures carry it as ``opaque``.

    Attributes:
        number: Packets with a picture to show before it, since decoding began.
        shown_at: Its display time, in the stream's time base.
    """

    number: int
    shown_at: int | None


class PacketsLostError(Exception):
    """The container says that parts of the stream are missing; decoders need not notice."""


FaultListener = Callable[[BaseException, Place], None]


def decoded_frames(
    container: InputContainer,
    stream: VideoStream,
    on_fault: FaultListener,
    *,
    is_wanted: Callable[["Packet[VideoStream]"], bool] = lambda _: True,
) -> Iterator[VideoFrame | None]:
    """Decode packet by packet from where the container stands; one that fails is passed over.

    Args:
        container: Where to read.
        stream: What to decode.
        on_fault: Told of each packet that fails, and where packets were lost.
        is_wanted: Whether the decoder gets a packet.

    Yields:
        Pictures in display order, and None about once a second as a sign of progress.
    """
    signed_at, place = time.monotonic(), Place(0, None)
    stream.codec_context.copy_opaque = True
    packets = _with_losses(container.demux(stream))
    while True:
        packet, is_lossy = None, False
        try:
            packet, is_lossy = next(packets, (None, False))
        except (av.FFmpegError, OSError) as error:
            on_fault(error, place)
        if packet is not None:
            place = Place(place.number, packet.pts)
            packet.opaque = place
        if is_lossy:
            # It may have begun before the packet that tells of it.
            on_fault(
                PacketsLostError("packets of the stream are missing"), Place(place.number, None)
            )
        try:
            if packet is None or is_wanted(packet):
                yield from stream.decode(packet)  # None: the pictures that the decoder still holds
        except av.EOFError:
            return
        except (av.FFmpegError, ValueError) as error:
            if packet is None or packet.size:
                on_fault(error, place)
        if packet is None:
            return
        if packet.size and not packet.is_discard:
            place = Place(place.number + 1, None)
        if time.monotonic() - signed_at > SECONDS_BETWEEN_SIGNS:
            signed_at = time.monotonic()
            yield None


def _with_losses(
    packets: Iterator["Packet[VideoStream]"],
) -> Iterator[tuple["Packet[VideoStream]", bool]]:
    """Say of each packet whether parts of the stream are missing there.

    Not where the next packet but one is a key frame: there a recording ends and another begins.
    """
    ahead: deque[Packet[VideoStream]] = deque()
    problem: Exception | None = None
    is_over = False
    while True:
        while not is_over and len(ahead) <= _NUM_AHEAD:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                packet, problem = None, error
            if packet is None:
                is_over = True
            else:
                ahead.append(packet)
        if not ahead:
            break
        packet = ahead.popleft()
        is_before_joint = len(ahead) == _NUM_AHEAD and ahead[-1].is_keyframe
        yield packet, packet.is_corrupt and not is_before_joint
    if problem is not None:
        raise problem
