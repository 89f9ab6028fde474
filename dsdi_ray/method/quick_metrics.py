"""The metrics of :mod:`dsdi_ray.method.metrics` for many scores of the same images.

What depends on the labels alone is worked out once. Both metrics are means, over what is present, of
a precision: of all that is scored at least as high, the part that is present too. Scores that tie
count as scikit-learn has them: all of a tie stand at its end.

Shapes: N images, C classes.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import DataError

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Judge = Callable[[Float64Array], float]
"""Scores, ``[N, C]`` -> a metric of them, higher is better."""

_PAIRS_AT_ONCE = 2**12  # of an image and a class that it shows: the comparisons stay in the cache


def mean_average_precision(present: BoolArray, columns: Sequence[int]) -> Judge:
    """Mean average precision over some classes, those without a positive left out.

    Equals the mean of :func:`dsdi_ray.method.metrics.average_precisions`.

    Args:
        present: Whether an image shows a class, ``[N, C]``.
        columns: The classes that count.

    Raises:
        DataError: If no image shows any of them.
    """
    shown = [column for column in columns if present[:, column].any()]
    if not shown:
        raise DataError("no image shows any feature, there is no average precision")
    rows = [np.flatnonzero(present[:, column]) for column in shown]

    def judge(scores: Float64Array) -> float:
        by_class = np.ascontiguousarray(scores[:, shown].T)
        ordered = np.sort(by_class, axis=1)
        total = 0.0
        for own_scores, own_order, own_rows in zip(by_class, ordered, rows, strict=True):
            positives = np.sort(own_scores[own_rows])
            at_least = len(own_order) - np.searchsorted(own_order, positives)
            present_too = len(positives) - np.searchsorted(positives, positives)
            total += float((present_too / at_least).mean())
        return total / len(shown)

    return judge


def label_ranking_average_precision(present: BoolArray, columns: Sequence[int]) -> Judge:
    """LRAP over some classes; an image that shows none of them counts as 1, as in scikit-learn.

    Equals :func:`dsdi_ray.method.metrics.lrap`.

    Args:
        present: Whether an image shows a class, ``[N, C]``.
        columns: The classes that count.

    Raises:
        DataError: If there is no image.
    """
    own = present[:, list(columns)]
    if not len(own):
        raise DataError("there is no image to rank the labels of")
    rows, places = np.nonzero(own)
    num_shown = own.sum(axis=1)
    shares = 1.0 / num_shown[rows]
    num_without = int((num_shown == 0).sum())

    def judge(scores: Float64Array) -> float:
        taken = scores[:, list(columns)]
        total = float(num_without)
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            own_rows = rows[part]
            is_at_least = taken[own_rows] >= taken[own_rows, places[part]][:, None]
            at_least = is_at_least.sum(axis=1)
            present_too = (is_at_least & own[own_rows]).sum(axis=1)
            total += float((shares[part] * present_too / at_least).sum())
        return total / len(own)

    return judge


METRICS: Mapping[str, Callable[[BoolArray, Sequence[int]], Judge]] = {
    "map": mean_average_precision,
    "lrap": label_ranking_average_precision,
}
