from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdi_ray.method.run_changes import compare_runs


def ranked(*clip_ids):
    """A feature's list of clips, best first."""
    return {clip_id: 1 - rank / 100 for rank, clip_id in enumerate(clip_ids)}


def compare(before, after, top_k=3):
    (changes,) = compare_runs({7: before}, {7: after}, top_k=top_k).values()
    assert changes.feature_id == 7
    return changes


def names(moves):
    return [move.clip_id for move in moves]


def test_the_same_run_has_no_changes():
    changes = compare(ranked("a", "b", "c", "d"), ranked("a", "b", "c", "d"))
    assert changes.entered == changes.left == changes.risen == changes.fallen == ()
    assert (changes.overlap, changes.kendall_tau) == (1.0, 1.0)


def test_a_clip_that_rises_into_the_top_pushes_another_out():
    # By hand: d goes from 4 to 1, the others fall by one, c thereby out of the top 3.
    changes = compare(ranked("a", "b", "c", "d"), ranked("d", "a", "b", "c"))
    assert names(changes.entered) == ["d"]
    assert names(changes.left) == ["c"]
    assert [(m.clip_id, m.places_risen) for m in changes.risen] == [("d", 3)]
    assert [(m.clip_id, m.places_risen) for m in changes.fallen] == [
        ("a", -1),
        ("b", -1),
        ("c", -1),
    ]
    assert changes.overlap == pytest.approx(2 / 3)
    # Of six pairs, the three with d are reversed: (3 - 3) / 6.
    assert changes.kendall_tau == pytest.approx(0)


def test_scores_before_and_after_stand_beside_the_ranks():
    changes = compare({"a": 0.9, "b": 0.5}, {"b": 0.8, "a": 0.7}, top_k=1)
    (entered,), (left,) = changes.entered, changes.left
    assert (entered.clip_id, entered.rank_before, entered.rank_after) == ("b", 2, 1)
    assert entered.score_change == pytest.approx(0.3)
    assert (left.clip_id, left.score_before, left.score_after) == ("a", 0.9, 0.7)


def test_footage_that_arrives_enters_without_a_past_and_moves_no_other_clip():
    changes = compare(ranked("a", "b", "c"), ranked("new", "a", "newer", "b", "c"))
    assert names(changes.entered) == ["new", "newer"]
    for move in changes.entered:
        assert move.rank_before is move.score_before is move.score_change is None
        assert move.places_risen is None
    assert names(changes.left) == ["b", "c"]
    assert changes.left[0].rank_after == 4
    assert changes.risen == changes.fallen == ()
    assert changes.kendall_tau == 1.0


def test_footage_that_is_gone_leaves_and_the_rest_moves_up_without_rising():
    changes = compare(ranked("gone", "a", "b", "c"), ranked("a", "b", "c"))
    assert names(changes.left) == ["gone"]
    assert changes.left[0].rank_after is None
    assert names(changes.entered) == ["c"]
    assert changes.risen == changes.fallen == ()


def test_runs_without_a_common_clip_have_no_order_to_compare():
    changes = compare(ranked("a", "b"), ranked("c", "d"))
    assert (changes.overlap, changes.kendall_tau) == (0.0, None)
    assert (names(changes.entered), names(changes.left)) == (["c", "d"], ["a", "b"])


def test_a_top_larger_than_the_runs_takes_all_of_them():
    changes = compare(ranked("a"), ranked("a", "b", "c"), top_k=100)
    assert changes.overlap == pytest.approx(1 / 3)
    assert names(changes.entered) == ["b", "c"]


def test_a_feature_of_one_run_alone_is_an_empty_list_in_the_other():
    changes = compare_runs({2: ranked("a")}, {1: ranked("b"), 3: {}}, top_k=5)
    assert list(changes) == [1, 2, 3]
    assert names(changes[1].entered) == ["b"]
    assert names(changes[2].left) == ["a"]
    assert (changes[3].overlap, changes[3].kendall_tau) == (1.0, None)


def test_moves_are_in_the_order_of_their_size_and_only_of_clips_that_are_or_were_on_top():
    changes = compare(
        ranked("a", "b", "c", "d", "e", "f"), ranked("e", "c", "a", "b", "f", "d"), top_k=3
    )
    assert [(m.clip_id, m.places_risen) for m in changes.risen] == [("e", 4), ("c", 1)]
    # d and f moved as well, below both tops.
    assert [(m.clip_id, m.places_risen) for m in changes.fallen] == [("a", -2), ("b", -2)]


def test_runs_that_are_not_best_first_and_tops_of_nothing_are_refused():
    with pytest.raises(ValueError, match="feature 4: clips must be best first"):
        compare_runs({}, {4: {"a": 0.1, "b": 0.2}}, top_k=1)
    with pytest.raises(ValueError, match="best first"):
        compare_runs({4: {"a": float("nan"), "b": 0.2}}, {}, top_k=1)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        compare_runs({}, {}, top_k=0)


@given(st.permutations(list("abcdefgh")), st.integers(1, 10))
def test_against_a_count_of_pairs_and_places(order, top_k):
    before = list("abcdefgh")
    changes = compare(ranked(*before), ranked(*order), top_k=top_k)
    tops = set(before[:top_k]), set(order[:top_k])
    assert set(names(changes.entered)) == tops[1] - tops[0]
    assert set(names(changes.left)) == tops[0] - tops[1]
    for move in (*changes.risen, *changes.fallen):
        assert move.places_risen == before.index(move.clip_id) - order.index(move.clip_id)
    signs = [
        np.sign(before.index(a) - before.index(b)) * np.sign(order.index(a) - order.index(b))
        for a, b in combinations(sorted(tops[0] | tops[1]), 2)
    ]
    assert changes.kendall_tau == (pytest.approx(np.mean(signs)) if signs else None)
