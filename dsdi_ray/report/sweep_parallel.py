"""Parallel coordinates of a sweep: every trial is a line across its hyperparameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsdi_ray.report.look import (
    FAINT,
    INK,
    RED,
    draw_nothing,
    new_figure,
    save_figure,
    shorten,
)
from dsdi_ray.report.sweep_axes import MISSING, SweepAxis, TrialResult, best_trial, sweep_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_AXIS_DISTANCE_INCHES, _HEIGHT_INCHES = 1.55, 5.2
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.25, 1.0, 1.05, 0.25  # margins in inches
_MISSING_PLACE = -0.13  # below the axis, which goes from 0 to 1
_BAD_TO_GOOD = ("#cdd6e4", "#7aa5f0", "#2563eb", "#172554")
_MAX_LABEL_LENGTH = 16
_STRIP_INCHES = 0.07  # the colours along the axis of the metric


def parallel_coordinates(
    trials: Sequence[TrialResult], metric_name: str, path: Path, *, higher_is_better: bool = True
) -> Path:
    """Draw each trial as a line across an axis per hyperparameter, and last the metric's.

    Lines are the darker the better; the best one is bold and red; they get thinner the more there
    are. A value that a trial lacks lies at "-" below the axis; a trial without a metric is grey.

    Args:
        trials: Of any status.
        metric_name: The metric's name.
        path: PNG to write; its folder is made.
        higher_is_better: Which trial is the best one.

    Returns:
        The path.
    """
    axes = sweep_axes(trials)
    best = best_trial(trials, higher_is_better=higher_is_better)
    if best is None or not axes:
        return draw_nothing(f"No trial has a value of {metric_name} to show.", path)
    metrics = sorted({t.known_metric for t in trials if t.known_metric is not None})
    axes.append(SweepAxis(key=metric_name, scale="linear", values=tuple(metrics)))
    sign = 1.0 if higher_is_better else -1.0
    worst_first = sorted(
        trials,
        key=lambda t: (t is best, t.known_metric is not None, sign * (t.known_metric or 0.0)),
    )
    places = [_places(trial, axes) for trial in worst_first]
    width = max(6.0, _LEFT + _RIGHT + _AXIS_DISTANCE_INCHES * (len(axes) - 1))
    figure = new_figure(width, _HEIGHT_INCHES)
    shares = _LEFT / width, _BOTTOM / _HEIGHT_INCHES, (_LEFT + _RIGHT) / width
    canvas = figure.add_axes(
        (shares[0], shares[1], 1 - shares[2], 1 - (_TOP + _BOTTOM) / _HEIGHT_INCHES)
    )
    colours = _colours(higher_is_better=higher_is_better)
    _draw_lines(canvas, worst_first, places, best, colours)
    for x, axis in enumerate(axes):
        lacking = any(row[x] == _MISSING_PLACE for row in places)
        _draw_axis(canvas, axis, x, num_axes=len(axes), has_missing=lacking)
    inches_per_axis = (width - _LEFT - _RIGHT) / (len(axes) - 1)
    _draw_colours(canvas, colours, x=len(axes) - 1, width=_STRIP_INCHES / inches_per_axis)
    canvas.set_xlim(0, len(axes) - 1)
    canvas.set_ylim(_MISSING_PLACE - 0.04, 1.02)
    canvas.axis("off")
    count = "1 trial" if len(trials) == 1 else f"{len(trials)} trials"
    _write_heads(
        figure, f"{metric_name} of {count}", f"best: {shorten(best.name, 22)}, {best.metric:.3f}"
    )
    save_figure(figure, path)
    return path


def _places(trial: TrialResult, axes: Sequence[SweepAxis]) -> list[float]:
    """Where a trial crosses each axis, the last of which is the metric's."""
    values = [*(trial.point.get(axis.key) for axis in axes[:-1]), trial.known_metric]
    found = [axis.place(value) for axis, value in zip(axes, values, strict=True)]
    return [_MISSING_PLACE if place is None else place for place in found]


def _draw_lines(
    canvas: "Axes",
    trials: Sequence[TrialResult],
    places: Sequence[Sequence[float]],
    best: TrialResult,
    colours: "Colormap",
) -> None:
    width = float(np.clip(45 / len(trials), 0.5, 1.8))
    opacity = float(np.clip(40 / len(trials), 0.45, 0.9))
    for trial, row in zip(trials, places, strict=True):
        xs = range(len(row))
        if trial is best:
            canvas.plot(xs, row, color=RED, lw=3.4, zorder=4, clip_on=False)
        elif trial.known_metric is None:
            canvas.plot(xs, row, color=FAINT, lw=width, alpha=0.4, ls=":", clip_on=False)
        else:
            colour = colours(row[-1])
            canvas.plot(xs, row, color=colour, lw=width, alpha=opacity, clip_on=False)


def _draw_axis(
    canvas: "Axes", axis: SweepAxis, x: int, *, num_axes: int, has_missing: bool
) -> None:
    canvas.plot([x, x], [0, 1], color=INK, lw=1, zorder=5, clip_on=False)
    ticks = axis.ticks()
    if has_missing:
        ticks = [*ticks, (_MISSING_PLACE, MISSING)]
        canvas.plot([x, x], [_MISSING_PLACE, 0], color=INK, lw=0.8, ls=":", zorder=5, clip_on=False)
    side = -1 if x == 0 else 1  # outside at both ends, else to the right
    gap = 9 if x == num_axes - 1 else 5
    for place, label in ticks:
        canvas.plot([x], [place], marker="_", color=INK, ms=6, zorder=5, clip_on=False)
        canvas.annotate(
            shorten(label, _MAX_LABEL_LENGTH),
            (x, place),
            xytext=(side * gap, 0),
            textcoords="offset points",
            ha="right" if side < 0 else "left",
            va="center",
            size=13 if label == MISSING else 8,
            color=INK,
            zorder=6,
            annotation_clip=False,
            parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )
    group, dot, name = axis.key.rpartition(".")
    lines = [shorten(part, 20) for part in (f"{group}{dot}", name) if part]
    canvas.text(
        x, 1.06, "\n".join(lines), ha="center", va="bottom", size=9, weight="bold", color=INK,
        parse_math=False,
    )  # fmt: skip


def _draw_colours(canvas: "Axes", colours: "Colormap", *, x: float, width: float) -> None:
    """Along the metric's axis, the colours of its values."""
    gradient = np.linspace(0, 1, 256)[:, None]
    extent = (x, x + width, 0, 1)
    canvas.imshow(
        gradient, cmap=colours, aspect="auto", origin="lower", extent=extent, clip_on=False
    )


def _write_heads(figure: "Figure", text: str, about_best: str) -> None:
    width, height = figure.get_size_inches()
    style: dict[str, Any] = {"weight": "bold", "va": "center", "parse_math": False}
    y = 1 - 0.27 / height
    figure.text(0.15 / width, y, text, size=13, color=INK, **style)
    figure.text(1 - 0.15 / width, y, about_best, size=10, ha="right", color=RED, **style)


def _colours(*, higher_is_better: bool) -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    colours = _BAD_TO_GOOD if higher_is_better else _BAD_TO_GOOD[::-1]
    return LinearSegmentedColormap.from_list("bad to good", colours)
