"""Score the clips of an archive: what the store lacks is decoded, scored and appended.

The chain is ``missing work -> decode (CPU pool) -> score (actor pool that holds the members) ->
append to the store``. Decoding is an actor pool of its own because Ray Data would fuse a task map
into the scoring actors and run both one after the other.
"""

import time
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset
from ray.util.annotations import RayDeprecationWarning

from dsdi_ray.distributed.decode_actor import DecodeClips
from dsdi_ray.distributed.score_actor import ScoreFrames
from dsdi_ray.distributed.session import cluster_resources, resolve_use_gpu
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.outcome_scan import count_outcomes
from dsdi_ray.storage.score_plan import ScoringPlan, plan_scoring
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.score_writer import ScoreWriter
from dsdi_ray.vision.decode import DecodeSettings

_BLOCK_BYTES = 24 * 2**20  # about one chunk of frames: passed on as soon as it is decoded
_MAX_CLIPS_PER_TASK = 32
_BY_FILE = [("uri", "ascending"), ("start_seconds", "ascending")]
_RETRY_POLICY = {"max_restarts": -1, "max_task_retries": 2}  # Ray's own has no limit for tasks
_CPU_SHARE_OF_ACTORS = 0.75  # the rest stays free, or Ray could not run the plan's own tasks


@dataclass(frozen=True, kw_only=True)
class ScoringPool:
    """How many actors decode and score, and on what.

    Attributes:
        num_decoders: Decode actors; each drives one child process of one thread.
        num_scorers: Actors that hold the ensemble.
        use_gpu: Whether each scorer takes a GPU.
        micro_batch: Frames per forward pass.
    """

    num_decoders: int
    num_scorers: int
    use_gpu: bool
    micro_batch: int

    @property
    def cpus_per_actor(self) -> float:
        """CPU share that Ray reserves per actor, so that all of them fit any machine."""
        num_actors = self.num_decoders + (0 if self.use_gpu else self.num_scorers)
        return min(1.0, _CPU_SHARE_OF_ACTORS * cluster_resources().num_cpus / num_actors)

    @property
    def threads_per_scorer(self) -> int | None:
        """Threads of a forward pass on CPUs; None leaves it to torch."""
        if self.use_gpu:
            return None
        resources = cluster_resources()
        return max(1, int(resources.num_cpus // max(self.num_scorers, resources.num_nodes)))


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
        footage_hours: Length of the decoded clips, where known.
        seconds: Wall clock.
        reasons: Failed clips by reason.
        decoders: Clips that this job decoded, by decoder.
        dry_run: True if nothing was decoded or written.
    """

    num_clips: int
    num_ok: int = 0
    num_partial: int = 0
    num_failed: int = 0
    num_clips_scored: int = 0
    num_pairs_present: int
    num_pairs_missing: int
    num_frames: int = 0
    footage_hours: float
    seconds: float
    reasons: Mapping[str, int]
    decoders: Mapping[str, int]
    dry_run: bool = False


def scoring_pool(
    *,
    use_gpu: bool | None = None,
    num_decoders: int | None = None,
    num_scorers: int | None = None,
    micro_batch: int = 32,
) -> ScoringPool:
    """Size the pools from the cluster, as far as they are not given.

    Raises:
        ResourceError: If GPUs are asked for and there are none.
    """
    on_gpu = resolve_use_gpu(use_gpu)
    resources = cluster_resources()
    scorers = num_scorers or (int(resources.num_gpus) if on_gpu else resources.num_nodes)
    decoders = num_decoders or max(1, int(resources.num_cpus))
    return ScoringPool(
        num_decoders=decoders, num_scorers=scorers, use_gpu=on_gpu, micro_batch=micro_batch
    )


def score_archive(
    manifest: pa.Table,
    *,
    ensemble: EnsembleSpec,
    store_uri: str,
    settings: DecodeSettings,
    pool: ScoringPool | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
) -> ScoreSummary:
    """Bring a store up to date: every clip of the manifest scored by every member.

    Scores that the store has are kept; a clip is decoded once for all members that it lacks. Each
    clip ends as an outcome; none ends the job.

    Args:
        manifest: Clips, see :mod:`dsdi_ray.storage.manifest`.
        ensemble: The members.
        store_uri: Folder or URI of the store; begun where there is none.
        settings: How frames are sampled.
        pool: Actors; None sizes them from the cluster.
        retry_failed: Decode clips again that failed before.
        dry_run: Only say what would be done.

    Raises:
        TaxonomyError: If the store is of another taxonomy than the ensemble.
        ResourceError: If GPUs are asked for and there are none.
    """
    started = time.monotonic()
    pool = pool or scoring_pool()
    store = ScoreStore.open_or_create(store_uri, ensemble.taxonomy, write=not dry_run)
    plan = plan_scoring(
        manifest,
        store=store,
        member_ids=[m.member_id for m in ensemble.members],
        decode_id=settings.decode_id,
        retry_failed=retry_failed,
    )
    writer = ScoreWriter(store, plan, decode_id=settings.decode_id, fps=settings.fps)
    if not dry_run:
        writer.record_without_decoding()
        if plan.num_work_items:
            _run(plan, writer, ensemble=ensemble, settings=settings, pool=pool)
    return _summarise(
        plan, writer, store, decode_id=settings.decode_id, dry_run=dry_run, started=started
    )


def build_scoring_dataset(
    work: pa.Table, *, ensemble: EnsembleSpec, settings: DecodeSettings, pool: ScoringPool
) -> Dataset:
    """The pipeline: work items in, logits per (chunk of frames, member) out.

    Args:
        work: Rows of :attr:`ScoringPlan.work`.
        ensemble: The members; all are loaded by every scoring actor.
        settings: How frames are sampled.
        pool: Actors.
    """
    clips_per_task = len(work) // (pool.num_decoders * 8)
    num_blocks = -(-len(work) // max(1, min(_MAX_CLIPS_PER_TASK, clips_per_task)))
    sizes = {m.member_id: m.spec.input_px for m in ensemble.members}
    decode = ActorPoolStrategy(size=pool.num_decoders)
    score = ActorPoolStrategy(size=pool.num_scorers)
    paths = {m.member_id: m.path for m in ensemble.members}
    device = "cuda" if pool.use_gpu else "cpu"
    return (
        # Parts of a file in a row: a decode actor keeps the remote file that it fetched last.
        ray.data.from_arrow(work.sort_by(_BY_FILE), override_num_blocks=num_blocks)
        .map_batches(
            DecodeClips,
            fn_constructor_args=(settings, sizes),
            compute=decode,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=pool.cpus_per_actor,
            **_RETRY_POLICY,
        )
        .map_batches(
            ScoreFrames,
            fn_constructor_args=(paths, pool.micro_batch, device, pool.threads_per_scorer),
            compute=score,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0 if pool.use_gpu else pool.cpus_per_actor,
            num_gpus=1 if pool.use_gpu else 0,
            **_RETRY_POLICY,
        )
    )


def _run(
    plan: ScoringPlan,
    writer: ScoreWriter,
    *,
    ensemble: EnsembleSpec,
    settings: DecodeSettings,
    pool: ScoringPool,
) -> None:
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = _BLOCK_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with warnings.catch_warnings():
        # Retries have no named parameter yet; the plain ones go in Ray 2.64.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        dataset = build_scoring_dataset(plan.work, ensemble=ensemble, settings=settings, pool=pool)
    with progress_bar(total=plan.num_work_items, description="Scoring", unit="clip") as bar:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            num_done = writer.add(batch)
            facts = f"{writer.num_frames} frames, {writer.num_failed} failed"
            bar.set_postfix_str(facts, refresh=False)
            bar.update(num_done)
    writer.flush()


def _summarise(
    plan: ScoringPlan,
    writer: ScoreWriter,
    store: ScoreStore,
    *,
    decode_id: str,
    dry_run: bool,
    started: float,
) -> ScoreSummary:
    clip_ids = plan.manifest["clip_id"]
    counts = store.read_outcomes(lambda dataset: count_outcomes(dataset, clip_ids, decode_id))
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
        reasons={error: n for (status, error), n in counts.items() if status == "failed"},
        decoders=dict(writer.decoders),
        dry_run=dry_run,
    )
