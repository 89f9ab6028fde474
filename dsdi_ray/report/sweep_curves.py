"""Learning curves of a sweep's trials."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsdi_ray.report.look import (
    BLUE,
    FAINT,
    RED,
    draw_nothing,
    new_figure,
    save_figure,
    set_grid_style,
    shorten,
    write_title,
)
from dsdi_ray.report.sweep_axes import TrialResult, best_trial, counted, is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_LABEL_LENGTH = 22

# A curve that was cut off ends with a mark.
_ENDS: dict[str, dict[str, Any]] = {
    "finished": {"color": BLUE, "marker": ""},
    "stopped": {"color": FAINT, "marker": "|"},
    "failed": {"color": FAINT, "marker": "x"},
    "running": {"color": FAINT, "marker": ">"},
}


def learning_curves(
    trials: Sequence[TrialResult], metric_name: str, path: Path, *, higher_is_better: bool = True
) -> Path:
    """Draw the metric over the epochs, a line per trial; lines get thinner the more there are.

    Trials that were stopped, failed or still run end with a mark.

    Args:
        trials: Those without a curve are left out and counted.
        metric_name: The metric's name.
        path: PNG to write; its folder is made.
        higher_is_better: Which trial is the best one.

    Returns:
        The path.
    """
    from matplotlib.ticker import MaxNLocator

    shown = [trial for trial in trials if any(is_number(value) for value in trial.curve)]
    if not shown:
        return draw_nothing(f"No trial has reported {metric_name} yet.", path)
    best = best_trial(shown, higher_is_better=higher_is_better)
    figure = new_figure(9.0, 4.8, layout="constrained")
    write_title(figure, f"{metric_name} by epoch, {counted(shown, of=trials)}")
    axes = figure.subplots()
    set_grid_style(axes)
    width = float(np.clip(30 / len(shown), 0.5, 1.5))
    opacity = float(np.clip(25 / len(shown), 0.3, 0.85))
    for trial in shown:
        if trial is not best:
            _draw_curve(axes, trial, lw=width, alpha=opacity)
    if best is not None:
        _draw_curve(axes, best, lw=2.4, color=RED, zorder=4)
        _label_end(axes, best)
    longest = max(_known_points(trial)[0][-1] for trial in shown)
    axes.set_xlim(1 - 0.02 * longest - 0.1, longest + 0.08 * longest + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", size=9, color=FAINT)
    axes.set_ylabel(metric_name, size=9, color=FAINT, parse_math=False)
    for status, end in _ENDS.items():
        if any(trial.status == status and trial is not best for trial in shown):
            axes.plot([], [], label=status, ms=6, **end)
    if best is not None:
        label = f"best: {shorten(best.name, _MAX_LABEL_LENGTH)}, {best.metric:.3f}"
        axes.plot([], [], color=RED, lw=2.4, label=label)
    figure.legend(loc="outside lower left", ncols=5, frameon=False, fontsize=9)
    save_figure(figure, path)
    return path


def _draw_curve(axes: "Axes", trial: TrialResult, **style: Any) -> None:
    epochs, values = _known_points(trial)
    end = _ENDS.get(trial.status, _ENDS["running"])
    look = {"color": end["color"], **style}
    axes.plot(epochs, values, marker="." if len(epochs) == 1 else "", **look)
    if end["marker"]:
        axes.plot(
            epochs[-1:], values[-1:], **{**look, "lw": 0}, marker=end["marker"], ms=7, mew=1.5
        )


def _label_end(axes: "Axes", trial: TrialResult) -> None:
    epochs, values = _known_points(trial)
    axes.annotate(
        shorten(trial.name, _MAX_LABEL_LENGTH),
        (epochs[-1], values[-1]),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        size=9,
        weight="bold",
        color=RED,
        parse_math=False,
    )


def _known_points(trial: TrialResult) -> tuple[list[int], list[float]]:
    """Epochs, from 1, that have a value of the metric, and the values."""
    known = [(epoch, v) for epoch, v in enumerate(trial.curve, start=1) if is_number(v)]
    return [epoch for epoch, _ in known], [float(value) for _, value in known]
