"""Crowd answers as soft labels (paper section 2.1, Figure 1).

Shape letters: N images, C classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def encode_soft_labels(answer_counts: ArrayLike) -> NDArray[np.float32]:
    r"""Divide how often each class was named by the largest count of the image.

    .. math:: y_i = n_i / \max_j n_j

    Figure 1's image, with four answers of flood/water and one each of smoke/fire and damage:none,
    becomes 1.0, 0.25 and 0.25; all other classes are 0. An image of which no class was named
    stays all zeros.

    Args:
        answer_counts: Workers who named each class, ``[..., C]``, finite and not negative.

    Returns:
        Soft labels in [0, 1], ``[..., C]``; the largest of a vector is 1 unless all are 0.

    Raises:
        ValueError: If a count is negative or not finite, or there is no class axis.
    """
    counts = np.asarray(answer_counts, dtype=np.float64)
    if counts.ndim == 0 or counts.shape[-1] == 0:
        raise ValueError(f"answer_counts must be [..., C] with C >= 1, got shape {counts.shape}")
    bad = counts[~(np.isfinite(counts) & (counts >= 0))]
    if bad.size:
        raise ValueError(f"answer_counts must be finite and not negative, got {bad[0]}")
    largest = counts.max(axis=-1, keepdims=True)
    soft = np.zeros(counts.shape, dtype=np.float32)
    np.divide(counts, largest, out=soft, where=largest > 0, casting="same_kind")
    return soft


def encode_per_category(answer_counts: ArrayLike, categories: Sequence[str]) -> NDArray[np.float32]:
    r"""Divide how often each class was named by the largest count of its category.

    .. math:: y_i = n_i / \max_{j: c_j = c_i} n_j

    One task asks about one category, so counts of different categories need not be comparable:
    in the paper's encoding a category that more workers were asked about outshines the others.

    Args:
        answer_counts: Workers who named each class, ``[..., C]``, finite and not negative.
        categories: Of each class, ``[C]``.

    Returns:
        Soft labels in [0, 1], ``[..., C]``; the largest of a category is 1 unless all are 0.

    Raises:
        ValueError: If a count is negative or not finite, or there are not C categories.
    """
    counts = np.asarray(answer_counts, dtype=np.float64)
    if counts.shape[-1:] != (len(categories),):
        raise ValueError(
            f"answer_counts must be [..., {len(categories)}] like categories, got {counts.shape}"
        )
    soft = np.zeros(counts.shape, dtype=np.float32)
    names = np.asarray(categories)
    for category in dict.fromkeys(categories):
        members = names == category
        soft[..., members] = encode_soft_labels(counts[..., members])
    return soft


def majority_labels(
    answer_counts: NDArray[np.integer], num_asked: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Classes that more than half of the workers named who were asked about their category.

    Args:
        answer_counts: Workers who named each class, ``[..., C]``.
        num_asked: Workers who were asked about it, ``[..., C]``.

    Returns:
        ``[..., C]``; False where nobody was asked.
    """
    return np.asarray(2 * answer_counts > num_asked, dtype=np.bool_)


def count_labels(labels: NDArray[np.floating], *, threshold: float = 0.5) -> NDArray[np.int64]:
    """In how many images each class is present: n_y of Eq. 3 where Table 1 is of other data.

    Table 1 itself counts answers, several per image.

    Args:
        labels: Soft labels, ``[N, C]``.
        threshold: A class is present from this label on.

    Returns:
        ``[C]``.
    """
    return np.asarray((labels >= threshold).sum(axis=0), dtype=np.int64)
