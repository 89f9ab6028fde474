"""One trial of a sweep: what Ray Tune runs in a process of its own."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.run_owner import take_over
from dsdi_ray.distributed.sweep_slots import WORKER_CPUS
from dsdi_ray.distributed.train import SweepShare, train_member
from dsdi_ray.distributed.train_progress import read_history
from dsdi_ray.errors import DataError, DsdiError
from dsdi_ray.storage.sweep_records import SweepFolder, TrialRecord

DECODED = "decoded"  # folder of pictures in the sweep's, while it runs
_REPORTED = ("epoch", "train_loss", "validation_loss", "lrap", "map", "learning_rate", "seconds")


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """What all trials of a sweep have in common.

    Attributes:
        folder: Of the sweep.
        data: Prepared set.
        num_workers: Of a trial.
        gpus_per_worker: Where GPUs are used.
        use_gpu: Whether they are.
        num_trials: At the same time.
        mlflow: As :func:`dsdi_ray.distributed.train.train_member` takes it.
    """

    folder: Path
    data: Path
    num_workers: int
    gpus_per_worker: float
    use_gpu: bool
    num_trials: int
    mlflow: str | None


def run_trial(config: Mapping[str, Any], *, job: TrialJob) -> None:
    """Train a trial's recipe, or go on with it; what becomes of it is written to its record.

    A trial that fails is not raised: Ray Tune would try again what fails each time. It does try
    again where a process died, or does not see the record.

    Args:
        config: ``trial``, its number.
        job: What it shares with the others.
    """
    folder = SweepFolder(job.folder)
    record = _read_here(folder, config["trial"])
    member = folder.member_folder(record.number)
    try:
        train_member(
            Recipe.model_validate(record.recipe),
            data=job.data,
            out=member,
            num_workers=job.num_workers,
            use_gpu=job.use_gpu,
            num_runs=job.num_trials,
            mlflow=job.mlflow,
            in_sweep=SweepShare(
                gpus_per_worker=job.gpus_per_worker,
                cpus_per_worker=WORKER_CPUS,
                decoded=job.folder / DECODED,
                on_epoch=_report,
            ),
        )
    except RayActorError:
        raise
    except Exception as error:
        if folder.read(record.number).is_over:
            return  # it was stopped, see stop_trial
        history = latest_history(folder, record)
        failed = replace(record, status="failed", reason=_reason(error), history=history)
        folder.write(failed)
        return
    if folder.read(record.number).is_over:
        return
    history = read_history(member / "history.jsonl")
    folder.write(replace(record, status="finished", reason=None, history=history))


def _read_here(folder: SweepFolder, number: int) -> TrialRecord:
    try:
        return folder.read(number)
    except DataError as error:
        raise DataError(f"{error}, as the node {socket.gethostname()} sees it") from error


def latest_history(folder: SweepFolder, record: TrialRecord) -> list[Mapping[str, Any]]:
    """The epochs of a trial so far, of its member or of the run that trains it."""
    member = folder.member_folder(record.number)
    for file in (member / "history.jsonl", *sorted(_work(member).glob("*/history.jsonl"))):
        if file.is_file():
            return list(read_history(file))
    return []


def stop_trial(folder: SweepFolder, number: int) -> None:
    """End the training of a trial whose record says that it is stopped, within seconds.

    Ray Tune would kill its process. Ray Train then takes its workers' death for a failure, starts
    others, and their share of the cluster is never given back.
    """
    for work in _work(folder.member_folder(number)).glob("*"):
        take_over(work)


def _work(member: Path) -> Path:
    return member.with_name(f"{member.name}.training")


def _report(row: Mapping[str, Any]) -> None:
    tune.report({name: row[name] for name in _REPORTED if row.get(name) is not None})


def _reason(error: Exception) -> str:
    # Ray tells of workers' errors with all their tracebacks.
    failures = list(getattr(error, "worker_failures", {}).values())
    first = failures[0] if failures else error
    cause = getattr(first, "cause", first)
    text = " ".join(str(cause).split())[:500]
    return text if isinstance(cause, DsdiError) else f"{type(cause).__name__}: {text}"
