"""The scoring pipeline: ``work items -> decode (CPU pool) -> score (pool that holds the members)``.

Decoding is an actor pool of its own because Ray Data would fuse a task map into the scoring actors
and run both one after the other. It begins once a scorer is ready: nothing is fetched in vain, and
the decoders of a short job are still there beside the network, so it takes what a long one takes.
"""

import logging
import re
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pyarrow as pa
import ray
from ray.data import (
    ActorPoolStrategy,
    DataContext,
    Dataset,
    ExecutionOptions,
    ExecutionResources,
)
from ray.exceptions import ObjectLostError, RayActorError
from ray.util.annotations import RayDeprecationWarning

from dsdi_ray.distributed.cluster_event import ClusterEvent
from dsdi_ray.distributed.decode_actor import DecodeClips
from dsdi_ray.distributed.network_environment import network_environment
from dsdi_ray.distributed.score_actor import ScoreFrames
from dsdi_ray.distributed.scoring_pool import ScoringPool
from dsdi_ray.errors import ResourceError
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.vision.decode import DecodeSettings

_LEAST_BLOCK_BYTES = 2**20
# Chunks of frames in the object store for each actor. Without a bound decoding that is quicker than
# scoring would fill a third of the machine's memory. *Measured* with a network that costs little,
# seconds a clip of 1080p with 2, 3, 4 and 6 of them: 1.84, 1.33, 1.32 and 1.44.
_CHUNKS_PER_ACTOR = 3
_MAX_CLIPS_PER_BLOCK = 32
_MAX_BLOCKS = 10_000  # comes first: the driver holds 40 KB of each and takes 3 ms to make it
_BY_FILE = [("uri", "ascending"), ("start_seconds", "ascending")]
# An actor that dies starts again; what it had in hand is left to the job, which knows the clips.
_RETRY_POLICY = {"max_restarts": -1, "max_task_retries": 0}
_MAX_ACTOR_INIT_DEATHS = 3  # in a row: a node may be lost while actors start
_LOGS_DEAD_ACTORS = [
    "ray.data.exceptions",
    "ray.data._internal.execution.streaming_executor_state",
    "ray.data._internal.execution.operators.actor_pool_map_operator",
]


def build_scoring_dataset(
    work: pa.Table,
    *,
    ensemble: EnsembleSpec,
    settings: DecodeSettings,
    pool: ScoringPool,
    scorer_is_ready: ClusterEvent,
    clips_per_block: int | None = None,
) -> Dataset:
    """The pipeline: work items in, logits per (chunk of frames, member) and outcomes out.

    Args:
        work: Rows of :attr:`dsdi_ray.storage.score_plan.ScoringPlan.work`.
        ensemble: The members; all are loaded by every scoring actor.
        settings: How frames are sampled.
        pool: Actors.
        scorer_is_ready: Is set by the first scoring actor that holds the members; decode actors
            wait for it.
        clips_per_block: Work items that a decode actor takes at once, if the work is not very
            large, and then a block at a time: an actor that dies takes no other block along. None
            for few enough to share the work evenly, with a further block waiting at each actor.
    """
    least = -(-len(work) // _MAX_BLOCKS)
    num_in_flight = 1 if clips_per_block else None
    if clips_per_block is None:
        clips_per_block = min(_MAX_CLIPS_PER_BLOCK, len(work) // (pool.num_decoders * 8))
    clips_per_block = max(1, least, clips_per_block)
    sizes = {m.member_id: m.spec.input_px for m in ensemble.members}
    paths = {m.member_id: m.path for m in ensemble.members}
    device = "cuda" if pool.use_gpu else "cpu"
    return (
        # Parts of a file in a row: a decode actor keeps the remote file that it fetched last.
        ray.data.from_arrow(
            work.sort_by(_BY_FILE), override_num_blocks=-(-len(work) // clips_per_block)
        )
        .map_batches(
            DecodeClips,
            fn_constructor_args=(settings, sizes),
            fn_constructor_kwargs={"starts_after": scorer_is_ready},
            compute=ActorPoolStrategy(
                size=pool.num_decoders, max_tasks_in_flight_per_actor=num_in_flight
            ),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=pool.cpus_per_actor,
            **_RETRY_POLICY,
        )
        .map_batches(
            ScoreFrames,
            fn_constructor_args=(paths,),
            fn_constructor_kwargs={
                "micro_batch": pool.micro_batch,
                "device": device,
                "num_threads": pool.threads_per_scorer,
                "compile_networks": pool.compile_networks,
                "is_ready": scorer_is_ready,
            },
            compute=ActorPoolStrategy(
                size=pool.num_scorers, max_tasks_in_flight_per_actor=num_in_flight
            ),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0 if pool.use_gpu else pool.cpus_per_actor,
            num_gpus=1 if pool.use_gpu else 0,
            runtime_env=network_environment(use_gpu=pool.use_gpu),
            **_RETRY_POLICY,
        )
    )


def iterate_scored(
    work: pa.Table,
    *,
    ensemble: EnsembleSpec,
    settings: DecodeSettings,
    pool: ScoringPool,
    clips_per_block: int | None = None,
) -> Generator[pa.Table]:
    """Run the pipeline; what a dead actor or a lost node had in hand is left out, not an error.

    Close it where it is not read to its end, before Ray is left: a pipeline that runs on would take
    this process along.

    Yields:
        Rows of :data:`dsdi_ray.distributed.score_actor.SCORED_SCHEMA`, in any order.

    Raises:
        ResourceError: If actors die again and again as they start.
    """
    pool = pool.limited_to(len(work))
    sizes = {member.spec.input_px for member in ensemble.members}
    chunk_bytes = settings.chunk_frames * sum(3 * size**2 for size in sizes)
    with _scoring_context(pool, chunk_bytes), warnings.catch_warnings():
        # Retries have no named parameter yet; the plain ones go in Ray 2.64.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        scorer_is_ready = ClusterEvent()
        dataset = build_scoring_dataset(
            work,
            ensemble=ensemble,
            settings=settings,
            pool=pool,
            scorer_is_ready=scorer_is_ready,
            clips_per_block=clips_per_block,
        )
        try:
            yield from _blocks(dataset)
        except RayActorError as error:
            raise ResourceError(f"workers cannot start: {_why(error)}") from error
        finally:
            scorer_is_ready.clear()


def _blocks(dataset: Dataset) -> Iterator[pa.Table]:
    """Blocks as they are done, less those that were lost with their node before they came here."""
    for bundle in dataset.iter_internal_ref_bundles():
        for reference in bundle.block_refs:
            try:
                block = ray.get(reference)
            except ObjectLostError:
                continue
            yield block


def _why(error: BaseException) -> str:
    """In one line; of an error in an actor's constructor, which comes last, without its traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, RayActorError) and error.actor_init_failed:
        return re.sub(r"^[\w.]+: ", "", lines[-1])  # less its class
    return lines[0]


def _drop_traceback(record: logging.LogRecord) -> bool:
    """Keep a record's text alone: a traceback holds on to actors, and so to their CPUs and GPUs."""
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.exc_info = f"{record.msg} {_why(record.exc_info[1])}", None
    return True


@contextmanager
def _scoring_context(pool: ScoringPool, chunk_bytes: int) -> Iterator[None]:
    context = DataContext.get_current().copy()
    # A block is about one chunk of frames: passed on as soon as it is decoded.
    context.target_max_block_size = max(_LEAST_BLOCK_BYTES, chunk_bytes)
    num_actors = pool.num_decoders + pool.num_scorers
    in_store = num_actors * _CHUNKS_PER_ACTOR * context.target_max_block_size
    context.execution_options = ExecutionOptions(
        resource_limits=ExecutionResources.for_limits(object_store_memory=in_store)
    )
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # actors answer for clips; a block only fails if its actor dies
    context.max_consecutive_actor_init_deaths = _MAX_ACTOR_INIT_DEATHS
    for name in _LOGS_DEAD_ACTORS:
        logging.getLogger(name).addFilter(_drop_traceback)
    with DataContext.current(context):
        yield
