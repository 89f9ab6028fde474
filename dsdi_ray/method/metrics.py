"""Metrics of multi-label predictions on a validation part."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

FloatArray = NDArray[np.floating]


def lrap(labels: FloatArray, scores: FloatArray, *, threshold: float = 0.5) -> float:
    """Label ranking average precision, scikit-learn's (paper Table 2).

    It needs binary labels: soft labels count as present from the threshold on.

    Args:
        labels: Soft labels in [0, 1], ``[N, C]``.
        scores: Any monotone confidence, ``[N, C]``.
        threshold: Where a soft label counts as present.
    """
    return float(label_ranking_average_precision_score(labels >= threshold, scores))


def average_precisions(
    labels: FloatArray, scores: FloatArray, *, threshold: float = 0.5
) -> FloatArray:
    """Average precision per class, scikit-learn's; nan for a class with no positive.

    Args:
        labels: Soft labels in [0, 1], ``[N, C]``.
        scores: Any monotone confidence, ``[N, C]``.
        threshold: Where a soft label counts as present.

    Returns:
        ``[C]``.
    """
    present = labels >= threshold
    return np.array(
        [
            average_precision_score(present[:, c], scores[:, c]) if present[:, c].any() else np.nan
            for c in range(labels.shape[1])
        ]
    )
