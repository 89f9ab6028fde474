"""How one run differs from another: which clips entered the top k, left it, rose or fell.

A clip may be in one run alone: its footage arrived or is gone, or it lies beyond what the run
lists. Such a clip can enter or leave the top k, but it neither rises nor falls, and it moves no
other: places are counted among the clips that both runs list, so that ten new clips above an old
one are no fall of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

RankedScores = Mapping[int, Mapping[str, float]]
"""A run as feature_id -> clip_id -> score, each feature's clips best first."""


@dataclass(frozen=True, kw_only=True)
class ClipMove:
    """Where a clip stands for a feature in two runs.

    Attributes:
        clip_id: Its name.
        rank_before: From 1, None where the run before does not list it.
        rank_after: From 1, None where the run after does not list it.
        score_before: Its confidence, None likewise.
        score_after: Its confidence, None likewise.
        places_risen: Places won among the clips that both runs list, negative where it fell; None
            where one run does not list it.
    """

    clip_id: str
    rank_before: int | None
    rank_after: int | None
    score_before: float | None
    score_after: float | None
    places_risen: int | None

    @property
    def score_change(self) -> float | None:
        """After less before, None where one run does not list it."""
        if self.score_before is None or self.score_after is None:
            return None
        return self.score_after - self.score_before


@dataclass(frozen=True, kw_only=True)
class FeatureChanges:
    """How a feature's ranking changed, as far as its top k goes.

    Attributes:
        feature_id: The feature's number.
        entered: Clips of the top k after that were not in it before, by rank.
        left: Clips of the top k before that are no longer in it, by their rank before.
        risen: Clips of either top k that won places, most first.
        fallen: Clips of either top k that lost places, most first.
        overlap: Share of the larger top k that both have, 0 to 1; 1 where both are empty.
        kendall_tau: Kendall's tau of the clips of either top k that both runs list, -1 to 1: 1
            for the same order, -1 for its reverse; None for fewer than two such clips.
    """

    feature_id: int
    entered: tuple[ClipMove, ...]
    left: tuple[ClipMove, ...]
    risen: tuple[ClipMove, ...]
    fallen: tuple[ClipMove, ...]
    overlap: float
    kendall_tau: float | None


def compare_runs(
    before: RankedScores, after: RankedScores, *, top_k: int
) -> dict[int, FeatureChanges]:
    """Compare two runs feature by feature; a feature that a run lacks is an empty list there.

    Args:
        before: The earlier run.
        after: The later run.
        top_k: Clips per feature that count as the top, from 1.

    Returns:
        Changes of each feature of either run, by number.

    Raises:
        ValueError: If top_k is below 1, or a run's clips are not best first.
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    return {
        feature_id: _compare(
            feature_id, before.get(feature_id, {}), after.get(feature_id, {}), top_k
        )
        for feature_id in sorted(before.keys() | after.keys())
    }


def _compare(
    feature_id: int, before: Mapping[str, float], after: Mapping[str, float], top_k: int
) -> FeatureChanges:
    _check_order(feature_id, before)
    _check_order(feature_id, after)
    top_before = dict.fromkeys(list(before)[:top_k])
    top_after = dict.fromkeys(list(after)[:top_k])
    moves = _moves(before, after, top_after | top_before)
    in_both = [move for move in moves.values() if move.places_risen is not None]
    moved = sorted(in_both, key=lambda move: (-abs(move.places_risen or 0), move.clip_id))
    largest = max(len(top_before), len(top_after))
    return FeatureChanges(
        feature_id=feature_id,
        entered=tuple(moves[clip_id] for clip_id in top_after if clip_id not in top_before),
        left=tuple(moves[clip_id] for clip_id in top_before if clip_id not in top_after),
        risen=tuple(move for move in moved if (move.places_risen or 0) > 0),
        fallen=tuple(move for move in moved if (move.places_risen or 0) < 0),
        overlap=len(top_before.keys() & top_after.keys()) / largest if largest else 1.0,
        kendall_tau=_kendall_tau(in_both),
    )


def _moves(
    before: Mapping[str, float], after: Mapping[str, float], clip_ids: Mapping[str, None]
) -> dict[str, ClipMove]:
    ranks_before, ranks_after = _ranks(list(before)), _ranks(list(after))
    common_before = _ranks([clip_id for clip_id in before if clip_id in after])
    common_after = _ranks([clip_id for clip_id in after if clip_id in before])
    return {
        clip_id: ClipMove(
            clip_id=clip_id,
            rank_before=ranks_before.get(clip_id),
            rank_after=ranks_after.get(clip_id),
            score_before=before.get(clip_id),
            score_after=after.get(clip_id),
            places_risen=common_before[clip_id] - common_after[clip_id]
            if clip_id in common_before
            else None,
        )
        for clip_id in clip_ids
    }


def _ranks(clip_ids: Sequence[str]) -> dict[str, int]:
    return {clip_id: rank for rank, clip_id in enumerate(clip_ids, start=1)}


def _kendall_tau(moves: Sequence[ClipMove]) -> float | None:
    if len(moves) < 2:
        return None
    from scipy.stats import kendalltau

    before, after = [m.rank_before for m in moves], [m.rank_after for m in moves]
    return float(kendalltau(before, after).statistic)


def _check_order(feature_id: int, scores: Mapping[str, float]) -> None:
    for above, below in pairwise(scores.values()):
        if not above >= below:
            raise ValueError(
                f"feature {feature_id}: clips must be best first, got {above} before {below}"
            )
