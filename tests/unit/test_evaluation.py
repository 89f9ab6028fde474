from itertools import permutations

import numpy as np
import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.report.evaluation import evaluate_run, expected_random_ap
from dsdi_ray.storage.runs import run_of_scores
from dsdi_ray.storage.trec import read_qrels, read_trec_run
from dsdi_ray.taxonomy import load_taxonomy

RUN = {
    1: {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6},
    2: {"a": 0.5, "b": 0.5},
    3: {"a": 0.5},
}
# Feature 1: relevant at ranks 1, 3 and one that is not in the run: (1/1 + 2/3 + 0) / 3.
# Feature 2: the tie is broken by clip_id, b stands at rank 2: (1/2) / 1. Feature 4: not in the run.
QRELS = {
    "1": {"a": 1, "b": 0, "c": 2, "z": 1},
    "2": {"a": 0, "b": 1},
    "4": {"a": 1, "y": 0},
}


def ap_of(evaluation):
    return {f.feature_id: f.ap for f in evaluation.features}


def test_average_precision_as_computed_by_hand():
    evaluation = evaluate_run(run_of_scores(RUN, taxonomy=load_taxonomy()), QRELS)
    assert ap_of(evaluation) == pytest.approx({"1": 5 / 9, "2": 1 / 2})
    assert evaluation.map == pytest.approx((5 / 9 + 1 / 2) / 2)
    first = evaluation.features[0]
    assert (first.feature, first.num_rel, first.num_ret) == ("damage (misc)", 3, 4)


def test_complete_counts_features_that_the_run_lacks_as_0():
    evaluation = evaluate_run(run_of_scores(RUN), QRELS, complete=True)
    assert ap_of(evaluation) == pytest.approx({"1": 5 / 9, "2": 1 / 2, "4": 0})
    assert evaluation.map == pytest.approx((5 / 9 + 1 / 2) / 3)
    last = evaluation.features[-1]
    assert (last.feature, last.num_rel, last.num_ret) == (None, 1, 0)


def test_only_clips_within_the_cutoff_count():
    evaluation = evaluate_run(run_of_scores(RUN), QRELS, cutoff=1)
    assert ap_of(evaluation) == pytest.approx({"1": 1 / 3, "2": 0})
    assert [f.num_ret for f in evaluation.features] == [1, 1]


def test_a_judged_feature_without_relevant_clips_has_ap_0_and_counts():
    evaluation = evaluate_run(run_of_scores(RUN), {**QRELS, "3": {"a": 0}})
    assert ap_of(evaluation)["3"] == 0
    assert len(evaluation.features) == 3


def test_features_stand_in_the_order_of_their_numbers():
    run = run_of_scores({f: {"a": 1.0} for f in (10, 9, 100)})
    evaluation = evaluate_run(run, {t: {"a": 1} for t in ("100", "9", "10")})
    assert [f.feature_id for f in evaluation.features] == ["9", "10", "100"]
    assert evaluation.map == 1


def test_without_a_common_topic_both_sides_are_shown():
    with pytest.raises(
        DataError, match=r"run has 1, 2, 3, the qrels have 1001, 1002, 1003, ... \(5\)"
    ):
        evaluate_run(run_of_scores(RUN), {str(t): {"a": 1} for t in range(1001, 1006)})


def test_a_cutoff_below_1_is_refused():
    with pytest.raises(ValueError, match="cutoff must be at least 1, got 0"):
        evaluate_run(run_of_scores(RUN), QRELS, cutoff=0)


@pytest.mark.parametrize(("num_rel", "num_clips"), [(1, 1), (1, 4), (2, 5), (3, 5), (5, 5)])
@pytest.mark.parametrize("cutoff", [None, 2])
def test_chance_is_the_mean_over_all_orders(num_rel, num_clips, cutoff):
    values = []
    for order in set(permutations([1] * num_rel + [0] * (num_clips - num_rel))):
        hits = np.cumsum(order)
        precisions = [hits[i] / (i + 1) for i in range(num_clips) if order[i]][:num_rel]
        kept = [
            p
            for p, i in zip(precisions, np.flatnonzero(order), strict=True)
            if cutoff is None or i < cutoff
        ]
        values.append(sum(kept) / num_rel)
    assert expected_random_ap(num_rel, num_clips, cutoff=cutoff) == pytest.approx(np.mean(values))


def test_chance_orders_all_clips_that_run_or_qrels_name():
    evaluation = evaluate_run(run_of_scores(RUN), QRELS)
    assert evaluation.num_clips == 6  # a, b, c, d, y, z
    assert evaluation.features[1].chance == pytest.approx(expected_random_ap(1, 6))
    assert evaluation.chance == pytest.approx(np.mean([f.chance for f in evaluation.features]))


def test_chance_of_nothing_relevant_is_0_and_more_relevant_than_clips_is_refused():
    assert expected_random_ap(0, 10) == 0
    with pytest.raises(ValueError, match="num_rel must be in 0 to 2, got 3"):
        expected_random_ap(3, 2)


def reference(path):
    """trec_eval's output as (measure, topic) -> text."""
    rows = (line.split(maxsplit=2) for line in path.read_text().splitlines())
    return {(measure, topic): value.strip() for measure, topic, value in rows}


@pytest.mark.parametrize(
    ("run_file", "expected_file", "options"),
    [
        ("results.test", "out.test.a", {}),
        ("results.test", "out.test.aq", {}),
        ("results.trunc", "out.test.aqc", {"complete": True}),
        ("results.trunc", "out.test.aqcM", {"complete": True, "cutoff": 100}),
    ],
)
def test_results_equal_trec_evals_own_output(shared_data, run_file, expected_file, options):
    folder = shared_data / "trec" / "trec_eval"
    expected = reference(folder / expected_file)
    evaluation = evaluate_run(
        read_trec_run(folder / run_file), read_qrels(folder / "qrels.test"), **options
    )
    got = {
        ("map", "all"): f"{evaluation.map:.4f}",
        ("num_q", "all"): str(len(evaluation.features)),
        ("num_rel", "all"): str(sum(f.num_rel for f in evaluation.features)),
        ("num_ret", "all"): str(sum(f.num_ret for f in evaluation.features)),
    }
    if ("map", "301") in expected:
        for f in evaluation.features:
            got["map", f.feature_id] = f"{f.ap:.4f}"
            got["num_rel", f.feature_id] = str(f.num_rel)
            got["num_ret", f.feature_id] = str(f.num_ret)
    assert got == {key: expected[key] for key in got}
