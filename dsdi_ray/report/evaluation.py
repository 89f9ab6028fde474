"""Evaluate a run against relevance judgements, as trec_eval does (paper section 3: mAP)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dsdi_ray.errors import DataError
from dsdi_ray.storage.run_table import RankedList, lists_of_table
from dsdi_ray.storage.trec import Qrels


@dataclass(frozen=True, kw_only=True)
class FeatureResult:
    """How well one feature was ranked.

    Attributes:
        feature_id: The feature's number as text, the topic of the qrels.
        feature: Its name, None where the run does not know it.
        num_rel: Relevant clips of the qrels.
        num_ret: Clips of the run within the cutoff.
        ap: Average precision, in [0, 1].
        chance: Expected AP of a random order, see :func:`expected_random_ap`.
    """

    feature_id: str
    feature: str | None
    num_rel: int
    num_ret: int
    ap: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a run ranked its features.

    Attributes:
        features: One result per evaluated feature, by number.
        map: Mean of their average precisions.
        chance: Mean of their chance levels.
        cutoff: Clips per feature that count.
        complete: True where features that the run lacks count as 0.
        num_clips: Clips that the run or the qrels name; what chance orders at random.
    """

    features: tuple[FeatureResult, ...]
    map: float
    chance: float
    cutoff: int
    complete: bool
    num_clips: int


def evaluate_run(
    run: pa.Table, qrels: Qrels, *, cutoff: int = 1000, complete: bool = False
) -> Evaluation:
    """Average precision per feature and their mean, computed by trec_eval's code (ir-measures).

    The order is that of the run's ranks. Clips without a judgement count as not relevant. A
    feature that is judged but has no relevant clip has AP 0 and counts, as in trec_eval.

    Args:
        run: A table of ``RUN_SCHEMA``.
        qrels: Judgements per topic; a topic is the number of a feature.
        cutoff: Clips per feature that count (``trec_eval -M``).
        complete: Average over all topics of the qrels, those that the run lacks as 0
            (``trec_eval -c``), instead of those in both.

    Raises:
        DataError: If run and qrels have no topic in common.
        ValueError: If cutoff is below 1.
    """
    if cutoff < 1:
        raise ValueError(f"cutoff must be at least 1, got {cutoff}")
    lists = {str(one.feature_id): one for one in lists_of_table(run)}
    common = lists.keys() & qrels.keys()
    if not common:
        raise DataError(
            f"run and qrels have no topic in common: the run has {_examples(lists)}, "
            f"the qrels have {_examples(qrels)}"
        )
    topics = sorted(qrels if complete else common, key=_by_number)
    ap_by_topic = _average_precisions({t: lists[t] for t in common}, qrels, cutoff=cutoff)
    num_clips = _count_clips(lists.values(), qrels)
    features = []
    for topic in topics:
        one = lists.get(topic)
        num_rel = sum(rel >= 1 for rel in qrels[topic].values())
        features.append(
            FeatureResult(
                feature_id=topic,
                feature=one.feature if one else None,
                num_rel=num_rel,
                num_ret=min(len(one), cutoff) if one else 0,
                ap=ap_by_topic.get(topic, 0.0),
                chance=expected_random_ap(num_rel, num_clips, cutoff=cutoff),
            )
        )
    return Evaluation(
        features=tuple(features),
        map=float(np.mean([f.ap for f in features])),
        chance=float(np.mean([f.chance for f in features])),
        cutoff=cutoff,
        complete=complete,
        num_clips=num_clips,
    )


def expected_random_ap(num_rel: int, num_clips: int, *, cutoff: int | None = None) -> float:
    r"""Exact expected average precision of N clips in random order, R of them relevant.

    .. math:: E = \frac{1}{N} \sum_{i=1}^{\min(N, K)} \frac{1}{i}
                  \left(1 + (i - 1) \frac{R - 1}{N - 1}\right)

    since rank i is relevant with probability R / N, and each earlier rank then with (R-1)/(N-1);
    AP divides the sum by R. It exceeds the prevalence R / N, most where R is small.

    Args:
        num_rel: R, 0 to N; with 0 the result is 0.
        num_clips: N.
        cutoff: K, ranks that count; all where None.
    """
    if not 0 <= num_rel <= num_clips:
        raise ValueError(f"num_rel must be in 0 to {num_clips}, got {num_rel}")
    if num_rel == 0:
        return 0.0
    ranks = np.arange(1, min(num_clips, cutoff or num_clips) + 1, dtype=np.float64)
    others = (num_rel - 1) / max(num_clips - 1, 1)
    return float(np.sum((1 + (ranks - 1) * others) / ranks) / num_clips)


def _average_precisions(
    lists: dict[str, RankedList], qrels: Qrels, *, cutoff: int
) -> dict[str, float]:
    import ir_measures

    # Ranks as similarities: what ties there are among scores, the run has broken already.
    scores = {
        topic: {clip_id: -float(rank) for rank, clip_id in enumerate(one.clip_ids[:cutoff])}
        for topic, one in lists.items()
    }
    judged = {topic: dict(qrels[topic]) for topic in lists}
    metrics = ir_measures.iter_calc([ir_measures.AP(rel=1)], judged, scores)
    return {metric.query_id: float(metric.value) for metric in metrics}


def _count_clips(lists: Iterable[RankedList], qrels: Qrels) -> int:
    named = {clip_id for one in lists for clip_id in one.clip_ids}
    return len(named.union(*qrels.values()))


def _by_number(topic: str) -> tuple[int, str]:
    return (int(topic) if topic.isdigit() else 2**31, topic)


def _examples(topics: Iterable[str]) -> str:
    names = sorted(topics, key=_by_number)
    listed = ", ".join(names[:3])
    return f"{listed}, ... ({len(names)})" if len(names) > 3 else listed
