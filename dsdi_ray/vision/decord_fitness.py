"""Which files decord is not asked to read, told from their packets."""

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dsdi_ray.vision.packet_facts import PacketFacts
from dsdi_ray.vision.video_stream import INDEXED

# decord seeks at every group of pictures. *Measured*: in these containers it lands on the right
# picture, in others (MPEG-TS) it returned pictures seconds away without an error.
_SEEKABLE_BY_DECORD = INDEXED | {"avi", "flv"}
_MAX_REORDERED = 16  # pictures that H.264 (A.3.1) and HEVC (A.4.2) let a decoder hold


def unfit_for_decord(
    container: InputContainer, stream: VideoStream, facts: PacketFacts
) -> str | None:
    """Why decord would return other pictures than those asked for, None if nothing is known."""
    if container.format.name not in _SEEKABLE_BY_DECORD:
        return f"decord seeks inexactly in {container.format.long_name}"
    best = container.streams.best("video")
    if best is None or best.index != stream.index:
        return "decord reads another of the file's video streams"
    if facts.num_hidden:
        return "decord ignores the file's edit list"
    if facts.num_leading:
        return "decord miscounts pictures stored behind the key frame that they precede"
    if _has_outliers(stream, np.array(facts.display_times, dtype=np.int64)):
        return "decord miscounts pictures whose display times are out of order"
    return None


def _has_outliers(stream: VideoStream, stored: NDArray[np.int64]) -> bool:
    """Whether pictures are stored further from where they are shown than decoders reorder them."""
    places = np.argsort(np.argsort(stored, kind="stable"))
    furthest = int(np.abs(places - np.arange(len(stored))).max(initial=0))
    return furthest > (_MAX_REORDERED if stream.codec_context.has_b_frames else 0)
