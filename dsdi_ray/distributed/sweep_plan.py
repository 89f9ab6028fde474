"""A sweep before it runs, and one that is looked at: read from its folder, nothing is trained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.distributed.sweep_board import SweepBoard
from dsdi_ray.distributed.sweep_points import planned_trials
from dsdi_ray.distributed.sweep_results import trials_page_table, write_results
from dsdi_ray.distributed.sweep_slots import num_at_full_speed, sweep_slots
from dsdi_ray.distributed.train_plan import plan_training
from dsdi_ray.report.page import PageTable
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.storage.sweep_records import PLAN_FILE, SweepFolder, TrialRecord
from dsdi_ray.sweep_config import Sweep, base_recipe, say_point, trial_recipe

_MAX_TRIED = 6  # networks and sizes whose steps are timed for an estimate


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a sweep would come to.

    Attributes:
        trials: Name, point, seed and status of each; with Optuna only those that it asked for.
        num_trials: In all.
        num_waiting: That are not over.
        num_slots: Trials at the same time.
        device: What each is on.
        num_epochs: To train, if none is stopped early.
        estimated_seconds: For these, without start-up.
    """

    trials: Sequence[Sequence[Any]]
    num_trials: int
    num_waiting: int
    num_slots: int
    device: str
    num_epochs: int
    estimated_seconds: float


@dataclass(frozen=True, kw_only=True)
class ShownSweep:
    """A sweep as it stands.

    Attributes:
        table: Trials, the best first.
        counts: Trials by status.
        page: The page that was written.
    """

    table: PageTable
    counts: Mapping[str, int]
    page: Path


def plan_sweep(sweep: Sweep, *, data: Path, out: Path, use_gpu: bool | None = None) -> SweepPlan:
    """Plan a sweep; nothing is written.

    Args:
        sweep: What is tried.
        data: Prepared set.
        out: Folder of the sweep, which may have been begun.
        use_gpu: None for GPUs where there are any.

    Raises:
        UserError: As :func:`dsdi_ray.distributed.sweep.run_sweep`.
    """
    base = base_recipe(sweep)
    by_optuna = sweep.search.algorithm == "optuna"
    planned = [] if by_optuna else planned_trials(sweep, base)
    slots = sweep_slots(sweep.resources, use_gpu=use_gpu)
    PreparedSet.open(data.resolve())
    known = {}
    if (out / PLAN_FILE).is_file():
        known = {record.number: record for record in SweepFolder(out).records()}
    trials = [known.get(record.number, record) for record in planned] or list(known.values())
    num_trials = sweep.search.num_samples * sweep.seeds if by_optuna else len(trials)
    waiting = [record for record in trials if not record.is_over]
    recipes = [Recipe.model_validate(record.recipe) for record in waiting]
    recipes += [trial_recipe(sweep, base, {}, seed=0)] * (num_trials - len(trials))
    seconds = _trial_seconds(
        recipes,
        data=data,
        use_gpu=use_gpu,
        num_workers=sweep.resources.workers,
        num_runs=slots.num_trials,
    )
    side_by_side = num_at_full_speed(slots, sweep.resources, num_gpus=cluster_resources().num_gpus)
    return SweepPlan(
        trials=[[r.name, say_point(r.point), r.seed, r.status] for r in trials],
        num_trials=num_trials,
        num_waiting=len(recipes),
        num_slots=slots.num_trials,
        device="GPUs" if slots.use_gpu else "CPU cores",
        num_epochs=sum(recipe.epochs for recipe in recipes),
        estimated_seconds=max(sum(seconds) / side_by_side, max(seconds, default=0.0)),
    )


def show_sweep(out: Path) -> ShownSweep:
    """Read a sweep from its folder, and write its table, figures and page anew.

    Raises:
        DataError: If it is none, or a record cannot be read.
    """
    sweep, board, folder = _read(out)
    page = write_results(sweep, board, folder)
    counts = Counter(_status(record) for record in board.records)
    return ShownSweep(table=trials_page_table(sweep, board), counts=counts, page=page)


def sweep_table(out: Path) -> PageTable:
    """The trials of a sweep, the best first; nothing is written.

    Raises:
        DataError: As :func:`show_sweep`.
    """
    sweep, board, _ = _read(out)
    return trials_page_table(sweep, board)


def _read(out: Path) -> tuple[Sweep, SweepBoard, SweepFolder]:
    folder = SweepFolder(out.resolve())
    plan = folder.read_plan()
    sweep = Sweep.model_validate(plan["sweep"])
    num_epochs = trial_recipe(sweep, plan["recipe"], {}, seed=0).epochs
    board = SweepBoard(sweep, folder, num_epochs=num_epochs)
    for record in folder.records():
        board.add_trial(record)
    return sweep, board, folder


def _status(record: TrialRecord) -> str:
    return "running or cut off" if record.history and not record.is_over else record.status


def _trial_seconds(
    recipes: Sequence[Recipe], *, data: Path, use_gpu: bool | None, num_workers: int, num_runs: int
) -> list[float]:
    """Seconds of each, from a few steps of each network and size on a trial's share of the cores."""
    seconds: dict[tuple[str, int], float] = {}
    for recipe in recipes:
        kind = (recipe.backbone.name, recipe.input_px)
        if kind not in seconds and len(seconds) < _MAX_TRIED:
            plan = plan_training(
                recipe, data=data, num_workers=num_workers, use_gpu=use_gpu, num_runs=num_runs
            )
            seconds[kind] = plan.estimated_seconds / recipe.epochs
    usual = sum(seconds.values()) / max(1, len(seconds))
    return [
        recipe.epochs * seconds.get((recipe.backbone.name, recipe.input_px), usual)
        for recipe in recipes
    ]
