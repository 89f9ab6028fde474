"""Run a sweep with Ray Tune: many trials of a recipe, each a run of Ray Train.

The records in the sweep's folder are the one source of truth, see
:mod:`dsdi_ray.storage.sweep_records`. Ray Tune's own state is not gone on from: it is written anew
by each start, for the trials that are not over.
"""

import contextlib
import functools
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from dsdi_ray.distributed.session import check_state_api
from dsdi_ray.distributed.sweep_board import SweepBoard
from dsdi_ray.distributed.sweep_points import OptunaPoints, planned_trials
from dsdi_ray.distributed.sweep_progress import SweepProgress
from dsdi_ray.distributed.sweep_results import write_results, write_table
from dsdi_ray.distributed.sweep_slots import TRIAL_CPUS, SweepSlots, sweep_slots
from dsdi_ray.distributed.sweep_trial import DECODED, TrialJob, run_trial
from dsdi_ray.progress import print_line, progress_bar
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.storage.sweep_records import SweepFolder
from dsdi_ray.sweep_config import Sweep, base_recipe, trial_recipe

_MAX_FAILURES = 3  # of the process that drives a trial; a trial that fails is no failure of it


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """What a sweep came to.

    Attributes:
        out: Its folder.
        num_trials: In all.
        counts: Trials by status.
        metric: What is best.
        best_trial: Name of the best, None where none has a value.
        best_value: Its metric.
        best_point: Its values.
        best_member: Its bundle, None where it has none.
        num_run: Trials that this command ran or went on with.
        seconds: Wall clock.
    """

    out: Path
    num_trials: int
    counts: Mapping[str, int]
    metric: str
    best_trial: str | None
    best_value: float | None
    best_point: Mapping[str, Any] | None
    best_member: Path | None
    num_run: int
    seconds: float


def run_sweep(
    sweep: Sweep,
    *,
    data: Path,
    out: Path,
    use_gpu: bool | None = None,
    mlflow: str | None = None,
    retry_failed: bool = False,
) -> SweepSummary:
    """Train the trials of a sweep; the same call goes on where it was cut off.

    Trials that are over stay so, others go on from their last epoch.

    Args:
        sweep: What is tried.
        data: Prepared set.
        out: Folder of the sweep.
        use_gpu: None for GPUs where there are any.
        mlflow: As :func:`dsdi_ray.distributed.train.train_member` takes it.
        retry_failed: Run trials again that failed.

    Raises:
        ConfigError: If a trial's recipe is none.
        DataError: If ``out`` is another sweep's.
        ResourceError: If not one trial fits the cluster.
    """
    started = time.monotonic()
    data, out = data.resolve(), out.resolve()
    base = base_recipe(sweep)
    num_epochs = trial_recipe(sweep, base, {}, seed=0).epochs
    planned = planned_trials(sweep, base) if sweep.search.algorithm != "optuna" else []
    slots = sweep_slots(sweep.resources, use_gpu=use_gpu)
    check_state_api()
    folder = SweepFolder(out)
    folder.begin(_plan(sweep, base, PreparedSet.open(data)))
    board = SweepBoard(sweep, folder, num_epochs=num_epochs)
    for record in planned or folder.records():
        board.add_trial(record, retry=retry_failed)
    board.stop_trials()
    job = TrialJob(
        folder=out,
        data=data,
        num_workers=sweep.resources.workers,
        gpus_per_worker=sweep.resources.gpus_per_worker,
        use_gpu=slots.use_gpu,
        num_trials=slots.num_trials,
        mlflow=str(Path(mlflow).resolve()) if mlflow and "://" not in mlflow else mlflow,
    )
    num_over = sum(record.is_over for record in board.records)
    _SweepJob(sweep, base, board, folder, job, slots).run()
    shutil.rmtree(out / DECODED, ignore_errors=True)
    write_results(sweep, board, folder)
    return _summary(sweep, board, folder, num_over=num_over, started=started)


@dataclass(frozen=True)
class _SweepJob:
    sweep: Sweep
    base: Mapping[str, Any]
    board: SweepBoard
    folder: SweepFolder
    job: TrialJob
    slots: SweepSlots

    def run(self) -> None:
        """Run the trials that are not over."""
        waiting = [record.number for record in self.board.records if not record.is_over]
        by_optuna = self.sweep.search.algorithm == "optuna"
        points = OptunaPoints(self.sweep, self.base, self.board) if by_optuna else None
        num_trials = points.num_trials if points else len(self.board.records)
        if not waiting and num_trials == len(self.board.records):
            return
        num_new = num_trials - len(self.board.records) + len(waiting)
        num_done = sum(len(record.history) for record in self.board.records)
        print_line(
            f"{self.sweep.name}: {num_new} of {num_trials} trials to run, "
            f"{self.slots.num_trials} at the same time"
        )
        ray_folder = self.folder.path / "ray"
        shutil.rmtree(ray_folder, ignore_errors=True)  # of a start that was cut off
        _quiet_tune()
        with progress_bar(
            total=num_trials * self.board.num_epochs,
            description=f"Sweep {self.sweep.name}",
            unit="epoch",
            initial=num_done,
        ) as bar:
            table = functools.partial(write_table, self.sweep, self.board, self.folder)
            progress = SweepProgress(self.board, bar, table)
            tuner = tune.Tuner(
                tune.with_resources(
                    functools.partial(run_trial, job=self.job), {"CPU": TRIAL_CPUS}
                ),
                param_space={} if points else {"trial": tune.grid_search(waiting)},
                tune_config=tune.TuneConfig(
                    search_alg=points,
                    num_samples=num_new if points else 1,
                    max_concurrent_trials=self.slots.num_trials,
                ),
                run_config=tune.RunConfig(
                    name=uuid.uuid4().hex[:12],
                    storage_path=str(ray_folder),
                    callbacks=[progress],
                    failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
                    verbose=0,
                ),
            )
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
                tuner.fit()  # it prints tables of its own
            progress.update()
        shutil.rmtree(ray_folder, ignore_errors=True)
        self._clean()

    def _clean(self) -> None:
        """Remove what trials that were stopped or failed leave of weights."""
        for record in self.board.records:
            if record.status in {"stopped", "failed"}:
                if self.folder.read(record.number) != record:
                    self.folder.write(record)  # it may have ended in the moment it was stopped
                member = self.folder.member_folder(record.number)
                shutil.rmtree(member, ignore_errors=True)
                shutil.rmtree(member.with_name(f"{member.name}.training"), ignore_errors=True)


def _plan(sweep: Sweep, base: Mapping[str, Any], prepared: PreparedSet) -> dict[str, Any]:
    """What makes it this sweep; how much of it runs at the same time does not."""
    meaning = sweep.model_dump(mode="json", exclude={"resources"})
    return {
        "format": 1,
        "sweep": meaning | {"recipe": sweep.recipe.name},
        "recipe": dict(base),
        "workers": sweep.resources.workers,
        "data": {"path": str(prepared.path), "prepared_id": prepared.prepared_id},
    }


def _quiet_tune() -> None:
    """Ray Tune's own tables and log files are not wanted, and Ctrl-C ends the command."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")


def _summary(
    sweep: Sweep, board: SweepBoard, folder: SweepFolder, *, num_over: int, started: float
) -> SweepSummary:
    best = board.best_trial()
    value = board.best_of(best) if best else None
    member = folder.member_folder(best.number) if best else None
    return SweepSummary(
        out=folder.path,
        num_trials=len(board.records),
        counts=dict(Counter(record.status for record in board.records)),
        metric=sweep.metric,
        best_trial=best.name if best else None,
        best_value=value.value if value else None,
        best_point=best.point if best else None,
        best_member=member if member and member.is_dir() else None,
        num_run=len(board.records) - num_over,
        seconds=time.monotonic() - started,
    )
