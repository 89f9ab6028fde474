"""Score the clips of an archive: what the store lacks is decoded, scored and appended.

The chain is ``missing work -> decode -> score -> append to the store``. What a worker had in hand
when it died is done again, clip by clip; a clip that takes its worker along each time is given up,
with that as its reason.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from dsdi_ray.distributed.scoring_pipeline import iterate_scored
from dsdi_ray.distributed.scoring_pool import ScoringPool, scoring_pool
from dsdi_ray.distributed.scoring_progress import ScoringProgress
from dsdi_ray.distributed.scoring_times import ScoringTimes
from dsdi_ray.distributed.scoring_trial import estimate_seconds, is_worth_a_trial
from dsdi_ray.errors import ResourceError
from dsdi_ray.reasons import count_reasons
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.outcome_counts import count_outcomes
from dsdi_ray.storage.score_plan import ScoringPlan, plan_scoring
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.score_writer import ScoreWriter
from dsdi_ray.vision.decode import DecodeSettings

_KILLER = "the process that works on it dies each time (killed, or out of memory)"
_LEAST_PASSES = 3  # after which a pass that finishes no clip is the last one
# Where more clips all end their workers, and no clip does not, no clip is to blame.
_MOST_KILLERS = 8


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """What a scoring job found and did.

    Attributes:
        num_clips: Clips asked for.
        num_ok: Of these, scored on every frame, now or before.
        num_partial: Scored on the frames that decode.
        num_failed: Without a frame.
        num_clips_scored: Clips that this job decoded.
        num_pairs_present: (clip, member) pairs that the store had.
        num_pairs_missing: Pairs that it lacked at the start.
        num_frames: Frames that this job scored.
        footage_hours: Length of the clips to decode, where known.
        seconds: Wall clock.
        estimated_seconds: What the scoring is or was expected to take; None where nothing was tried:
            a small job is done at once.
        reasons: Failed clips by reason, see :func:`dsdi_ray.reasons.count_reasons`.
        partial_reasons: Clips scored in part, so too.
        decoders: Clips that this job decoded, by decoder.
        shares: Share of its time that each pool worked: fetching, decoding, scoring.
        limited_by: What the job mostly waited for, None where it scored nothing.
        dry_run: True if nothing was written.
    """

    num_clips: int
    num_ok: int
    num_partial: int
    num_failed: int
    num_clips_scored: int
    num_pairs_present: int
    num_pairs_missing: int
    num_frames: int
    footage_hours: float
    seconds: float
    estimated_seconds: float | None
    reasons: Mapping[str, int]
    partial_reasons: Mapping[str, int]
    decoders: Mapping[str, int]
    shares: Mapping[str, float]
    limited_by: str | None
    dry_run: bool


def score_archive(
    manifest: pa.Table,
    *,
    ensemble: EnsembleSpec,
    store_uri: str,
    settings: DecodeSettings,
    pool: ScoringPool | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    on_plan: Callable[[ScoringPlan, ScoringPool, float | None], None] | None = None,
) -> ScoreSummary:
    """Bring a store up to date: every clip of the manifest scored by every member.

    Scores that the store has are kept; a clip is decoded once for all members that it lacks. Each
    clip ends as an outcome; none ends the job. Before a large job a few clips are tried, so as to
    say how long it will take.

    Args:
        manifest: Clips, see :mod:`dsdi_ray.storage.manifest`.
        ensemble: The members.
        store_uri: Folder or URI of the store; begun where there is none.
        settings: How frames are sampled.
        pool: Actors; None sizes them from the cluster.
        retry_failed: Decode clips again that failed before or are partial.
        dry_run: Only say what would be done, and try a few clips to say how long it would take.
        on_plan: Told what there is to do before it begins, by whom, and the estimated seconds, if
            any.

    Raises:
        TaxonomyError: If the store is of another taxonomy than the ensemble.
        ResourceError: If GPUs are asked for and there are none, or every worker dies.
        StoreError: If the store cannot be written; the same call goes on from there.
    """
    started = time.monotonic()
    store = ScoreStore.open_or_create(store_uri, ensemble.taxonomy, write=not dry_run)
    member_ids = [m.member_id for m in ensemble.members]
    plan = plan_scoring(
        manifest,
        store=store,
        member_ids=member_ids,
        decode_id=settings.decode_id,
        retry_failed=retry_failed,
    )
    pool = (pool or scoring_pool()).limited_to(plan.num_work_items)
    writer = ScoreWriter(store, plan, decode_id=settings.decode_id, fps=settings.fps)
    job = _ScoringJob(plan, writer, ensemble, settings, pool, ScoringTimes(pool))
    estimated_seconds = 0.0 if dry_run else None
    if plan.num_work_items and (dry_run or is_worth_a_trial(plan, pool, fps=settings.fps)):
        estimated_seconds = estimate_seconds(plan, ensemble=ensemble, settings=settings, pool=pool)
    if on_plan is not None:
        on_plan(plan, pool, estimated_seconds)
    if not dry_run:
        writer.record_without_decoding()
        if plan.num_work_items:
            with writer:
                job.run()
    counts = store.read_outcomes(
        partial(
            count_outcomes,
            clips=plan.manifest,
            member_ids=member_ids,
            decode_id=settings.decode_id,
        )
    )
    by_status: Counter[str] = Counter()
    for (status, _), num_clips in counts.items():
        by_status[status] += num_clips
    return ScoreSummary(
        num_clips=len(plan.manifest),
        num_ok=by_status["ok"],
        num_partial=by_status["partial"],
        num_failed=by_status["failed"],
        num_clips_scored=writer.num_clips,
        num_pairs_present=plan.num_pairs_present,
        num_pairs_missing=plan.num_pairs_missing,
        num_frames=writer.num_frames,
        footage_hours=plan.footage_hours,
        seconds=time.monotonic() - started,
        estimated_seconds=estimated_seconds,
        reasons=_reasons(counts, "failed"),
        partial_reasons=_reasons(counts, "partial"),
        decoders=dict(writer.decoders),
        shares={} if dry_run else job.times.shares(),
        limited_by=job.times.limited_by() if writer.num_clips else None,
        dry_run=dry_run,
    )


def _reasons(counts: Mapping[tuple[str, str], int], status: str) -> dict[str, int]:
    return count_reasons((error, n) for (of, error), n in counts.items() if of == status)


@dataclass(frozen=True)
class _ScoringJob:
    plan: ScoringPlan
    writer: ScoreWriter
    ensemble: EnsembleSpec
    settings: DecodeSettings
    pool: ScoringPool
    times: ScoringTimes

    def run(self) -> None:
        """Score all work; where workers die in further passes, clip by clip."""
        work, num_passes = self.plan.work, 0
        progress = ScoringProgress(self.plan, self.writer, self.times, fps=self.settings.fps)
        with closing(progress):
            while len(work):
                num_before = self.writer.num_clips
                scored = iterate_scored(
                    work,
                    ensemble=self.ensemble,
                    settings=self.settings,
                    pool=self.pool,
                    clips_per_block=1 if num_passes else None,
                )
                with closing(scored):
                    for batch in scored:
                        self.times.add(batch)
                        progress.update(self.writer.add(batch))
                num_passes += 1
                left = self.writer.undone()
                if not self.writer.num_clips and len(left) > _MOST_KILLERS:
                    raise ResourceError(
                        "every worker died before it finished a clip; see Ray's logs in "
                        "/tmp/ray/session_latest/logs, and give them more memory or fewer "
                        "--decoders and --scorers"
                    )
                if num_passes >= _LEAST_PASSES and self.writer.num_clips == num_before:
                    self.writer.give_up(left, reason=_KILLER)
                    progress.update(left.to_pylist())
                    break
                work = self.plan.work.take(left)
