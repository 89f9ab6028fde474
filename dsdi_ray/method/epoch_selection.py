"""Which epoch's weights become the member."""

from collections.abc import Mapping, Sequence
from typing import Any

# What a member may be selected by -> its key in the metrics of an epoch, and 1 if more is better.
METRICS = {"lrap": ("lrap", 1), "map": ("map", 1), "loss": ("validation_loss", -1)}


def selected_epoch(history: Sequence[Mapping[str, Any]], selection: str) -> int:
    """The epoch whose weights become the member.

    Args:
        history: Metrics of each epoch, which counts from 1.
        selection: ``lrap``, ``map`` or ``loss``: where it is best, of equals the last; ``last``.
            Where the metric was never had the last epoch is taken.
    """
    last = int(history[-1]["epoch"])
    if selection == "last":
        return last
    key, sign = METRICS[selection]
    rated = [(sign * row[key], int(row["epoch"])) for row in history if row.get(key) is not None]
    return max(rated)[1] if rated else last
