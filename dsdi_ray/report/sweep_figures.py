"""Pictures of a sweep: what each hyperparameter did to the metric, and how the trials went.

The best trial is red in all of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.report.look import (
    BLUE,
    FAINT,
    INK,
    RED,
    draw_nothing,
    new_figure,
    save_figure,
    set_grid_style,
    shorten,
    write_title,
)
from dsdi_ray.report.sweep_axes import SweepAxis, TrialResult, best_trial, counted, sweep_axes
from dsdi_ray.report.sweep_curves import learning_curves
from dsdi_ray.report.sweep_parallel import parallel_coordinates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TrialResult", "learning_curves", "metric_by_hyperparameter", "parallel_coordinates"]

_MAX_COLUMNS = 3
_PANEL_INCHES = (3.5, 2.7)
_STRIP_WIDTH, _MEDIAN_WIDTH = 0.36, 0.56  # of the distance between two categories
_NUMBERS_WIDTH = 0.03  # of the panel
_MAX_LABEL_LENGTH = 22

# A finished trial is a full dot, a stopped one a hollow one.
_DOTS: dict[str, dict[str, Any]] = {
    "finished": {"marker": "o", "facecolor": BLUE, "edgecolor": BLUE},
    "stopped": {"marker": "o", "facecolor": "none", "edgecolor": BLUE},
    "failed": {"marker": "x", "color": FAINT},
    "running": {"marker": "^", "facecolor": "none", "edgecolor": FAINT},
}


def metric_by_hyperparameter(
    trials: Sequence[TrialResult], metric_name: str, path: Path, *, higher_is_better: bool = True
) -> Path:
    """Draw the metric over each hyperparameter, one small picture per hyperparameter.

    Numbers lie on a line, logarithmic where they span decades; categories are strips with their
    median marked. Dots of stopped trials are hollow.

    Args:
        trials: Those without a metric are left out and counted.
        metric_name: The metric's name.
        path: PNG to write; its folder is made.
        higher_is_better: Which trial is the best one.

    Returns:
        The path.
    """
    shown = [trial for trial in trials if trial.known_metric is not None]
    axes = sweep_axes(shown)
    best = best_trial(shown, higher_is_better=higher_is_better)
    if best is None or not axes:
        return draw_nothing(f"No trial has a value of {metric_name} to show.", path)
    num_columns = min(_MAX_COLUMNS, len(axes))
    num_rows = -(-len(axes) // num_columns)
    width = max(6.0, num_columns * _PANEL_INCHES[0] + 0.3)
    figure = new_figure(width, num_rows * _PANEL_INCHES[1] + 1.0, layout="constrained")
    write_title(figure, f"{metric_name} by hyperparameter, {counted(shown, of=trials)}")
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
    jitter = np.random.default_rng(0)
    for place, panel in enumerate(panels.flat):
        if place >= len(axes):
            panel.set_visible(False)
            continue
        _draw_panel(panel, axes[place], shown, best, jitter)
        if place % num_columns == 0:
            panel.set_ylabel(metric_name, size=9, color=FAINT, parse_math=False)
    handles = [
        panels.flat[0].scatter([], [], label=status, s=30, **dot)
        for status, dot in _DOTS.items()
        if any(trial.status == status and trial is not best for trial in shown)
    ]
    label = f"best: {shorten(best.name, _MAX_LABEL_LENGTH)}"
    handles.append(panels.flat[0].scatter([], [], s=46, color=RED, label=label))
    figure.legend(handles=handles, loc="outside lower left", ncols=5, frameon=False, fontsize=9)
    save_figure(figure, path)
    return path


def _draw_panel(
    panel: "Axes",
    axis: SweepAxis,
    trials: Sequence[TrialResult],
    best: TrialResult,
    jitter: np.random.Generator,
) -> None:
    """One hyperparameter: a dot per trial that has it."""
    having = [trial for trial in trials if axis.place(trial.point.get(axis.key)) is not None]
    step = 1 / max(1, len(axis.values) - 1)
    # Numbers of a few choices would hide each other as categories would.
    spread = _NUMBERS_WIDTH if len(axis.values) < len(having) / 3 else 0.0
    if axis.scale == "category":
        spread = _STRIP_WIDTH * step
    _draw_dots(panel, axis, having, best, spread * (jitter.random(len(having)) - 0.5))
    if axis.scale == "category":
        _mark_medians(panel, axis, having, half_width=_MEDIAN_WIDTH * step / 2)
    margin = 0.5 * step if axis.scale == "category" else 0.06
    panel.set_xlim(-margin, 1 + margin)
    set_grid_style(panel)
    _label_places(panel, axis)
    absent = len(trials) - len(having)
    scale = " (log scale)" if axis.scale == "log" else ""
    without = f"  [{absent} without]" if absent else ""
    panel.set_xlabel(f"{shorten(axis.key, 34)}{scale}{without}", size=9, parse_math=False)


def _draw_dots(
    panel: "Axes",
    axis: SweepAxis,
    trials: Sequence[TrialResult],
    best: TrialResult,
    shifts: NDArray[np.float64],
) -> None:
    """Dots of trials that have a value on an axis, a call per status: one per dot takes seconds."""
    size = float(np.clip(1500 / len(trials), 9, 32)) if trials else 0.0
    points: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for trial, shift in zip(trials, shifts.tolist(), strict=True):
        place = (axis.place(trial.point.get(axis.key)) or 0.0) + shift
        status = trial.status if trial.status in _DOTS else "running"
        points["best" if trial is best else status].append((place, trial.known_metric or 0.0))
    for status, dots in points.items():
        xs, ys = zip(*dots, strict=True)
        if status == "best":
            panel.scatter(xs, ys, s=46, color=RED, zorder=4)
        else:
            panel.scatter(xs, ys, s=size, lw=1.1, alpha=0.85, **_DOTS[status])


def _mark_medians(
    panel: "Axes", axis: SweepAxis, trials: Sequence[TrialResult], *, half_width: float
) -> None:
    for x, _ in axis.ticks():
        metrics = [t.metric for t in trials if axis.place(t.point.get(axis.key)) == x]
        if metrics:
            median = float(np.median(np.array(metrics, np.float64)))
            panel.hlines(median, x - half_width, x + half_width, color=INK, lw=2, zorder=3)


def _label_places(panel: "Axes", axis: SweepAxis) -> None:
    ticks = axis.ticks()
    labels = [shorten(label, _MAX_LABEL_LENGTH) for _, label in ticks]
    room = 36 / max(1, len(labels))  # characters per label in a panel's width
    is_tight = any(len(label) > room for label in labels)
    style: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    panel.set_xticks(
        [place for place, _ in ticks], labels, size=8, parse_math=False, **style if is_tight else {}
    )
