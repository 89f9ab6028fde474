"""Pseudo-labels: what an ensemble is sure of, as labels of images that nobody has labelled.

The paper trains on LADI's 40K images with answers and leaves the other 598K unused. Self-training
makes use of them: a trained network (here an ensemble) labels them, and another is trained on both.

Shape letters: N images, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import ConfigError

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PseudoLabels:
    """Labels of images, and which of them are worth learning from.

    Attributes:
        soft_labels: Probabilities, ``[N, C]``.
        is_told: Classes that the ensemble is sure of, present or absent, ``[N, C]``; the others
            are to stay out of the loss.
        is_kept: Images that some class is surely present in, ``[N]``.
    """

    soft_labels: NDArray[np.float32]
    is_told: NDArray[np.bool_]
    is_kept: NDArray[np.bool_]


def check_thresholds(*, confident: float, reject: float) -> None:
    """Refuse thresholds that leave nothing between them, or are no probabilities.

    Raises:
        ConfigError: Unless 0 <= reject < confident <= 1.
    """
    if not 0 <= reject < confident <= 1:
        raise ConfigError(
            f"pseudo-labels need 0 <= reject < confident <= 1, got reject {reject:g}, confident "
            f"{confident:g}"
        )


def pseudo_labels(
    probs: Float64Array, *, confident: float = 0.9, reject: float = 0.1
) -> PseudoLabels:
    r"""Label images by the probabilities of an ensemble.

    .. math::
        y_i = p_i, \quad \text{told}_i = [p_i \ge c] \lor [p_i \le r], \quad
        \text{kept} = [\max_i p_i \ge c]

    Lee (2013, "Pseudo-Label") trains on a network's own decisions as if they were true. Noisy
    student (Xie et al. 2020, https://arxiv.org/abs/1911.04252) has a teacher label other images
    softly, drops those that it is unsure of, and trains a student on both kinds under noise. An
    image of theirs is of one class. Here each class is decided by itself: what is neither surely
    present nor surely absent is not told, and an image without anything surely present would teach
    absences alone.

    Args:
        probs: In [0, 1], ``[N, C]``.
        confident: c, from which on a class is surely present.
        reject: r, up to which it is surely absent.

    Returns:
        Labels of all N images.

    Raises:
        ConfigError: Unless 0 <= reject < confident <= 1.
        ValueError: If probs are not [N, C] or no probabilities.
    """
    check_thresholds(confident=confident, reject=reject)
    if probs.ndim != 2 or not ((probs >= 0) & (probs <= 1)).all():
        raise ValueError(f"probs must be [N, C] and in [0, 1], got shape {probs.shape}")
    is_present = probs >= confident
    return PseudoLabels(
        soft_labels=probs.astype(np.float32),
        is_told=is_present | (probs <= reject),
        is_kept=np.asarray(is_present.any(axis=1)),
    )


def surest_images(probs: Float64Array, *, confident: float, max_images: int) -> NDArray[np.int64]:
    """Choose images where there may be only so many, a fair share of each class.

    Each class lists the images that it is surely present in, the surest first; an image counts by
    its best place in any list. So every class has its turn, as noisy student levels its classes.

    Args:
        probs: In [0, 1], ``[N, C]``.
        confident: From which on a class is surely present.
        max_images: How many at most.

    Returns:
        Places of the images, ascending; only of such as have a class that is surely present.
    """
    num_images = len(probs)
    place = np.full(probs.shape, num_images, np.int64)
    for c in range(probs.shape[1]):
        sure = np.flatnonzero(probs[:, c] >= confident)
        place[sure[np.argsort(-probs[sure, c], kind="stable")], c] = np.arange(len(sure))
    best = place.min(axis=1, initial=num_images)
    in_turn = np.lexsort((place.argmin(axis=1), best))
    return np.sort(in_turn[best[in_turn] < num_images][:max_images])
