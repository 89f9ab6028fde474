"""What is done and what is left of a job that makes the paper's tables anew; nothing is changed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dsdi_ray.distributed.index import load_archive
from dsdi_ray.distributed.paper_job import PAPER_SETTINGS, PaperJob
from dsdi_ray.distributed.prepare import prepare_set
from dsdi_ray.distributed.score import score_archive
from dsdi_ray.distributed.scoring_pool import scoring_pool
from dsdi_ray.distributed.train import epochs_done
from dsdi_ray.errors import DataError
from dsdi_ray.storage.bundles import read_ensemble
from dsdi_ray.storage.prepared import PreparedSet


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """A stage, or a part of one.

    Attributes:
        stage: Its name.
        part: Which part, empty for all of it.
        is_complete: Whether there is nothing left to do.
        detail: Counts.
        estimated_seconds: What is left, None where that is not tried or not known.
    """

    stage: str
    part: str = ""
    is_complete: bool
    detail: str
    estimated_seconds: float | None = None


def plan_reproduction(job: PaperJob) -> list[StagePlan]:
    """Look at what is given and at the output folder.

    The preparation's time is estimated from a few images, the scoring's from a few clips where the
    members are there; the training's is not, ``dsdi train RECIPE --dry-run`` tries a few steps.

    Raises:
        UserError: If an input is missing or wrong.
    """
    job = replace(job, out=job.out.resolve())
    if job.inputs is not None:
        job.inputs.read_qrels(job.load_taxonomy())
        job.inputs.read_outside(job.load_taxonomy())
    return [
        *_plan_archive(job),
        _plan_set(job),
        _plan_index(job.out),
        *_plan_training(job),
        _plan_scores(job),
        *_plan_runs(job),
    ]


def _plan_archive(job: PaperJob) -> Iterator[StagePlan]:
    if job.smoke:
        yield StagePlan(
            stage="render",
            is_complete=job.find_inputs() is not None,
            detail=f"{job.smoke.num_images} images, {job.smoke.num_clips} clips",
        )


def _plan_set(job: PaperJob) -> StagePlan:
    inputs = job.find_inputs()
    if inputs is None:
        return StagePlan(stage="prepare", is_complete=False, detail="no images yet")
    summary = prepare_set(
        inputs.answers,
        images=inputs.images,
        out=job.out / "prepared",
        taxonomy=job.load_taxonomy(),
        dry_run=True,
    )
    return StagePlan(
        stage="prepare",
        is_complete=summary.reused,
        detail=f"{summary.num_images:,} images, {summary.num_done_before:,} of them done; "
        f"{summary.num_missing:,} are missing",
        estimated_seconds=summary.estimated_seconds,
    )


def _plan_index(out: Path) -> StagePlan:
    manifest = out / "manifest.parquet"
    if not manifest.is_file():
        return StagePlan(stage="index", is_complete=False, detail="no manifest yet")
    num_clips = len(load_archive(str(manifest)))
    return StagePlan(stage="index", is_complete=True, detail=f"{num_clips:,} clips")


def _plan_training(job: PaperJob) -> Iterator[StagePlan]:
    prepared = job.out / "prepared"
    for recipe in job.load_recipes():
        done = 0
        if _is_prepared(prepared):
            done = epochs_done(recipe, data=prepared, out=job.out / "members" / recipe.name)
        yield StagePlan(
            stage="train",
            part=recipe.name,
            is_complete=done == recipe.epochs,
            detail=f"{done} of {recipe.epochs} epochs",
        )


def _is_prepared(folder: Path) -> bool:
    try:
        PreparedSet.open(folder)
    except DataError:
        return False
    return True


def _plan_scores(job: PaperJob) -> StagePlan:
    manifest, ensemble = job.out / "manifest.parquet", job.out / "ensembles" / "all"
    if not (manifest.is_file() and ensemble.is_dir()):
        detail = "no members yet" if manifest.is_file() else "no manifest yet"
        return StagePlan(stage="score", is_complete=False, detail=detail)
    summary = score_archive(
        load_archive(str(manifest)),
        ensemble=read_ensemble(ensemble),
        store_uri=str(job.out / "scores"),
        settings=PAPER_SETTINGS,
        pool=scoring_pool(use_gpu=job.use_gpu),
        dry_run=True,
    )
    return StagePlan(
        stage="score",
        is_complete=not summary.num_pairs_missing,
        detail=f"(clip, member) pairs: {summary.num_pairs_present:,} in the store, "
        f"{summary.num_pairs_missing:,} missing; {summary.footage_hours:.2f} h of footage",
        estimated_seconds=summary.estimated_seconds,
    )


def _plan_runs(job: PaperJob) -> Iterator[StagePlan]:
    for submission in job.load_submissions():
        yield StagePlan(
            stage="rank" if submission.ensemble else "fuse",
            part=submission.name,
            is_complete=(job.out / "runs" / submission.name / "run.parquet").is_file(),
            detail=submission.made_of,
        )
