"""The trials of a sweep as plain data, and the axes that their hyperparameters lie on."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

MISSING = "-"
_MIN_RATIO_OF_LOG = 30.0  # values one and a half decades apart
_MAX_LABELLED_VALUES, _MIN_LABEL_DISTANCE = 6, 0.12


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial of a sweep.

    Attributes:
        name: What the trial is called, such as ``007``.
        point: Its hyperparameters, dotted key -> value; a key may be absent.
        status: ``finished``, ``stopped`` (early), ``failed`` or ``running``.
        metric: The best value of the sweep's metric so far, None where there is none.
        curve: The metric per epoch, from epoch 1; None where an epoch has none.
    """

    name: str
    point: Mapping[str, object]
    status: str
    metric: float | None
    curve: Sequence[float | None]

    @property
    def known_metric(self) -> float | None:
        """The metric, None where it is no finite number."""
        return self.metric if is_number(self.metric) else None


@dataclass(frozen=True, kw_only=True)
class SweepAxis:
    """A hyperparameter as an axis from 0 to 1.

    Attributes:
        key: Its dotted key.
        scale: ``category`` or a key of :data:`SCALES`.
        values: Distinct values, ascending; those of a category as text.
    """

    key: str
    scale: str
    values: tuple[Any, ...]

    def place(self, value: Any) -> float | None:
        """Where a value lies, 0 for the first and 1 for the last; None where it is missing."""
        if is_missing(value):
            return None
        if self.scale == "category":
            return _share(self.values.index(as_text(value)), 0, len(self.values) - 1)
        transform = SCALES[self.scale]
        ends = transform(float(self.values[0])), transform(float(self.values[-1]))
        return _share(transform(float(value)), *ends)

    def ticks(self) -> list[tuple[float, str]]:
        """Places to label, with their labels."""
        values = self.values
        if self.scale != "category" and not self._are_few_and_apart():
            values = _round_values(self.scale, float(values[0]), float(values[-1]))
        return [(self.place(v) or 0.0, self._label(v)) for v in values]

    def _are_few_and_apart(self) -> bool:
        places = [self.place(value) or 0.0 for value in self.values[: _MAX_LABELLED_VALUES + 1]]
        is_few = len(self.values) <= _MAX_LABELLED_VALUES
        return is_few and bool((np.diff(places) >= _MIN_LABEL_DISTANCE).all())

    def _label(self, value: float | str) -> str:
        if isinstance(value, str):
            return value
        return f"{value:.7g}" if self.scale == "near_one" else f"{value:.4g}"


SCALES: Mapping[str, Callable[[float], float]] = {
    "linear": float,
    "log": math.log10,
    # For values such as 0.99, 0.999, 0.9999, which differ in their distance to 1.
    "near_one": lambda value: -math.log10(1 - value),
}


def sweep_axes(trials: Sequence[TrialResult]) -> list[SweepAxis]:
    """An axis per hyperparameter that any trial has a value of, in the order of their keys' use."""
    keys = dict.fromkeys(key for trial in trials for key in trial.point)
    axes = (axis_of(key, [trial.point.get(key) for trial in trials]) for key in keys)
    return [axis for axis in axes if axis is not None]


def best_trial(trials: Sequence[TrialResult], *, higher_is_better: bool) -> TrialResult | None:
    """The trial of the best metric, the first of several; None where no trial has one."""
    known = [trial for trial in trials if trial.known_metric is not None]
    sign = 1.0 if higher_is_better else -1.0
    return max(known, key=lambda trial: sign * (trial.known_metric or 0.0), default=None)


def counted(shown: Sequence[TrialResult], *, of: Sequence[TrialResult]) -> str:
    """How many trials are shown, and how many are not since they lack the metric."""
    text = "1 trial" if len(shown) == 1 else f"{len(shown)} trials"
    left_out = len(of) - len(shown)
    return f"{text}, {left_out} without it" if left_out else text


def axis_of(key: str, values: Sequence[object]) -> SweepAxis | None:
    """The axis that suits some values; None where all of them are missing.

    Numbers lie on a line, a logarithmic one where they span decades, or where their distances to
    1 do; values of which any is no number are categories.
    """
    present = [value for value in values if not is_missing(value)]
    if not present:
        return None
    if not all(is_number(value) for value in present):
        texts = tuple(sorted({as_text(value) for value in present}))
        return SweepAxis(key=key, scale="category", values=texts)
    numbers = tuple(sorted({float(value) for value in present if is_number(value)}))
    return SweepAxis(key=key, scale=_scale_of(numbers[0], numbers[-1]), values=numbers)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(value)


def is_missing(value: object) -> bool:
    """Whether a hyperparameter has no value: absent, None, or not a number."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def as_text(value: object) -> str:
    """A category's name, as a YAML file has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scale_of(low: float, high: float) -> str:
    if low > 0 and high / low >= _MIN_RATIO_OF_LOG:
        return "log"
    if 0 < low < high < 1 and (1 - low) / (1 - high) >= _MIN_RATIO_OF_LOG:
        return "near_one"
    return "linear"


def _round_values(scale: str, low: float, high: float) -> tuple[float, ...]:
    """Round values within a range, its ends where there are no two of them."""
    from matplotlib.ticker import MaxNLocator

    if scale == "linear":
        found = [float(value) for value in MaxNLocator(4).tick_values(low, high)]
    else:
        transform = SCALES[scale]
        first, last = math.ceil(transform(low) - 1e-9), math.floor(transform(high) + 1e-9)
        step = 1 + (last - first) // _MAX_LABELLED_VALUES
        powers = range(first, last + 1, step)
        found = [10.0**k if scale == "log" else 1 - 10.0**-k for k in powers]
    slack = 1e-9 * (high - low)
    inside = tuple(value for value in found if low - slack <= value <= high + slack)
    return inside if len(inside) >= 2 else (low, high)


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if low == high else (value - low) / (high - low)
