"""Pool the frames of a clip into one score per class (paper section 2.5).

Every pool works on probabilities in [0, 1], ``[T, C] -> [C]``, and gives a probability again. The
paper's is :func:`max_pool`, the largest sigmoid output of any frame.

T: frames of one clip. C: classes.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import ConfigError

FloatArray = NDArray[np.floating]
Float64Array = NDArray[np.float64]


def max_pool(probs: FloatArray) -> Float64Array:
    """Largest probability of any frame (paper section 2.5), ``[T, C] -> [C]``."""
    pooled: Float64Array = np.asarray(probs, np.float64).max(axis=0)
    return pooled


def mean_pool(probs: FloatArray) -> Float64Array:
    """Mean over frames, ``[T, C] -> [C]``: how much of the clip shows the class."""
    pooled: Float64Array = np.asarray(probs, np.float64).mean(axis=0)
    return pooled


def topk_mean_pool(probs: FloatArray, *, k: int = 5) -> Float64Array:
    """Mean of the k largest probabilities per class, ``[T, C] -> [C]``; of all where T < k.

    One wrong frame moves it k times less than it moves the maximum.

    Args:
        probs: In [0, 1], ``[T, C]``.
        k: How many frames count, from 1 (the maximum).
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    pooled: Float64Array = np.sort(np.asarray(probs, np.float64), axis=0)[-k:].mean(axis=0)
    return pooled


def logsumexp_pool(probs: FloatArray, *, sharpness: float = 10.0) -> Float64Array:
    r"""Smooth maximum (Pinheiro & Collobert 2015, Eq. 6), ``[T, C] -> [C]``.

    .. math:: s = \frac{1}{r} \log \frac{1}{T} \sum_{t=1}^{T} e^{r p_t}

    It lies between the mean (r -> 0) and the maximum (r -> infinity); the space is that of
    probabilities, not of logits.

    Args:
        probs: In [0, 1], ``[T, C]``.
        sharpness: r, above 0.
    """
    if not sharpness > 0:
        raise ValueError(f"sharpness must be above 0, got {sharpness}")
    wide = np.asarray(probs, np.float64)
    largest: Float64Array = wide.max(axis=0)
    mean: Float64Array = np.exp(sharpness * (wide - largest)).mean(axis=0)
    return largest + np.log(mean) / sharpness


POOLS: Mapping[str, Callable[[FloatArray], Float64Array]] = {
    "max": max_pool,
    "mean": mean_pool,
    "topk_mean": topk_mean_pool,
    "logsumexp": logsumexp_pool,
}


def pool_clip(probs: FloatArray, pool: str = "max") -> Float64Array:
    """Pool a clip's frames with a pool of :data:`POOLS`.

    Args:
        probs: Probabilities in [0, 1], ``[T, C]``, T from 1.
        pool: Key of :data:`POOLS`; the paper's is ``max``.

    Returns:
        One score per class, ``[C]``, float64.

    Raises:
        ConfigError: If there is no such pool.
        ValueError: If there is no frame.
    """
    check_pool(pool)
    _check_frames(probs)
    return POOLS[pool](probs)


def check_pool(pool: str) -> None:
    """Refuse what is no key of :data:`POOLS`.

    Raises:
        ConfigError: Naming those that are.
    """
    if pool not in POOLS:
        raise ConfigError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")


def peak_frame(probs: FloatArray) -> NDArray[np.int64]:
    """Where each class peaks: the first frame of the largest probability, ``[T, C] -> [C]``.

    Raises:
        ValueError: If there is no frame.
    """
    _check_frames(probs)
    frames: NDArray[np.int64] = np.argmax(probs, axis=0).astype(np.int64)
    return frames


def _check_frames(probs: FloatArray) -> None:
    if probs.ndim != 2 or not len(probs):
        raise ValueError(f"probs must be [T, C] with T from 1, got shape {probs.shape}")
