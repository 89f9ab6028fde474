"""What is kept of a video stream's packets, which are read without decoding them."""

import time
from array import array
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from dsdi_ray.vision.container_log import ContainerLog
from dsdi_ray.vision.failures import short_reason
from dsdi_ray.vision.packet_decoding import SECONDS_BETWEEN_SIGNS
from dsdi_ray.vision.references import ReferenceCode, reference_coder


def _times() -> "array[int]":
    return array("q")


@dataclass
class PacketFacts:
    """Times and kinds of packets: 25 bytes each, so that a file of hours costs some MB.

    Attributes:
        reference_code: Tells a packet's reference code.
        display_times: Of the pictures that have one, in stored order.
        references: Their reference codes.
        decode_times: Of the packets that have one, in stored order.
        positions: Where these lie in the file, in bytes; -1 if that is not known.
        key_times: Display times of key frames, in stored order.
        num_untimed: Packets without a display time.
        num_hidden: Packets that an edit list hides.
        num_leading: Pictures shown before the key frame that they are stored behind.
        latest: Display time and duration of the last picture shown.
        some_duration: A packet's, 0 if none has any.
        error: Why the container could not be read to its end.
        holes: How many pictures with a display time came before each complaint of FFmpeg's reader of
            containers, which passes over what is damaged.
        complaint: The first of them.
    """

    reference_code: Callable[["Packet[VideoStream]"], ReferenceCode]
    display_times: "array[int]" = field(default_factory=_times)
    references: bytearray = field(default_factory=bytearray)
    decode_times: "array[int]" = field(default_factory=_times)
    positions: "array[int]" = field(default_factory=_times)
    key_times: "array[int]" = field(default_factory=_times)
    num_untimed: int = 0
    num_hidden: int = 0
    num_leading: int = 0
    latest: tuple[int, int] | None = None
    some_duration: int = 0
    error: str | None = None
    holes: "array[int]" = field(default_factory=_times)
    complaint: str | None = None

    @property
    def are_timed(self) -> bool:
        """Whether all pictures have display times, and not all the same one."""
        num_times = len(self.display_times)
        is_one_time = num_times > 1 and min(self.display_times) == max(self.display_times)
        return self.num_untimed == 0 and not is_one_time

    def add(self, packet: "Packet[VideoStream]") -> None:
        """Note a packet that holds a picture."""
        if packet.is_discard:
            self.num_hidden += 1
            return
        duration, shown_at = packet.duration or 0, packet.pts
        self.some_duration = duration or self.some_duration
        if packet.dts is not None:
            self.decode_times.append(packet.dts)
            self.positions.append(-1 if packet.pos is None else packet.pos)
        if shown_at is None:
            self.num_untimed += 1
            return
        self.display_times.append(shown_at)
        self.references.append(self.reference_code(packet))
        if packet.is_keyframe:
            self.key_times.append(shown_at)
        elif self.key_times and shown_at < self.key_times[-1]:
            self.num_leading += 1
        if self.latest is None or shown_at >= self.latest[0]:
            self.latest = (shown_at, duration)

    def note_hole(self, complaint: str) -> None:
        """Note that a part of the container was passed over here."""
        self.holes.append(len(self.display_times))
        self.complaint = self.complaint or complaint


def read_packets(
    container: InputContainer,
    stream: VideoStream,
    is_last: Callable[[PacketFacts, "Packet[VideoStream]"], bool] = lambda *_: False,
) -> Generator[None, None, PacketFacts]:
    """Note packets from where the container stands on; yield now and then as a sign of progress.

    Args:
        container: Where to read.
        stream: Whose packets.
        is_last: Whether a packet is the last of interest, asked after it was noted.
    """
    facts, signed_at = PacketFacts(reference_coder(stream)), time.monotonic()
    log = ContainerLog()
    try:
        for packet in container.demux(stream):
            complaint = log.complaint(container)
            if complaint is not None:
                facts.note_hole(complaint)
            if packet.size:
                facts.add(packet)
                if is_last(facts, packet):
                    break
            if time.monotonic() - signed_at > SECONDS_BETWEEN_SIGNS:
                signed_at = time.monotonic()
                yield None
    except (av.FFmpegError, OSError) as error:
        facts.error = short_reason(error)
    return facts
