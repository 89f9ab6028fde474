"""How many clips of a manifest came out how, counted in one pass of bounded memory.

Shapes: N clips, K contents, M members, R outcomes of a portion.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from dsdi_ray.storage.newest_rows import NewestRows
from dsdi_ray.storage.outcome_columns import (
    are_of_settings,
    flags,
    lookup,
    member_pairs,
    microseconds,
    portions,
)
from dsdi_ray.storage.score_rows import content_keys

_COLUMNS = (
    "clip_id", "content_id", "span", "decode_id", "member_ids", "status", "error", "finished_at",
    "is_transient",
)  # fmt: skip


def count_outcomes(
    dataset: pads.Dataset, *, clips: pa.Table, member_ids: Sequence[str], decode_id: str
) -> Mapping[tuple[str, str], int]:
    """Count clips by the (status, error) of what an ensemble has of them.

    Where every member has scored a clip's content that is the newest outcome with a frame, whatever
    failed for other members since. Otherwise it is the newest lasting failure; where there is none,
    the clip's newest outcome. No error counts as an empty one.

    Args:
        dataset: The outcomes.
        clips: clip_id, content_id, span; ``[N]``.
        member_ids: Members, ``[M]``.
        decode_id: Decode settings.
    """
    encoded = content_keys(clips).combine_chunks().dictionary_encode()
    contents = encoded.dictionary
    content_of_clip = np.asarray(pc.fill_null(encoded.indices, -1), np.int64)
    members = pa.array(member_ids, pa.string())
    labels: dict[str, int] = {}
    of_clip, scored, failed = (_NewestLabels(n) for n in (len(clips), *(len(contents),) * 2))
    is_claimed = np.zeros((len(contents), len(member_ids)), bool)
    for table, first_row in portions(dataset, _COLUMNS):
        mine = np.flatnonzero(are_of_settings(table, decode_id))
        outcomes = table.take(mine)
        told = (_labels(outcomes, labels), microseconds(outcomes["finished_at"]), first_row + mine)
        has_failed = flags(pc.equal(outcomes["status"], "failed"))
        is_lasting = ~flags(outcomes["is_transient"])
        content = lookup(content_keys(outcomes), contents)
        of_clip.add(lookup(outcomes["clip_id"], clips["clip_id"]), *told)
        scored.add(np.where(has_failed, -1, content), *told)
        failed.add(np.where(has_failed & is_lasting, content, -1), *told)
        number, member, _ = member_pairs(outcomes, content, members, ~has_failed)
        is_claimed[number, member] = True
    of_content = np.where(is_claimed.all(axis=1), scored.labels, failed.labels)
    label = np.append(of_content, -1)[content_of_clip]  # the last: of no content
    label = np.where(label < 0, of_clip.labels, label)
    counts = np.bincount(label[label >= 0], minlength=len(labels)).tolist()
    named = zip((tuple(text.split("\n", 1)) for text in labels), counts, strict=True)
    return {(status, error): count for (status, error), count in named if count}


class _NewestLabels:
    """The label of the newest row of each key, -1 where there is none."""

    def __init__(self, num_keys: int) -> None:
        self._newest = NewestRows(num_keys)
        self.labels = np.full(num_keys, -1, np.int64)

    def add(
        self,
        keys: NDArray[np.int64],
        labels: NDArray[np.int64],
        times: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        """Take a portion, ``[R]`` each; a key of -1 is none of ours."""
        picked = self._newest.add(keys, times, rows)
        self.labels[keys[picked]] = labels[picked]


def _labels(outcomes: pa.Table, numbers: dict[str, int]) -> NDArray[np.int64]:
    """Number of each outcome's status and error, ``[R]``; new ones are added to the numbers."""
    error = pc.fill_null(outcomes["error"], "")
    texts = pc.binary_join_element_wise(outcomes["status"], error, "\n")
    encoded = texts.combine_chunks().dictionary_encode()
    known = [numbers.setdefault(t, len(numbers)) for t in encoded.dictionary.to_pylist()]
    return np.array(known, np.int64)[np.asarray(encoded.indices, np.int64)]
