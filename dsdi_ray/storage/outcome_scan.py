"""What a store's outcomes say of the clips of a manifest, found in one pass of bounded memory.

Clips and contents are numbered by the manifest, so that a scan is a lookup per outcome and what it
leaves behind is a few arrays; its memory grows with the manifest, not with the attempts on record.

Shapes: N clips, K contents, M members.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from dsdi_ray.storage.score_rows import content_keys

_BATCH_ROWS = 131_072
_BATCHES_AHEAD = 4
_ROWS_PER_LOOKUP = 1_000_000  # a lookup begins with hashing the manifest's keys
_NEVER = np.iinfo(np.int64).min


class NewestRows:
    """The newest row of each of K keys, of rows that come in any order and in portions.

    Attributes:
        rows: Number of the newest row of each key, -1 where there is none, ``[K]``.
    """

    def __init__(self, num_keys: int) -> None:
        self.rows = np.full(num_keys, -1, np.int64)
        self._times = np.full(num_keys, _NEVER, np.int64)

    def add(
        self, keys: NDArray[np.int64], times: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Take a portion, ``[R]`` each; a key of -1 is none of ours.

        Returns:
            Places in the portion of the rows that are the newest of their keys so far.
        """
        order = np.lexsort((times, keys))
        is_last = np.append(np.diff(keys[order]) != 0, True) if len(keys) else np.empty(0, bool)
        picked = order[is_last & (keys[order] >= 0)]
        picked = picked[times[picked] >= self._times[keys[picked]]]
        self._times[keys[picked]] = times[picked]
        self.rows[keys[picked]] = rows[picked]
        return picked


class OutcomeScan:
    """What the outcomes say of contents: which members scored them, which of them failed.

    Attributes:
        is_present: Whether a member's logits of a content are complete, ``[K, M]``.
        has_failed: Whether the newest attempt on a content gave no frame, for a reason that lasts,
            ``[K]``.
        row_of_content: The newest outcome of each content, transient failures aside, or -1, ``[K]``.
        is_recorded: Whether the newest outcome of a clip speaks of its file as it is now, ``[N]``.
    """

    COLUMNS = (
        "clip_id", "uri", "content_id", "span", "decode_id", "member_ids", "status", "error",
        "finished_at", "is_transient",
    )  # fmt: skip

    def __init__(
        self,
        *,
        clips: pa.Table,
        content_of_clip: NDArray[np.int64],
        contents: pa.Array,
        member_ids: Sequence[str],
        decode_id: str,
    ) -> None:
        """Begin a scan.

        Args:
            clips: clip_id, uri, probe_error; ``[N]``.
            content_of_clip: Number of each clip's content, -1 if it cannot be read, ``[N]``.
            contents: Their keys, see :func:`~dsdi_ray.storage.score_rows.content_keys`, ``[K]``.
            member_ids: Members, ``[M]``.
            decode_id: Decode settings.
        """
        self._clips = clips
        self._content_of_clip = content_of_clip
        self._contents = contents
        self._member_ids = pa.array(member_ids, pa.string())
        self._decode_id = decode_id
        self._newest_of_clip = NewestRows(len(clips))
        self._newest_of_content = NewestRows(len(contents))
        self.is_present = np.zeros((len(contents), len(member_ids)), bool)
        self.has_failed = np.zeros(len(contents), bool)
        self.is_recorded = np.zeros(len(clips), bool)

    @property
    def row_of_content(self) -> NDArray[np.int64]:
        return self._newest_of_content.rows

    def add(self, outcomes: pa.Table, first_row: int) -> None:
        """Take a portion of the outcomes, whose first is row ``first_row`` of them all."""
        mine = _places(_is_of_settings(outcomes, self._decode_id))
        outcomes = outcomes.take(mine)
        times = _integers(outcomes["finished_at"])
        rows = first_row + mine
        content = _lookup(content_keys(outcomes), self._contents)
        clip = _lookup(outcomes["clip_id"], self._clips["clip_id"])
        newest = self._newest_of_clip.add(clip, times, rows)
        self.is_recorded[clip[newest]] = self._speaks_of_same_file(
            outcomes.take(newest), content[newest], clip[newest]
        )
        has_failed = _flags(pc.equal(outcomes["status"], "failed"))
        is_lasting = ~_flags(outcomes["is_transient"]) | ~has_failed
        newest = self._newest_of_content.add(np.where(is_lasting, content, -1), times, rows)
        self.has_failed[content[newest]] = has_failed[newest]
        self._mark_present(outcomes, np.where(has_failed, -1, content))

    def _speaks_of_same_file(
        self, outcomes: pa.Table, content: NDArray[np.int64], clip: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether each outcome is of its clip's content, or says the same of an unreadable file."""
        clips = self._clips.take(clip)
        is_same_uri = _flags(pc.equal(outcomes["uri"], clips["uri"]))
        is_same_error = _flags(pc.equal(outcomes["error"], clips["probe_error"]))
        expected = self._content_of_clip[clip]
        is_unreadable = ~_flags(outcomes["content_id"].is_valid())
        return is_same_uri & np.where(
            expected >= 0, content == expected, is_unreadable & is_same_error
        )

    def _mark_present(self, outcomes: pa.Table, content: NDArray[np.int64]) -> None:
        for chunk, start in _chunks(outcomes["member_ids"]):
            member = _lookup(pc.list_flatten(chunk), self._member_ids)
            scored = content[start + pc.list_parent_indices(chunk).to_numpy()]
            is_ours = (member >= 0) & (scored >= 0)
            self.is_present[scored[is_ours], member[is_ours]] = True


def portions(dataset: pads.Dataset, columns: Sequence[str]) -> Iterator[tuple[pa.Table, int]]:
    """Rows of a dataset a million at a time, each portion with the number of its first row."""
    batches: list[pa.RecordBatch] = []
    num_pending = num_given = 0
    for batch in dataset.to_batches(
        columns=list(columns),
        batch_size=_BATCH_ROWS,
        batch_readahead=_BATCHES_AHEAD,
        fragment_readahead=_BATCHES_AHEAD,
    ):
        batches.append(batch)
        num_pending += len(batch)
        if num_pending >= _ROWS_PER_LOOKUP:
            yield pa.Table.from_batches(batches), num_given
            num_given += num_pending
            batches, num_pending = [], 0
    if batches:
        yield pa.Table.from_batches(batches), num_given


def count_outcomes(
    dataset: pads.Dataset, clip_ids: pa.ChunkedArray, decode_id: str
) -> Mapping[tuple[str, str], int]:
    """Count clips by the (status, error) of their newest outcome under these settings.

    No error counts as an empty one.
    """
    newest = NewestRows(len(clip_ids))
    labels: dict[str, int] = {}
    label_of_clip = np.full(len(clip_ids), -1, np.int64)
    columns = ["clip_id", "content_id", "decode_id", "status", "error", "finished_at"]
    for table, first_row in portions(dataset, columns):
        mine = _places(_is_of_settings(table, decode_id))
        outcomes = table.take(mine)
        clip = _lookup(outcomes["clip_id"], clip_ids)
        picked = newest.add(clip, _integers(outcomes["finished_at"]), first_row + mine)
        said = outcomes.select(["status", "error"]).take(picked)
        texts = pc.binary_join_element_wise(said["status"], pc.fill_null(said["error"], ""), "\n")
        encoded = texts.combine_chunks().dictionary_encode()
        numbers = [labels.setdefault(t, len(labels)) for t in encoded.dictionary.to_pylist()]
        label_of_clip[clip[picked]] = np.array(numbers, np.int64)[encoded.indices.to_numpy()]
    counts = np.bincount(label_of_clip[label_of_clip >= 0], minlength=len(labels)).tolist()
    named = zip((tuple(label.split("\n", 1)) for label in labels), counts, strict=True)
    return {(status, error): count for (status, error), count in named if count}


def _is_of_settings(outcomes: pa.Table, decode_id: str) -> NDArray[np.bool_]:
    """Outcomes under these settings, and of files that no settings could read."""
    is_mine = _flags(pc.equal(outcomes["decode_id"], decode_id))
    return is_mine | ~_flags(outcomes["content_id"].is_valid())


def _lookup(values: pa.ChunkedArray, among: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Place of each value, -1 where it is null or none of them."""
    places = pc.fill_null(pc.index_in(values, value_set=among), -1)
    return np.asarray(places, np.int64)


def _places(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.flatnonzero(mask).astype(np.int64)


def _flags(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Booleans, False for null."""
    return np.asarray(pc.fill_null(values, False), np.bool_)


def _integers(times: pa.ChunkedArray) -> NDArray[np.int64]:
    """Time stamps as microseconds; null is before all others."""
    return np.asarray(pc.fill_null(times.cast(pa.int64()), _NEVER), np.int64)


def _chunks(column: pa.ChunkedArray) -> Iterator[tuple[pa.Array, int]]:
    start = 0
    for chunk in column.chunks:
        yield chunk, start
        start += len(chunk)
