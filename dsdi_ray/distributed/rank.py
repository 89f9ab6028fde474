"""Rank clips from a score store: group the frames by clip, pool, ensemble, sort.

No pixel is touched: pooling, ensembling and ranking are derived from the stored logits.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from dsdi_ray.distributed.clip_pooling import KEY, LOGITS_LOST, pool_clips
from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.fusion import check_pooling
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.outcome_columns import lookup
from dsdi_ray.storage.outcome_scan import claimed_frames, newest_scored
from dsdi_ray.storage.runs import ranked_run
from dsdi_ray.storage.score_rows import content_keys
from dsdi_ray.storage.score_store import ScoreStore, newest_per_clip
from dsdi_ray.storage.store_files import reading
from dsdi_ray.taxonomy import check_same_taxonomy

_COLUMNS = {
    **{name: pc.field(name) for name in ("clip_id", *KEY, "decode_id", "status", "finished_at")},
    **{name: pc.field(name) for name in ("frames_expected", "frames_scored")},
    "num_members": pc.list_value_length(pc.field("member_ids")),  # the lists would fill the memory
}


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Clips ranked for every feature.

    Attributes:
        run: One row per (feature, rank); see :mod:`dsdi_ray.storage.runs`.
        num_clips: Clips that were ranked.
        unranked: Clips that were not, by reason.
        seconds: Wall clock.
        made_of: What the run was made of, for its file.
    """

    run: pa.Table
    num_clips: int
    unranked: Mapping[str, int]
    seconds: float
    made_of: Mapping[str, str]


def rank_archive(
    store_uri: str,
    *,
    ensemble: EnsembleSpec,
    decode_id: str,
    pool: str = "max",
    order: str = "frame_first",
    top: int | None = 1000,
    min_coverage: float = 0.0,
    clip_ids: pa.ChunkedArray | None = None,
) -> Ranking:
    """Rank the clips of a store for each feature of its taxonomy (paper section 2.5).

    Args:
        store_uri: Folder or URI of the store.
        ensemble: Members and their weights; clips that lack any of them are left out and counted.
        decode_id: Decode settings under which the clips were scored.
        pool: How frames become a clip, see :mod:`dsdi_ray.method.pooling`.
        order: ``frame_first`` (members are averaged per frame) or ``clip_first``.
        top: Clips kept per feature, all where None.
        min_coverage: Clips of which a smaller share of the expected frames decoded are left out,
            0 to 1.
        clip_ids: Clips to rank; those that the store lacks are counted. All that it has where None.

    Raises:
        ConfigError: If there is no such pool or order, or min_coverage is out of range.
        TaxonomyError: If the store is of another taxonomy than the ensemble.
        DataError: If no clip of the store can be ranked.
        StoreError: If the store is damaged or cannot be read.
    """
    (ranking,) = rank_systems(
        store_uri,
        [ensemble],
        decode_id=decode_id,
        pool=pool,
        order=order,
        top=top,
        min_coverage=min_coverage,
        clip_ids=clip_ids,
    )
    return ranking


def rank_systems(
    store_uri: str,
    ensembles: Sequence[EnsembleSpec],
    *,
    decode_id: str,
    pool: str = "max",
    order: str = "frame_first",
    top: int | None = 1000,
    min_coverage: float = 0.0,
    clip_ids: pa.ChunkedArray | None = None,
) -> list[Ranking]:
    """Rank the clips of a store with each of several ensembles, in one pass over its frames.

    Arguments and errors are those of :func:`rank_archive`.

    Returns:
        A ranking per ensemble, in order; each took all the seconds of the pass.
    """
    if not 0 <= min_coverage <= 1:
        raise ConfigError(f"min_coverage must be in [0, 1], got {min_coverage}")
    check_pooling(pool=pool, order=order)
    started = time.monotonic()
    store = ScoreStore.open(store_uri)
    rankable = []
    for ensemble in ensembles:
        check_same_taxonomy(store.taxonomy, ensemble.taxonomy, what="the ensemble")
        member_ids = [m.member_id for m in ensemble.members]
        clips, unranked = _rankable_clips(store, decode_id, member_ids, min_coverage, clip_ids)
        if not len(clips):
            raise DataError(f"score store {store_uri}: no clip to rank: {_reasons(unranked)}")
        rankable.append((clips, unranked))
    contents = pa.concat_tables([clips.select(KEY) for clips, _ in rankable])
    pool_all = partial(
        pool_clips,
        store,
        contents.group_by(KEY).aggregate([]),
        decode_id=decode_id,
        weights=[{m.member_id: m.weight for m in e.members} for e in ensembles],
        pool=pool,
        order=order,
    )
    scores = reading(pool_all, what=store_uri)
    rankings = []
    for i, (clips, unranked) in enumerate(rankable):
        pooled = scores.filter(pc.field("system") == i)
        found = clips.filter(pc.is_in(content_keys(clips), value_set=content_keys(pooled)))
        reasons = {**unranked, LOGITS_LOST: len(clips) - len(found)}
        reasons = {reason: n for reason, n in reasons.items() if n}
        if not len(found):
            raise DataError(f"score store {store_uri}: no clip to rank: {_reasons(reasons)}")
        rankings.append(
            Ranking(
                run=_run_of_clips(found, pooled, store=store, top=top),
                num_clips=len(found),
                unranked=reasons,
                seconds=time.monotonic() - started,
                made_of={
                    "store": store_uri,
                    "ensemble_id": ensembles[i].ensemble_id,
                    "decode_id": decode_id,
                    "pool": pool,
                    "order": order,
                    "min_coverage": f"{min_coverage:g}",
                },
            )
        )
    return rankings


def _rankable_clips(
    store: ScoreStore,
    decode_id: str,
    member_ids: Sequence[str],
    min_coverage: float,
    clip_ids: pa.ChunkedArray | None,
) -> tuple[pa.Table, Mapping[str, int]]:
    """The clips (clip_id, content_id, span) that every member has scored, and why others are not."""
    recorded = store.read_outcomes(lambda dataset: dataset.to_table(columns=_COLUMNS))
    outcomes = recorded
    unranked: Counter[str] = Counter()
    if clip_ids is not None:
        asked = pc.unique(clip_ids)
        outcomes = outcomes.filter(pc.is_in(outcomes["clip_id"], value_set=asked))
        num_known = pc.count_distinct(outcomes["clip_id"]).as_py()
        unranked["not in the store (run `dsdi score`)"] = len(asked) - num_known
    newest = newest_per_clip(outcomes.filter(pc.field("decode_id") == decode_id))
    other = newest_per_clip(outcomes).filter(~_is_clip_of(newest))
    unranked["scored under other settings (see --fps)"] = len(other)
    contents = pc.unique(content_keys(newest)).drop_null()
    frames = store.read_outcomes(
        partial(claimed_frames, contents=contents, member_ids=member_ids, decode_id=decode_id)
    )
    complete = contents.filter(pa.array((frames >= 0).all(axis=1)))
    is_complete = pc.is_in(content_keys(newest), value_set=complete)
    clips, rest = newest.filter(is_complete), newest.filter(pc.invert(is_complete))
    scored_row = newest_scored(recorded, contents, decode_id)  # of which clip of it is no matter
    is_unseen = pc.is_in(content_keys(rest), value_set=contents.filter(pa.array(scored_row < 0)))
    is_unseen = pc.or_(is_unseen, rest["content_id"].is_null())
    is_undecodable = (pc.field("status") == "failed") & (pc.field("num_members") == 0)
    num_undecodable = len(rest.filter(is_unseen).filter(is_undecodable))
    unranked["no frame decodes (see `dsdi outcomes`)"] = num_undecodable
    unranked["not scored by every member (run `dsdi score`)"] = len(rest) - num_undecodable
    told = recorded.take(pa.array(scored_row[lookup(content_keys(clips), contents)]))
    least_scored = pc.multiply(told["frames_expected"].cast(pa.float64()), min_coverage)
    is_covered = pc.greater_equal(told["frames_scored"], least_scored)
    covered = clips.filter(is_covered).select(["clip_id", *KEY])
    unranked["too few of its frames decode (see --min-coverage)"] = len(clips) - len(covered)
    return covered, {reason: n for reason, n in unranked.items() if n}


def _is_clip_of(table: pa.Table) -> pc.Expression:
    return pc.field("clip_id").isin(table["clip_id"].combine_chunks())


def _run_of_clips(
    clips: pa.Table, pooled: pa.Table, *, store: ScoreStore, top: int | None
) -> pa.Table:
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
