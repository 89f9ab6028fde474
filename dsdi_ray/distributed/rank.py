"""Rank clips from a score store: group the frames by clip, pool, ensemble, sort.

No pixel is touched: pooling, ensembling and ranking are derived from the stored logits.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data.datasource import Partitioning

from dsdi_ray.errors import DataError
from dsdi_ray.method.alignment import align_members
from dsdi_ray.method.fusion import clip_scores
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.outcome_scan import claimed_frames
from dsdi_ray.storage.runs import ranked_run
from dsdi_ray.storage.score_rows import content_keys
from dsdi_ray.storage.score_store import ScoreStore, newest_per_clip
from dsdi_ray.storage.store_files import reading
from dsdi_ray.taxonomy import check_same_taxonomy

_ROWS_PER_PARTITION = 2_000_000
_KEY = ["content_id", "span"]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Clips ranked for every feature.

    Attributes:
        run: One row per (feature, rank); see :mod:`dsdi_ray.storage.runs`.
        num_clips: Clips that were ranked.
        unranked: Clips that were not, by reason.
        seconds: Wall clock.
    """

    run: pa.Table
    num_clips: int
    unranked: Mapping[str, int]
    seconds: float


def rank_archive(
    store_uri: str,
    *,
    ensemble: EnsembleSpec,
    decode_id: str,
    pool: str = "max",
    order: str = "frame_first",
    top: int = 1000,
    min_coverage: float = 0.0,
) -> Ranking:
    """Rank the clips of a store for each feature of its taxonomy (paper section 2.5).

    Args:
        store_uri: Folder or URI of the store.
        ensemble: Members and their weights; clips that lack any of them are left out and counted.
        decode_id: Decode settings under which the clips were scored.
        pool: How frames become a clip, see :mod:`dsdi_ray.method.pooling`.
        order: ``frame_first`` (members are averaged per frame) or ``clip_first``.
        top: Clips kept per feature.
        min_coverage: Clips of which a smaller share of the expected frames decoded are left out,
            0 to 1.

    Raises:
        ValueError: If min_coverage is out of range.
        TaxonomyError: If the store is of another taxonomy than the ensemble.
        DataError: If no clip of the store can be ranked.
    """
    (ranking,) = rank_systems(
        store_uri,
        [ensemble],
        decode_id=decode_id,
        pool=pool,
        order=order,
        top=top,
        min_coverage=min_coverage,
    )
    return ranking


def rank_systems(
    store_uri: str,
    ensembles: Sequence[EnsembleSpec],
    *,
    decode_id: str,
    pool: str = "max",
    order: str = "frame_first",
    top: int = 1000,
    min_coverage: float = 0.0,
) -> list[Ranking]:
    """Rank the clips of a store with each of several ensembles, in one pass over its frames.

    Arguments and errors are those of :func:`rank_archive`.

    Returns:
        A ranking per ensemble, in order; each took all the seconds of the pass.
    """
    if not 0 <= min_coverage <= 1:
        raise ValueError(f"min_coverage must be in [0, 1], got {min_coverage}")
    started = time.monotonic()
    store = ScoreStore.open(store_uri)
    rankable = []
    for ensemble in ensembles:
        check_same_taxonomy(store.taxonomy, ensemble.taxonomy, what="the ensemble")
        member_ids = [m.member_id for m in ensemble.members]
        clips, unranked = _rankable_clips(store, decode_id, member_ids, min_coverage)
        if not len(clips):
            raise DataError(f"score store {store_uri}: no clip to rank: {_reasons(unranked)}")
        rankable.append((clips, unranked))
    contents = pa.concat_tables([clips.select(_KEY) for clips, _ in rankable])
    pool_all = partial(
        pool_clips,
        store,
        contents.group_by(_KEY).aggregate([]),
        decode_id=decode_id,
        weights=[{m.member_id: m.weight for m in e.members} for e in ensembles],
        pool=pool,
        order=order,
    )
    scores = reading(pool_all, what=store_uri)
    return [
        Ranking(
            run=_run_of_clips(clips, scores.filter(pc.field("system") == i), store=store, top=top),
            num_clips=len(clips),
            unranked=unranked,
            seconds=time.monotonic() - started,
        )
        for i, (clips, unranked) in enumerate(rankable)
    ]


def pool_clips(
    store: ScoreStore,
    contents: pa.Table,
    *,
    decode_id: str,
    weights: Sequence[Mapping[str, float]],
    pool: str,
    order: str,
) -> pa.Table:
    """Group the stored frames by clip and pool them with each of several ensembles.

    Args:
        store: The store.
        contents: The (content_id, span) to pool.
        decode_id: Decode settings.
        weights: Weight per member_id of each ensemble.
        pool: As in :func:`rank_archive`.
        order: As in :func:`rank_archive`.

    Returns:
        Columns system (place in ``weights``), content_id, span, scores (list, ``[C]``),
        peak_seconds (list, ``[C]``); no row where there is no frame that every member of the system has scored.
    """
    member_ids = sorted({member_id for system in weights for member_id in system})
    outcomes = store.outcomes([*_KEY, "decode_id", "status", "frames_scored"])
    is_stored = (pc.field("decode_id") == decode_id) & (pc.field("status") != "failed")
    stored = outcomes.filter(is_stored).group_by(_KEY).aggregate([("frames_scored", "max")])
    rows = ray.data.read_parquet(
        store.logits_files(decode_id, member_ids),
        filesystem=store.filesystem,
        columns=[*_KEY, "frame_index", "time_seconds", "logits", "member_id"],
        partitioning=Partitioning("hive"),
    )
    if len(contents) < len(stored):
        rows = rows.map_batches(
            _keep_wanted,
            fn_kwargs={"wanted": ray.put(contents)},
            batch_format="pyarrow",
            batch_size=None,
        )
    num_rows = (pc.sum(stored["frames_scored_max"]).as_py() or 0) * len(member_ids)
    num_partitions = max(1, -(-num_rows // _ROWS_PER_PARTITION))
    pooled = rows.groupby(_KEY, num_partitions=num_partitions).map_groups(
        _pool_clip,
        fn_kwargs={"weights": [dict(system) for system in weights], "pool": pool, "order": order},
        batch_format="pyarrow",
    )
    return pa.concat_tables(pooled.iter_batches(batch_size=None, batch_format="pyarrow"))


def _keep_wanted(rows: pa.Table, wanted: Any) -> pa.Table:
    # Arrow joins no lists, so the join is of keys and row numbers.
    keys = rows.select(_KEY).append_column("row", pa.array(range(len(rows)), pa.int64()))
    kept = keys.join(ray.get(wanted), _KEY, join_type="left semi")["row"]
    return rows.take(kept)


def _pool_clip(
    rows: pa.Table, *, weights: Sequence[Mapping[str, float]], pool: str, order: str
) -> pa.Table:
    member_ids = pc.unique(rows["member_id"].cast(pa.string())).to_pylist()
    member_index = pc.index_in(rows["member_id"], pa.array(member_ids, pa.string())).to_numpy()
    frame_index = rows["frame_index"].to_numpy()
    logits = pc.list_flatten(rows["logits"].combine_chunks()).to_numpy().reshape(len(rows), -1)
    times = dict(zip(frame_index.tolist(), rows["time_seconds"].to_pylist(), strict=True))
    pooled = []
    for system, weight_of in enumerate(weights):
        if not weight_of.keys() <= set(member_ids):
            continue
        place = {member_ids.index(member_id): i for i, member_id in enumerate(weight_of)}
        member_of_system = np.array([place.get(i, -1) for i in range(len(member_ids))])
        frames, aligned = align_members(
            member_of_system[member_index], frame_index, logits, num_members=len(weight_of)
        )
        if not len(frames):
            continue
        scored = clip_scores(aligned, np.array(list(weight_of.values())), order=order, pool=pool)
        peaks = [times[frames[t]] for t in scored.peak_frame]
        pooled.append({"system": system, "scores": scored.scores.tolist(), "peak_seconds": peaks})
    schema = pa.schema(
        [
            ("system", pa.int32()),
            ("scores", pa.list_(pa.float64())),
            ("peak_seconds", pa.list_(pa.float64())),
        ]
    )
    table = pa.Table.from_pylist(pooled, schema=schema)
    for name in _KEY:
        key = pa.repeat(pa.scalar(rows[name][0].as_py(), pa.string()), len(pooled))
        table = table.append_column(name, key)
    return table


def _rankable_clips(
    store: ScoreStore, decode_id: str, member_ids: Sequence[str], min_coverage: float
) -> tuple[pa.Table, Mapping[str, int]]:
    """The clips (clip_id, content_id, span) that every member has scored, and why others are not."""
    outcomes = store.outcomes(
        ["clip_id", *_KEY, "decode_id", "status", "frames_expected", "frames_scored", "finished_at"]
    )
    newest = newest_per_clip(outcomes.filter(pc.field("decode_id") == decode_id))
    unranked: Counter[str] = Counter()
    other = newest_per_clip(outcomes).filter(~_is_clip_of(newest))
    unranked["scored under other settings (see --fps)"] = len(other)
    contents = pc.unique(content_keys(newest)).drop_null()
    frames = store.read_outcomes(
        partial(claimed_frames, contents=contents, member_ids=member_ids, decode_id=decode_id)
    )
    complete = contents.filter(pa.array((frames >= 0).all(axis=1)))
    is_complete = pc.is_in(content_keys(newest), value_set=complete)
    clips, rest = newest.filter(is_complete), newest.filter(pc.invert(is_complete))
    num_failed = rest.filter(pc.field("status") == "failed").num_rows
    unranked["no frame decodes (see `dsdi outcomes`)"] = num_failed
    unranked["not scored by every member (run `dsdi score`)"] = len(rest) - num_failed
    least_scored = pc.multiply(clips["frames_expected"].cast(pa.float64()), min_coverage)
    is_covered = pc.greater_equal(clips["frames_scored"], least_scored)
    covered = clips.filter(is_covered).select(["clip_id", *_KEY])
    unranked["too few of its frames decode (see --min-coverage)"] = len(clips) - len(covered)
    return covered, {reason: n for reason, n in unranked.items() if n}


def _is_clip_of(table: pa.Table) -> pc.Expression:
    return pc.field("clip_id").isin(table["clip_id"].combine_chunks())


def _run_of_clips(clips: pa.Table, pooled: pa.Table, *, store: ScoreStore, top: int) -> pa.Table:
    """Give every clip its content's scores and rank the clips of each feature."""
    rows = pc.index_in(content_keys(clips), value_set=content_keys(pooled)).to_numpy()
    scores, peaks = (
        pc.list_flatten(pooled[name]).to_numpy().reshape(len(pooled), -1)[rows]
        for name in ("scores", "peak_seconds")
    )
    return ranked_run(clips["clip_id"].to_pylist(), scores, peaks, features=store.taxonomy, top=top)


def _reasons(unranked: Mapping[str, int]) -> str:
    listed = "; ".join(f"{n} {reason}" for reason, n in unranked.items())
    return listed or "it has no outcomes; run `dsdi score` first"
