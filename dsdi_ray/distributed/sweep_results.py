"""What a sweep shows of itself: the table of its trials, figures and a page."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dsdi_ray.distributed.sweep_board import SweepBoard
from dsdi_ray.report.page import PageSection, PageTable, write_page
from dsdi_ray.report.sweep_figures import (
    TrialResult,
    learning_curves,
    metric_by_hyperparameter,
    parallel_coordinates,
)
from dsdi_ray.storage.sweep_records import SweepFolder, TrialRecord, trials_table
from dsdi_ray.sweep_config import Sweep, say_point

METRIC_NAMES = {"lrap": "LRAP", "map": "mAP", "loss": "validation loss"}
FIGURES, PAGE_FILE = "figures", "index.html"


def write_table(sweep: Sweep, board: SweepBoard, folder: SweepFolder) -> Path:
    """Write ``trials.parquet``."""
    rows = [_row(record, board, folder) for record in board.records]
    return folder.write_table(trials_table(rows, list(sweep.space)))


def write_results(sweep: Sweep, board: SweepBoard, folder: SweepFolder) -> Path:
    """Write the table, the figures and the page; returns the page's path."""
    write_table(sweep, board, folder)
    name = METRIC_NAMES[sweep.metric]
    trials = [_result(record, board) for record in board.records]
    figures = folder.path / FIGURES
    figures.mkdir(exist_ok=True)
    draw = {
        "metric_by_hyperparameter": metric_by_hyperparameter,
        "parallel_coordinates": parallel_coordinates,
        "learning_curves": learning_curves,
    }
    is_higher_better = sweep.metric != "loss"
    paths = [
        figure(trials, name, figures / f"{stem}.png", higher_is_better=is_higher_better)
        for stem, figure in draw.items()
    ]
    best = board.best_trial()
    value = board.best_of(best) if best else None
    lead = f"{len(board.records)} trials of {sweep.recipe.name}. " + (
        f"Best {name}: {value.value:.4f}, trial {best.name} ({say_point(best.point)})."
        if best and value
        else f"No trial has a value of {name}."
    )
    tables = [trials_page_table(sweep, board)]
    if sweep.seeds > 1:
        tables.insert(0, _points_table(sweep, board))
    sections = [
        PageSection(title="Trials", tables=tables),
        PageSection(
            title="Figures", text="Hollow marks are trials that were stopped early.", figures=paths
        ),
    ]
    page = folder.path / PAGE_FILE
    return write_page(page, title=f"Sweep {sweep.name}", lead=lead, sections=sections)


def trials_page_table(sweep: Sweep, board: SweepBoard) -> PageTable:
    """The trials, the best first."""
    name = METRIC_NAMES[sweep.metric]
    records = sorted(board.records, key=lambda record: (-board.rank_of(record), record.number))
    columns = ["trial", *sweep.space, "seed", name, "at epoch", "epochs", "seconds", "status"]
    rows = []
    for record in records:
        best = board.best_of(record)
        is_failed = record.status == "failed"
        status = f"failed: {record.reason}" if is_failed else record.status
        rows.append(
            [
                record.name,
                *(record.point.get(key) for key in sweep.space),
                record.seed,
                best.value if best else None,
                best.epoch if best else None,
                len(record.history),
                _seconds(record),
                status,
            ]
        )
    return PageTable(caption=f"Trials by {name}, the best first", columns=columns, rows=rows)


def _points_table(sweep: Sweep, board: SweepBoard) -> PageTable:
    """Means over the seeds of each point."""
    by_point: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    for record in board.records:
        by_point[say_point(record.point)].append(record)
    rows: list[list[Any]] = []
    for point, records in by_point.items():
        values = [best.value for record in records if (best := board.best_of(record))]
        spread = stdev(values) if len(values) > 1 else None
        rows.append([point, len(values), mean(values) if values else None, spread])
    sign = 1 if sweep.metric == "loss" else -1
    rows.sort(key=lambda row: (row[2] is None, sign * (row[2] or 0.0)))
    name = METRIC_NAMES[sweep.metric]
    return PageTable(
        caption=f"{name} over seeds, the best mean first",
        columns=["point", "seeds", f"mean {name}", "standard deviation"],
        rows=rows,
    )


def _result(record: TrialRecord, board: SweepBoard) -> TrialResult:
    best = board.best_of(record)
    return TrialResult(
        name=record.name,
        point=record.point,
        status="running" if record.status == "waiting" else record.status,
        metric=best.value if best else None,
        curve=[row.get(board.key) for row in record.history],
    )


def _row(record: TrialRecord, board: SweepBoard, folder: SweepFolder) -> Mapping[str, Any]:
    best = board.best_of(record)
    at_best: Mapping[str, Any] = record.history[best.epoch - 1] if best else {}
    member = folder.member_folder(record.number)
    return {
        "trial": record.number,
        "status": record.status,
        "reason": record.reason,
        "seed": record.seed,
        "metric": best.value if best else None,
        "lrap": at_best.get("lrap"),
        "map": at_best.get("map"),
        "validation_loss": at_best.get("validation_loss"),
        "best_epoch": best.epoch if best else None,
        "epochs": len(record.history),
        "seconds": _seconds(record),
        "member": str(member) if record.status == "finished" else None,
        "point": record.point,
        "recipe": record.recipe,
        "history": record.history,
    }


def _seconds(record: TrialRecord) -> float:
    """Of its epochs, start-up not counted."""
    return float(sum(row.get("seconds", 0.0) for row in record.history))
