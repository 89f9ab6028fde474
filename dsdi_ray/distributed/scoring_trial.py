"""A trial before a scoring job: the beginnings of a few clips tell how long all will take."""

from contextlib import closing
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from dsdi_ray.distributed.scoring_pipeline import iterate_scored
from dsdi_ray.distributed.scoring_pool import ScoringPool
from dsdi_ray.distributed.scoring_times import ScoringTimes
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.filesystems import is_remote
from dsdi_ray.storage.score_plan import ScoringPlan
from dsdi_ray.vision.decode import DecodeSettings

_NUM_CLIPS, _SECONDS = 6, 5.0  # that are decoded, and of each
_SECONDS_PER_CORE = 15 * 60.0  # of footage: minutes of work, against which a trial is cheap
_FILES_PER_FETCH = 10  # a trial fetches whole files, too


def is_worth_a_trial(plan: ScoringPlan, pool: ScoringPool, *, fps: float) -> bool:
    """Whether trying a few clips costs little against the work."""
    seconds = plan.frames_per_item(fps).sum() / fps
    if seconds <= _SECONDS_PER_CORE * pool.num_cpus:
        return False
    uris = pc.unique(plan.work["uri"])
    are_many = len(uris) >= _NUM_CLIPS * _FILES_PER_FETCH
    return are_many or not any(is_remote(uri) for uri in uris.to_pylist())


def estimate_seconds(
    plan: ScoringPlan, *, ensemble: EnsembleSpec, settings: DecodeSettings, pool: ScoringPool
) -> float | None:
    """Decode and score the beginnings of a few clips, and work out how long all would take.

    Their scores are thrown away, and networks are not compiled for them.

    Args:
        plan: The work; there must be some.
        ensemble: The members.
        settings: How frames are sampled.
        pool: Actors of the job.

    Returns:
        None where no frame of them decodes, or no clip's length is known.
    """
    num_frames = float(plan.frames_per_item(settings.fps).sum())
    if not num_frames:
        return None
    sample = _beginnings(plan.work)
    pool = replace(pool, compile_networks=False)
    times = ScoringTimes(pool)
    scored = iterate_scored(
        sample, ensemble=ensemble, settings=settings, pool=pool, clips_per_block=1
    )
    with (
        progress_bar(total=len(sample), description="Trying a few", unit="clip") as bar,
        closing(scored),
    ):
        for batch in scored:
            times.add(batch)
            bar.update(len(batch) - batch["outcome"].null_count)
    num_files, num_seen = (pc.count_distinct(work["uri"]).as_py() for work in (plan.work, sample))
    return times.estimate_seconds(num_frames=num_frames, files_per_file_seen=num_files / num_seen)


def _beginnings(work: pa.Table) -> pa.Table:
    """A few work items, cut to their beginnings."""
    places = sorted({i * len(work) // _NUM_CLIPS for i in range(_NUM_CLIPS)})
    sample = work.take(pa.array(places))
    starts = [start or 0.0 for start in sample["start_seconds"].to_pylist()]
    ends = [
        min(start + _SECONDS, end or float("inf"))
        for start, end in zip(starts, sample["end_seconds"].to_pylist(), strict=True)
    ]
    column = work.schema.get_field_index("end_seconds")
    return sample.set_column(column, "end_seconds", pa.array(ends, pa.float64()))
