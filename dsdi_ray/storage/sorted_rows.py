"""Sort rows that need not fit into memory, each row once."""

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dsdi_ray.storage.score_rows import OUTCOME_SCHEMA

KeysOf = Callable[[pa.Table], pa.Table]
"""Gives the columns that order rows and tell them apart; they hold no nulls."""


def logits_keys(rows: pa.Table) -> pa.Table:
    """Logits of a folder are ordered by clip, then frame."""
    return rows.select(["content_id", "span", "frame_index"])


def outcome_keys(rows: pa.Table) -> pa.Table:
    """Outcomes are the same if they say the same of the same clip at the same time."""
    names = ["content_id", "span", "clip_id", "finished_at", "decode_id", "uri", "status"]
    empty = {"finished_at": pa.scalar(0, OUTCOME_SCHEMA.field("finished_at").type)}
    keys = {name: pc.fill_null(rows[name], empty.get(name, "")) for name in names}
    return pa.table({**keys, "member_ids": pc.binary_join(rows["member_ids"], "\n")})


def sorted_once(rows: pa.Table, keys_of: KeysOf) -> pa.Table:
    """The rows in order, without those whose keys another row has too."""
    if len(rows) < 2:
        return rows
    keys = keys_of(rows)
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    keys = keys.take(order)
    is_same = reduce(pc.and_, (pc.equal(column[1:], column[:-1]) for column in keys.columns))
    is_kept = pa.concat_arrays([pa.array([True]), pc.invert(is_same).combine_chunks()])
    return rows.take(order.filter(is_kept))


def merge_sorted(runs: Sequence[Iterable[pa.Table]], keys_of: KeysOf) -> Iterator[pa.Table]:
    """Merge runs of rows, each sorted and in portions of which one per run is held in memory."""
    cursors = [_Cursor(iter(run), keys_of) for run in runs]
    while cursors := [cursor for cursor in cursors if len(cursor.rows)]:
        # No run has anything before the smallest of their last keys that is not in memory.
        bound = min(cursor.key(len(cursor.rows) - 1) for cursor in cursors)
        yield sorted_once(pa.concat_tables([c.take_up_to(bound) for c in cursors]), keys_of)


class _Cursor:
    """A sorted run that is read portion by portion."""

    def __init__(self, portions: Iterator[pa.Table], keys_of: KeysOf) -> None:
        self._portions = portions
        self._keys_of = keys_of
        self.rows: pa.Table = pa.table({})
        self._keys: pa.Table = self.rows
        self._refill()

    def key(self, row: int) -> tuple[Any, ...]:
        return tuple(column[row].as_py() for column in self._keys.columns)

    def take_up_to(self, bound: tuple[Any, ...]) -> pa.Table:
        """Remove and return the rows in memory whose keys are not above the bound."""
        num_taken = bisect.bisect_right(range(len(self.rows)), bound, key=self.key)
        taken = self.rows.slice(0, num_taken)
        self.rows, self._keys = self.rows.slice(num_taken), self._keys.slice(num_taken)
        if not len(self.rows):
            self._refill()
        return taken

    def _refill(self) -> None:
        for rows in self._portions:
            if len(rows):
                self.rows, self._keys = rows, self._keys_of(rows)
                return
