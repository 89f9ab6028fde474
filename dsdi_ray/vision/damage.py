"""What fails in a stream, and which pictures that reaches.

A decoder conceals what it lacks, and predicts the following pictures from what it made up. So damage
lasts from where it befell the stream to the next key frame, unless nothing needs the picture hit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from av.video.frame import VideoFrame

from dsdi_ray.vision.failures import is_io_error, short_reason
from dsdi_ray.vision.packet_decoding import PacketsLostError, Place
from dsdi_ray.vision.timeline import Timeline


@dataclass
class Faults:
    """What went wrong in a stream without ending it.

    Attributes:
        num_errors: Packets that did not decode.
        num_losses: Places where packets are missing.
        places: Where both were, since decoding began.
        damaged: Positions in the plan of samples that damage may have reached.
        first_error: What went wrong first.
        has_io_error: Whether reading failed.
    """

    num_errors: int = 0
    num_losses: int = 0
    places: list[Place] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    first_error: str | None = None
    has_io_error: bool = False

    def add(self, error: BaseException, place: Place | None = None) -> None:
        """Count an error, keep the first, and its place unless the stream is whole."""
        if isinstance(error, PacketsLostError):
            self.num_losses += 1
        else:
            self.num_errors += 1
        if place is not None:
            self.places.append(place)
        self.first_error = self.first_error or short_reason(error)
        self.has_io_error |= is_io_error(error)

    def take(self, others: "Faults") -> None:
        """Move what others counted here."""
        self.num_errors += others.num_errors
        self.num_losses += others.num_losses
        self.places += others.places
        self.first_error = self.first_error or others.first_error
        self.has_io_error |= others.has_io_error
        others.num_errors = others.num_losses = 0
        others.places = []


class Damage:
    """Tells of picture after picture, in display order, whether damage may have reached it.

    Args:
        places: Where packets failed or are missing; more are added while pictures come.
        timeline: Says which pictures no other needs.
    """

    def __init__(self, places: Sequence[Place], timeline: Timeline) -> None:
        self._places = places
        self._num_read = 0
        self._unneeded: frozenset[int] = frozenset()
        if timeline.is_unneeded is not None:
            self._unneeded = frozenset(timeline.display_times[timeline.is_unneeded].tolist())
        self._open: list[int] = []  # numbers of packets whose damage lasts

    def reaches(self, frame: VideoFrame) -> bool:
        """Whether damage may be seen in a picture."""
        for place in self._places[self._num_read :]:
            self._note(place)
        self._num_read = len(self._places)
        if not isinstance(frame.opaque, Place):  # a decoder that does not say
            return bool(frame.is_corrupt or self._open)
        own: Place = frame.opaque
        if frame.is_corrupt:
            self._note(own)
            return True
        if frame.key_frame and own.number not in self._open:
            self._open = [number for number in self._open if number > own.number]
        return any(number <= own.number for number in self._open)

    def _note(self, place: Place) -> None:
        if place.shown_at is None or place.shown_at not in self._unneeded:
            self._open.append(place.number)
