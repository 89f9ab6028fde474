"""Ensemble members over frames and fuse runs of several systems (paper section 2.5, Table 3).

Everything is computed in float64 in the order given, so the same logits and weights give the same
bits. M: members. T: frames of one clip. C: classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.pooling import check_pool, peak_frame, pool_clip
from dsdi_ray.method.ranking import rank_clips

FloatArray = NDArray[np.floating]
Float64Array = NDArray[np.float64]
RunScores = Mapping[int, Mapping[str, float]]
"""A run as scores: feature_id -> clip_id -> score."""

ORDERS = ("frame_first", "clip_first")


@dataclass(frozen=True, kw_only=True)
class ClipScores:
    """What the frames of one clip come to.

    Attributes:
        scores: The clip's confidence per class, ``[C]``, float64.
        peak_frame: The first frame at which the ensemble is most sure of the class, ``[C]``.
    """

    scores: Float64Array
    peak_frame: NDArray[np.int64]


def sigmoid(logits: FloatArray) -> Float64Array:
    """Sigmoid in float64 without overflow, any shape.

    In float32 it is 1.0 from a logit of 17 on, and sure clips would tie; in float64 from 37 on.
    """
    wide = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(wide))
    return np.where(wide >= 0, 1.0, small) / (1.0 + small)


def ensemble_frames(logits: FloatArray, weights: FloatArray) -> Float64Array:
    """Weighted mean of the members' sigmoid outputs per frame (paper section 2.5: equal weights).

    Args:
        logits: Before the sigmoid, ``[M, T, C]``.
        weights: Weight of each member, ``[M]``, from 0, not all 0; only their ratios matter.

    Returns:
        Probabilities, ``[T, C]``.

    Raises:
        ValueError: If shapes differ or weights are out of range.
    """
    shares = _shares(weights, len(logits))
    return _weighted_sum([sigmoid(member) for member in logits], shares)


def check_pooling(*, pool: str, order: str = "frame_first") -> None:
    """Refuse a way to score clips before any is scored.

    Raises:
        ConfigError: If there is no such order or pool.
    """
    if order not in ORDERS:
        raise ConfigError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    check_pool(pool)


def clip_scores(
    logits: FloatArray, weights: FloatArray, *, order: str = "frame_first", pool: str = "max"
) -> ClipScores:
    """Score one clip with an ensemble: sigmoid, then mean over members and pool over frames.

    The paper does not say which comes first; with the maximum as the pool the two orders differ
    where members are sure at different frames.

    Args:
        logits: Before the sigmoid, ``[M, T, C]``, all members at the same frames.
        weights: Weight of each member, ``[M]``.
        order: ``frame_first`` averages the members at each frame and pools that; ``clip_first``
            pools each member and averages the pooled scores.
        pool: Key of :data:`dsdi_ray.method.pooling.POOLS`.

    Returns:
        Scores and peaks. The peak is of the averaged frames in either order.

    Raises:
        ConfigError: If there is no such order or pool.
        ValueError: If shapes differ, weights are out of range or there is no frame.
    """
    check_pooling(pool=pool, order=order)
    probs = ensemble_frames(logits, weights)
    if order == "frame_first":
        scores = pool_clip(probs, pool)
    else:
        pooled = [pool_clip(sigmoid(member), pool) for member in logits]
        scores = _weighted_sum(pooled, _shares(weights, len(logits)))
    return ClipScores(scores=scores, peak_frame=peak_frame(probs))


def fuse_runs(
    runs: Sequence[RunScores], weights: Sequence[float], *, normalisation: str = "none"
) -> dict[int, dict[str, float]]:
    """Weighted mean of the scores of several systems (paper Table 3: 2:1 and 5:1).

    A clip or a feature that a run does not list scores 0 in it.

    Args:
        runs: Scores of each system.
        weights: Weight of each run; only their ratios matter.
        normalisation: ``none`` takes scores as they are (for probabilities), ``minmax`` maps each
            list to [0, 1], ``rank`` takes 1 for the first clip of n down to 1/n for the last.

    Returns:
        Fused scores of every clip that any run lists; features and clips in ascending order.

    Raises:
        ConfigError: If there is no such normalisation.
        DataError: If a score is not finite, or negative where none are normalised: a clip that a
            run does not list would count as better.
        ValueError: If the numbers of runs and weights differ or weights are out of range.
    """
    if normalisation not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise ConfigError(f"normalisation must be one of {known}, got {normalisation!r}")
    shares = _shares(np.array(weights, np.float64), len(runs)).tolist()
    normalise = NORMALISATIONS[normalisation]
    fused: dict[int, dict[str, float]] = {}
    for place, (run, share) in enumerate(zip(runs, shares, strict=True), start=1):
        for feature_id, scores in run.items():
            _check_scores(scores, place, feature_id, may_be_negative=normalisation != "none")
            total = fused.setdefault(feature_id, {})
            for clip_id, score in normalise(scores).items():
                total[clip_id] = total.get(clip_id, 0.0) + share * score
    return {f: dict(sorted(fused[f].items())) for f in sorted(fused)}


def _as_they_are(scores: Mapping[str, float]) -> Mapping[str, float]:
    return scores


def _to_unit_range(scores: Mapping[str, float]) -> Mapping[str, float]:
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    if low == high:
        return dict.fromkeys(scores, 1.0)
    return {clip_id: (score - low) / (high - low) for clip_id, score in scores.items()}


def _by_rank(scores: Mapping[str, float]) -> Mapping[str, float]:
    clip_ids = list(scores)
    column = np.array([scores[c] for c in clip_ids], np.float64).reshape(-1, 1)
    (order,) = rank_clips(clip_ids, column)
    return {clip_ids[row]: 1.0 - place / len(order) for place, row in enumerate(order.tolist())}


NORMALISATIONS: Mapping[str, Callable[[Mapping[str, float]], Mapping[str, float]]] = {
    "none": _as_they_are,
    "minmax": _to_unit_range,
    "rank": _by_rank,
}


def _weighted_sum(arrays: Sequence[Float64Array], shares: Float64Array) -> Float64Array:
    total = np.zeros_like(arrays[0])
    for array, share in zip(arrays, shares, strict=True):
        total += share * array
    return total


def _shares(weights: FloatArray, num: int) -> Float64Array:
    """Weights divided by their sum."""
    wide = np.asarray(weights, np.float64)
    if wide.shape != (num,) or not num:
        raise ValueError(f"weights must be one per member or run ({num}), got shape {wide.shape}")
    if not np.isfinite(wide).all() or (wide < 0).any() or not wide.sum() > 0:
        raise ValueError(f"weights must be finite, from 0 and not all 0, got {wide.tolist()}")
    shares: Float64Array = wide / wide.sum()
    return shares


def _check_scores(
    scores: Mapping[str, float], place: int, feature_id: int, *, may_be_negative: bool
) -> None:
    for clip_id, score in scores.items():
        if not np.isfinite(score):
            raise DataError(
                f"run {place}, feature {feature_id}, clip {clip_id}: score must be finite, got {score}"
            )
        if score < 0 and not may_be_negative:
            raise DataError(
                f"run {place}, feature {feature_id}, clip {clip_id}: score must not be negative "
                f"without normalisation (minmax or rank), got {score}"
            )
