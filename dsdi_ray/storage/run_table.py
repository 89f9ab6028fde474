"""A run in memory: one row per (feature, rank), and the same as one list per feature."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.taxonomy import Taxonomy

RUN_SCHEMA = pa.schema(
    [
        ("feature_id", pa.int32()),
        ("feature", pa.string()),  # null: the file that was read names features by number alone
        ("rank", pa.int32()),  # from 1
        ("clip_id", pa.string()),
        ("score", pa.float64()),
        ("peak_seconds", pa.float64()),  # null: unknown
    ]
)


@dataclass(frozen=True, kw_only=True)
class RankedList:
    """The clips of one feature, best first; K of them.

    Attributes:
        feature_id: The feature's number.
        feature: Its name, None where unknown.
        clip_ids: K names.
        scores: Never increasing, ``[K]``, float64.
        peak_seconds: Where each clip's score peaked, ``[K]``, NaN where unknown.
    """

    feature_id: int
    feature: str | None
    clip_ids: Sequence[str]
    scores: NDArray[np.float64]
    peak_seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.clip_ids)


def table_of_lists(lists: Sequence[RankedList]) -> pa.Table:
    """Join lists into a run table of :data:`RUN_SCHEMA`, features ascending."""
    tables = [_table_of_list(one) for one in sorted(lists, key=lambda one: one.feature_id)]
    return pa.concat_tables(tables) if tables else RUN_SCHEMA.empty_table()


def lists_of_table(run: pa.Table) -> list[RankedList]:
    """Split a run table into its lists; the inverse of :func:`table_of_lists`."""
    feature_ids = run["feature_id"].to_numpy()
    starts = np.flatnonzero(np.diff(feature_ids, prepend=feature_ids[:1] - 1)).tolist()
    return [
        _list_of_table(run.slice(start, end - start))
        for start, end in pairwise([*starts, len(run)])
    ]


def unscored_list(feature_id: int, feature: str | None, clip_ids: Sequence[str]) -> RankedList:
    """A list of a format that has ranks alone: the score of rank k is 1 / k."""
    return RankedList(
        feature_id=feature_id,
        feature=feature,
        clip_ids=clip_ids,
        scores=1.0 / np.arange(1, len(clip_ids) + 1, dtype=np.float64),
        peak_seconds=np.full(len(clip_ids), np.nan),
    )


def feature_names(taxonomy: Taxonomy | None) -> dict[int, str]:
    """Names of the features by number; empty without a taxonomy."""
    if taxonomy is None:
        return {}
    return {c.feature_id: c.name for c in taxonomy.features if c.feature_id is not None}


def check_run_table(run: pa.Table, *, source: str) -> None:
    """Check a run's rules: columns, order, ranks from 1 without gaps, scores, distinct clips.

    Raises:
        DataError: Naming ``source``, the feature and the rule.
    """
    for field in RUN_SCHEMA:
        if field.name not in run.column_names:
            raise DataError(
                f"{source}: no column `{field.name}`, has {', '.join(run.column_names)}"
            )
        if run.schema.field(field.name).type != field.type:
            got = run.schema.field(field.name).type
            raise DataError(f"{source}: column `{field.name}` must be {field.type}, got {got}")
    for name in ("feature_id", "rank", "clip_id", "score"):
        if run[name].null_count:
            raise DataError(f"{source}: column `{name}` has {run[name].null_count} nulls")
    if (np.diff(run["feature_id"].to_numpy()) < 0).any():
        raise DataError(f"{source}: rows must be in ascending order of feature_id")
    for rows, one in zip(_rows_of_lists(run), lists_of_table(run), strict=True):
        problem = _problem_of_list(rows["rank"].to_numpy(), one)
        if problem:
            raise DataError(f"{source}: feature {one.feature_id}: {problem}")


def _rows_of_lists(run: pa.Table) -> Iterator[pa.Table]:
    start = 0
    for one in lists_of_table(run):
        yield run.slice(start, len(one))
        start += len(one)


def _problem_of_list(ranks: NDArray[np.int32], one: RankedList) -> str | None:
    if (ranks != np.arange(1, len(one) + 1)).any():
        return f"ranks must go from 1 without gaps, got {ranks[:5].tolist()}..."
    if not np.isfinite(one.scores).all():
        return "scores must be finite"
    if (np.diff(one.scores) > 0).any():
        return "scores must never increase with the rank"
    if len(set(one.clip_ids)) != len(one):
        return "a clip_id appears more than once"
    return None


def _table_of_list(one: RankedList) -> pa.Table:
    columns = [
        np.full(len(one), one.feature_id, np.int32),
        pa.array([one.feature] * len(one), pa.string()),
        np.arange(1, len(one) + 1, dtype=np.int32),
        pa.array(one.clip_ids, pa.string()),
        one.scores,
        pa.array(one.peak_seconds, pa.float64(), from_pandas=True),
    ]
    return pa.table(columns, schema=RUN_SCHEMA)


def _list_of_table(rows: pa.Table) -> RankedList:
    return RankedList(
        feature_id=rows["feature_id"][0].as_py(),
        feature=rows["feature"][0].as_py(),
        clip_ids=rows["clip_id"].to_pylist(),
        scores=rows["score"].to_numpy(),
        peak_seconds=rows["peak_seconds"].cast(pa.float64()).to_numpy().astype(np.float64),
    )
