"""When the pictures of an AVI file are shown: the container stores no display times.

Its chunks lie in slots of equal length, in the order of decoding. A slot without a chunk is a picture
that was dropped: the one before stays on screen.
"""

from collections.abc import Sequence

import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

_CHUNK_HEAD = 8  # bytes; FFmpeg's index leads to it, a packet's position behind it


def avi_times(
    stream: VideoStream, decoded_at: Sequence[int], positions: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Display times, in the stream's time base and in order.

    Where a part of the file is damaged its chunks are passed over, and FFmpeg counts on as if they
    had not been there: the index says in which slots the others lie.

    Args:
        stream: Of an AVI file that was read to its end.
        decoded_at: Decoding times of the packets read, in stored order.
        positions: Where these lie in the file.

    Returns:
        Times of the pictures that the index lists, and of those that the file holds.
    """
    read = np.array(decoded_at, dtype=np.int64)
    listed, entries = read, stream.index_entries
    if len(entries) > len(read):
        chunks = np.array([(e.pos + _CHUNK_HEAD, e.timestamp) for e in entries], dtype=np.int64)
        chunks = chunks[np.argsort(chunks[:, 0], kind="stable")]
        places = np.searchsorted(chunks[:, 0], positions).clip(max=len(chunks) - 1)
        if (chunks[places, 0] == np.array(positions)).all():
            listed, read = chunks[:, 1], chunks[places, 1]
    delay = stream.codec_context.reorder_depth
    return _shown_at(listed, delay), _shown_at(read, delay)


def _shown_at(decoded_at: NDArray[np.int64], delay: int) -> NDArray[np.int64]:
    """The n-th picture leaves the decoder ``delay`` packets after the n-th went in."""
    if not 0 < delay < len(decoded_at):
        return decoded_at
    slots = int(np.median(np.diff(decoded_at))) * np.arange(1, delay + 1)
    return np.append(decoded_at[delay:], decoded_at[-1] + slots)
