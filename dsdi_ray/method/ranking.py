"""Rank clips for each feature (paper section 2.5) and make similarities that no tool can reorder.

N: clips. F: features. K: clips of one ranked list.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]

# Float32 bit patterns of the smallest and the largest finite normal number.
_SMALLEST_NORMAL_BITS = 0x0080_0000
_LARGEST_BITS = 0x7F7F_FFFF
_MAX_STEP = _LARGEST_BITS - _SMALLEST_NORMAL_BITS + 1


def rank_clips(
    clip_ids: Sequence[str], scores: FloatArray, top: int | None = None
) -> list[NDArray[np.int64]]:
    """Order clips by score for each feature; ties by clip_id ascending (by code point).

    The order does not depend on the order in which the clips come.

    Args:
        clip_ids: Distinct names, N.
        scores: Higher is better, ``[N, F]``.
        top: Clips kept per feature, all where None.

    Returns:
        Per feature the rows of the best clips, best first, ``[min(top, N)]`` each.

    Raises:
        ValueError: If a score is NaN, an id repeats, or shapes or ``top`` are out of range.
    """
    if scores.ndim != 2 or len(scores) != len(clip_ids):
        raise ValueError(f"scores must be [{len(clip_ids)}, F], got shape {scores.shape}")
    if len(set(clip_ids)) != len(clip_ids):
        raise ValueError("clip_ids must be distinct")
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    if np.isnan(scores).any():
        row, feature = np.argwhere(np.isnan(scores))[0].tolist()
        raise ValueError(f"score of clip {clip_ids[row]!r}, feature column {feature}, is NaN")
    by_id = np.array(sorted(range(len(clip_ids)), key=clip_ids.__getitem__), np.int64)
    sorted_by_id = scores[by_id]
    return [
        by_id[np.argsort(-sorted_by_id[:, f], kind="stable")[:top]] for f in range(scores.shape[1])
    ]


def strictly_decreasing(scores: FloatArray) -> NDArray[np.float32]:
    """Turn a ranked list's scores into similarities that stay distinct in float32.

    trec_eval keeps similarities as float32 and breaks ties its own way, which would undo the
    ranking. In units of float32's own steps the result is as close to the scores as any strictly
    decreasing list can be (the largest deviation is minimal: half the length of the longest tie);
    scores that are distinct already stay as float32 has them. Subnormal numbers are left out of
    the steps, so a reader that flushes them to zero sees the same order.

    Args:
        scores: A ranked list's scores, never increasing, finite, ``[K]``.

    Returns:
        Strictly decreasing, finite, none subnormal, ``[K]``. They may leave [0, 1] by some steps.

    Raises:
        ValueError: If scores increase somewhere or are not finite.
    """
    wide = np.asarray(scores, np.float64)
    if wide.ndim != 1 or not np.isfinite(wide).all():
        raise ValueError("scores must be one list of finite numbers")
    if (np.diff(wide) > 0).any():
        place = int(np.argmax(np.diff(wide) > 0))
        raise ValueError(
            f"scores must never increase, got {wide[place]} then {wide[place + 1]} at rank {place + 2}"
        )
    if not len(wide):
        return np.zeros(0, np.float32)
    # y strictly decreasing <=> y + place never increasing: L-infinity isotonic regression, whose
    # solution is the middle of the running minimum from the left and maximum from the right.
    place_of = np.arange(len(wide), dtype=np.int64)
    shifted = _to_steps(wide) + place_of
    low = np.minimum.accumulate(shifted)
    high = np.maximum.accumulate(shifted[::-1])[::-1]
    middle = np.clip((low + high) // 2, len(wide) - 1 - _MAX_STEP, _MAX_STEP)
    return _from_steps(middle - place_of)


def _to_steps(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place of the nearest float32 among the normal ones, 0 for zero and subnormals."""
    largest = float(np.finfo(np.float32).max)
    narrow = np.clip(scores, -largest, largest).astype(np.float32)
    bits = np.abs(narrow).view(np.int32).astype(np.int64)
    steps = np.maximum(bits - _SMALLEST_NORMAL_BITS + 1, 0)
    return np.where(narrow < 0, -steps, steps)


def _from_steps(steps: NDArray[np.int64]) -> NDArray[np.float32]:
    size = np.abs(steps)
    bits = np.where(size > 0, size + _SMALLEST_NORMAL_BITS - 1, 0).astype(np.int32)
    magnitude = bits.view(np.float32)
    return np.where(steps < 0, -magnitude, magnitude).astype(np.float32)
