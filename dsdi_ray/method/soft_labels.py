"""Crowd answers as soft labels (paper section 2.1, Figure 1)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def encode_soft_labels(answer_counts: ArrayLike) -> NDArray[np.float32]:
    r"""Divide an image's counts by the largest of them (paper section 2.1).

    .. math:: y_i = n_i / \max_j n_j

    Figure 1: four answers for flood, one for smoke, one for none give 1.0, 0.25, 0.25.

    Args:
        answer_counts: How many workers gave each class, ``[..., C]``, not negative.

    Returns:
        Soft labels in [0, 1], ``[..., C]``; zeros where no class was given.

    Raises:
        ValueError: If a count is negative or not finite.
    """
    counts = np.asarray(answer_counts, dtype=np.float64)
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("answer_counts must be finite and not negative")
    largest = counts.max(axis=-1, keepdims=True, initial=0)
    return np.asarray(counts / np.where(largest > 0, largest, 1), dtype=np.float32)
