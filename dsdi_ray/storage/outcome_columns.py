"""Outcomes read a portion at a time, their columns as arrays.

Shapes: R outcomes of a portion, P pairs that they name.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from dsdi_ray.storage.newest_rows import NEVER

_BATCH_ROWS = 131_072
_BATCHES_AHEAD = 4
_ROWS_PER_LOOKUP = 1_000_000  # a lookup begins with hashing the manifest's keys


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


def member_pairs(
    outcomes: pa.Table,
    content: NDArray[np.int64],
    member_ids: pa.Array,
    is_meant: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The (content, member) pairs that the outcomes meant name, and the outcome of each."""
    found = []
    for chunk, start in _chunks(outcomes["member_ids"]):
        member = lookup(pc.list_flatten(chunk), member_ids)
        outcome = start + np.asarray(pc.list_parent_indices(chunk), np.int64)
        is_ours = (member >= 0) & (content[outcome] >= 0) & is_meant[outcome]
        found.append((content[outcome[is_ours]], member[is_ours], outcome[is_ours]))
    if not found:
        return (np.empty(0, np.int64),) * 3
    contents, members, places = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return contents, members, places


def are_of_settings(outcomes: pa.Table, decode_id: str) -> NDArray[np.bool_]:
    """Outcomes under these settings, and of files that no settings could read."""
    is_mine = flags(pc.equal(outcomes["decode_id"], decode_id))
    return is_mine | ~flags(outcomes["content_id"].is_valid())


def lookup(values: pa.ChunkedArray, among: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Place of each value, -1 where it is null or none of them."""
    places = pc.fill_null(pc.index_in(values, value_set=among), -1)
    return np.asarray(places, np.int64)


def flags(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Booleans, False for null."""
    return np.asarray(pc.fill_null(values, False), np.bool_)


def microseconds(times: pa.ChunkedArray) -> NDArray[np.int64]:
    """Time stamps as microseconds; null is before all others."""
    return np.asarray(pc.fill_null(times.cast(pa.int64()), NEVER), np.int64)


def _chunks(column: pa.ChunkedArray) -> Iterator[tuple[pa.Array, int]]:
    start = 0
    for chunk in column.chunks:
        yield chunk, start
        start += len(chunk)
