"""Count the frames of each content in parts of logits, each once, in bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dsdi_ray.storage.outcome_columns import lookup
from dsdi_ray.storage.score_rows import content_keys
from dsdi_ray.storage.store_files import StoreFiles

_ROWS_PER_LOOKUP = 1_000_000
_ROWS_PER_PASS = 100_000_000  # 8 bytes of each are in memory, and are sorted


@dataclass(kw_only=True)
class FrameCounts:
    """Frames of one member under one decode settings.

    Attributes:
        num_frames: Distinct frames of each content, ``[K]``.
        num_duplicate_rows: Rows of frames that another row is of too.
        num_orphan_rows: Rows of contents that nothing claims.
        orphans: Keys of those contents, some twice.
    """

    num_frames: NDArray[np.int64]
    num_duplicate_rows: int = 0
    num_orphan_rows: int = 0
    orphans: list[str] = field(default_factory=list)


def count_frames(
    files: StoreFiles,
    paths: Sequence[str],
    *,
    num_rows: int,
    contents: pa.Array,
    is_claimed: NDArray[np.bool_],
) -> FrameCounts:
    """Count frames; contents are divided among as many passes as memory asks for.

    Args:
        files: Files of the store.
        paths: Parts of one folder of logits.
        num_rows: Their rows in all.
        contents: Keys, see :func:`~dsdi_ray.storage.score_rows.content_keys`, ``[K]``.
        is_claimed: Whether an outcome claims the content, ``[K]``.
    """
    counts = FrameCounts(num_frames=np.zeros(len(contents), np.int64))
    num_passes = -(-num_rows // _ROWS_PER_PASS)
    for number in range(num_passes):
        frames = [np.empty(0, np.int64)]
        for rows in _portions(files, paths):
            content = lookup(content_keys(rows), contents)
            if number == 0:
                is_orphan = ~np.append(is_claimed, False)[content]  # the last: of no outcome
                counts.num_orphan_rows += int(is_orphan.sum())
                orphans = content_keys(rows.filter(pa.array(is_orphan)))
                counts.orphans += pc.unique(orphans).to_pylist()
            is_mine = (content >= 0) & (content % num_passes == number)
            frame = np.asarray(rows["frame_index"], np.int64)
            frames.append(content[is_mine] << 32 | frame[is_mine])
        every = np.concatenate(frames)
        once = np.unique(every)
        counts.num_duplicate_rows += len(every) - len(once)
        counts.num_frames += np.bincount(once >> 32, minlength=len(contents))
    return counts


def _portions(files: StoreFiles, paths: Sequence[str]) -> Iterator[pa.Table]:
    """Keys of the rows of parts, about a million at a time."""
    pending: list[pa.Table] = []
    num_pending = 0
    for path in paths:
        with files.open_part(path) as part:
            pending.append(part.read(columns=["content_id", "span", "frame_index"]))
        num_pending += len(pending[-1])
        if num_pending >= _ROWS_PER_LOOKUP:
            yield pa.concat_tables(pending)
            pending, num_pending = [], 0
    if pending:
        yield pa.concat_tables(pending)
