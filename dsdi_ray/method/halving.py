"""Asynchronous successive halving whose decisions do not depend on who comes first in time.

Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter
Tuning") compares a trial that gets to a rung with those that got there before, so what it stops
depends on the machine's load. Here a trial is compared with those of lower numbers, whenever they
get there. A trial goes on while that is open, and is stopped at the rung in hindsight; where
the open ones cannot change the decision it is made at once. The outcome is a function of the
trials' values alone: the same after a kill, on one machine or on ten.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrialProgress:
    """What is known of a trial.

    Attributes:
        values: The metric by epoch, which counts from 1; higher is better, None where it was no
            number.
        has_ended: No further epoch comes: it is finished or failed.
    """

    values: Mapping[int, float | None]
    has_ended: bool


def rungs(num_epochs: int, *, grace_epochs: int, reduction_factor: float) -> list[int]:
    """Epochs after which trials are compared, the last epoch never among them.

    Args:
        num_epochs: Of a whole trial.
        grace_epochs: The first rung.
        reduction_factor: Each rung is so many times later than the one before.
    """
    found: list[int] = []
    place = float(grace_epochs)
    while round(place) < num_epochs:
        if not found or round(place) > found[-1]:
            found.append(round(place))
        place *= reduction_factor
    return found


def stop_epochs(
    trials: Sequence[TrialProgress], rung_epochs: Sequence[int], *, reduction_factor: float
) -> list[int | None]:
    """The rung at which each trial is stopped, as far as it is decided.

    A trial goes on from a rung if it is among the best of those of lower or the same number there:
    the best ``ceil(n / reduction_factor)`` of n. Of equal values the lower number is better.

    Args:
        trials: By number, from 0.
        rung_epochs: Ascending, see :func:`rungs`.
        reduction_factor: One in so many goes on.

    Returns:
        An epoch of ``rung_epochs``, or None for a trial that goes on or is not decided yet.
    """
    # Of each trial: whether it comes to the rung in question; None is not known yet.
    comes: list[bool | None] = [True] * len(trials)
    stopped: list[int | None] = [None] * len(trials)
    for epoch in rung_epochs:
        lower_values: list[float] = []
        num_open = 0
        for i, trial in enumerate(trials):
            if comes[i] is False:
                continue
            if epoch not in trial.values:
                # One that has not come to the rung before may never come to this one.
                comes[i] = False if trial.has_ended else None
                num_open += comes[i] is None
                continue
            value = trial.values[epoch]
            own = -math.inf if value is None or math.isnan(value) else value
            num_better = sum(other >= own for other in lower_values)
            num_known = len(lower_values) + 1
            if comes[i] is None:
                num_open += 1
                goes_on = None
            else:
                goes_on = _goes_on(num_better, num_known, num_open, reduction_factor)
                lower_values.append(own)
            if goes_on is False:
                stopped[i] = epoch
            comes[i] = goes_on
    return stopped


def _goes_on(
    num_better: int, num_known: int, num_open: int, reduction_factor: float
) -> bool | None:
    """Whether a trial is among the best, whatever the open ones come to; None: it depends."""
    if num_better >= math.ceil((num_known + num_open) / reduction_factor):
        return False  # even if all open ones come and are worse
    if num_better + num_open >= math.ceil((num_known + num_open) / reduction_factor):
        return None  # if they are better
    return True
