import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdi_ray.method.ranking import rank_clips, strictly_decreasing

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


def ranked_names(clip_ids, scores, top=None):
    (order,) = rank_clips(clip_ids, np.array(scores, np.float64).reshape(-1, 1), top)
    return [clip_ids[row] for row in order]


def test_best_first_and_ties_by_clip_id():
    assert ranked_names(["b", "c", "a", "d"], [0.5, 0.9, 0.5, 0.1]) == ["c", "a", "b", "d"]


def test_each_feature_has_its_own_order_and_top_clips():
    orders = rank_clips(["x", "y", "z"], np.array([[1, 3], [2, 2], [3, 1]]), top=2)
    assert [o.tolist() for o in orders] == [[2, 1], [0, 1]]


def test_top_beyond_the_clips_gives_all_and_no_clip_gives_none():
    assert ranked_names(["a", "b"], [0, 1], top=1000) == ["b", "a"]
    assert [o.tolist() for o in rank_clips([], np.zeros((0, 2)))] == [[], []]


def test_the_two_zeros_tie():
    assert ranked_names(["b", "a"], [0.0, -0.0]) == ["a", "b"]


@given(st.permutations(list("abcdefgh")), st.data())
def test_the_order_does_not_depend_on_the_order_of_clips(names, data):
    score = {n: data.draw(st.sampled_from([0.0, 0.5, 1.0])) for n in sorted(names)}
    assert ranked_names(names, [score[n] for n in names]) == sorted(
        names, key=lambda n: (-score[n], n)
    )


def test_nan_repeated_ids_wrong_shapes_and_a_top_below_1_are_refused():
    with pytest.raises(ValueError, match="clip 'b', feature column 1, is NaN"):
        rank_clips(["a", "b"], np.array([[0, 0], [0, np.nan]]))
    with pytest.raises(ValueError, match="distinct"):
        rank_clips(["a", "a"], np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"\[2, F\]"):
        rank_clips(["a", "b"], np.zeros(2))
    with pytest.raises(ValueError, match="top must be"):
        rank_clips(["a"], np.zeros((1, 1)), top=0)


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
tie_runs = st.lists(
    st.tuples(
        st.one_of(
            finite,
            st.floats(0, 1),
            st.sampled_from(
                [0.0, -0.0, 1.0, 1e-45, 1e-40, -1e-42, SMALLEST_NORMAL, 3.4e38, -3.4e38]
            ),
        ),
        st.sampled_from([1, 1, 1, 2, 3, 50, 1500]),
    ),
    min_size=1,
    max_size=8,
)


def steps_of(values):
    """Place of a float32 among the normal ones and zero, by counting with Python's own integers."""
    bits = np.abs(values).view(np.int32).astype(np.int64)
    size = np.maximum(bits - 0x0080_0000 + 1, 0)
    return np.where(values < 0, -size, size)


@settings(max_examples=200, deadline=None)
@given(tie_runs)
def test_similarities_strictly_decrease_in_float32_whatever_ties(runs):
    scores = np.sort(np.concatenate([np.full(n, value) for value, n in runs]))[::-1]
    similarities = strictly_decreasing(scores)
    assert similarities.dtype == np.float32
    assert np.isfinite(similarities).all()
    assert (similarities[1:] < similarities[:-1]).all()
    nonzero = np.abs(similarities[similarities != 0])
    assert (nonzero >= np.float32(SMALLEST_NORMAL)).all()
    # As text with nine digits, through a double, as a C reader takes it.
    read = np.array([float(f"{s:.9g}") for s in similarities.tolist()]).astype(np.float32)
    np.testing.assert_array_equal(read, similarities)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 40)), min_size=1, max_size=8))
def test_no_similarity_is_further_off_than_the_longest_crowd_makes_it(runs):
    scores = np.sort(np.concatenate([np.full(n, value) for value, n in runs]))[::-1]
    moved = steps_of(strictly_decreasing(scores)) - steps_of(scores.astype(np.float32))
    # Lower bound of any solution: i < j must be j - i steps apart, and are as far apart as scores.
    steps = steps_of(scores.astype(np.float32))
    place = np.arange(len(steps))
    lacking = (place[None, :] - place[:, None]) - (steps[:, None] - steps[None, :])
    unavoidable = max(0, int(np.triu(lacking, 1).max()))
    assert np.abs(moved).max() <= (unavoidable + 1) // 2


def test_scores_that_are_distinct_in_float32_stay():
    scores = np.array([0.9, 0.5, 0.25, 1e-3, 0.0, -2.0])
    np.testing.assert_array_equal(strictly_decreasing(scores), scores.astype(np.float32))


def test_long_ties_stay_close():
    ones = strictly_decreasing(np.ones(2000))
    np.testing.assert_allclose(ones, 1.0, atol=2e-4)
    scores = np.concatenate([np.linspace(1, 0.5, 500), np.zeros(1500)])
    similarities = strictly_decreasing(scores)
    np.testing.assert_allclose(similarities, scores, atol=1e-6)
    np.testing.assert_array_equal(similarities[:499], scores[:499].astype(np.float32))


def test_an_empty_list_stays_empty():
    assert strictly_decreasing(np.zeros(0)).tolist() == []


@pytest.mark.parametrize("scores", [[0.1, 0.2], [np.nan], [np.inf, 1.0], [[1.0]]])
def test_lists_out_of_order_or_not_finite_are_refused(scores):
    with pytest.raises(ValueError, match="scores must"):
        strictly_decreasing(np.array(scores))
