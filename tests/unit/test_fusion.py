import numpy as np
import pytest

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.fusion import clip_scores, ensemble_frames, fuse_runs, sigmoid


def logit(probs):
    probs = np.asarray(probs, np.float64)
    return np.log(probs / (1 - probs))


# Two members, sure at different frames: [M=2, T=2, C=1].
TWO_MEMBERS = logit([[[0.9], [0.1]], [[0.2], [0.8]]])


def test_members_are_averaged_after_the_sigmoid_with_their_weights():
    np.testing.assert_allclose(ensemble_frames(TWO_MEMBERS, np.array([1, 1])), [[0.55], [0.45]])
    np.testing.assert_allclose(ensemble_frames(TWO_MEMBERS, np.array([3, 1])), [[0.725], [0.275]])


def test_the_two_orders_differ_where_members_peak_at_different_frames():
    frame_first = clip_scores(TWO_MEMBERS, np.ones(2), order="frame_first", pool="max")
    clip_first = clip_scores(TWO_MEMBERS, np.ones(2), order="clip_first", pool="max")
    np.testing.assert_allclose(frame_first.scores, [0.55])
    np.testing.assert_allclose(clip_first.scores, [0.85])
    assert frame_first.peak_frame.tolist() == clip_first.peak_frame.tolist() == [0]


def test_the_two_orders_agree_for_the_mean():
    logits = np.random.default_rng(0).normal(size=(3, 7, 4))
    weights = np.array([2.0, 1.0, 0.5])
    a = clip_scores(logits, weights, order="frame_first", pool="mean")
    b = clip_scores(logits, weights, order="clip_first", pool="mean")
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-14)


def test_with_max_pooling_the_score_is_the_probability_at_the_peak():
    logits = np.random.default_rng(1).normal(size=(3, 9, 5)).astype(np.float16)
    weights = np.ones(3)
    result = clip_scores(logits, weights, order="frame_first", pool="max")
    probs = ensemble_frames(logits, weights)
    np.testing.assert_array_equal(result.scores, probs[result.peak_frame, np.arange(5)])


def test_only_the_ratios_of_weights_matter_and_a_member_of_weight_0_does_not():
    logits = np.random.default_rng(2).normal(size=(3, 4, 5))
    a = clip_scores(logits, np.array([2, 1, 0]), order="frame_first", pool="max").scores
    b = clip_scores(logits[:2], np.array([8, 4]), order="frame_first", pool="max").scores
    np.testing.assert_array_equal(a, b)


def test_sure_frames_do_not_tie_where_float32_would_saturate():
    probs = sigmoid(np.array([18, 19, 25, 36], np.float16))
    assert (np.diff(probs) > 0).all()


def test_the_sigmoid_neither_overflows_nor_warns(recwarn):
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(sigmoid(np.array([-1e4, 0.0, 1e4])), [0.0, 0.5, 1.0])
        np.testing.assert_array_equal(sigmoid(np.array([-np.inf, np.inf])), [0.0, 1.0])
    assert not recwarn


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.nan], [np.inf, 1.0]])
def test_weights_out_of_range_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be"):
        ensemble_frames(TWO_MEMBERS, np.array(weights))


def test_an_unknown_order_or_pool_is_refused():
    with pytest.raises(ConfigError, match="order must be one of frame_first, clip_first, got 'x'"):
        clip_scores(TWO_MEMBERS, np.ones(2), order="x", pool="max")
    with pytest.raises(ConfigError, match="pool must be one of"):
        clip_scores(TWO_MEMBERS, np.ones(2), order="clip_first", pool="x")


def test_runs_are_fused_2_to_1_and_a_clip_that_a_run_lacks_scores_0_in_it():
    vas = {1: {"a": 0.9, "b": 0.6}}
    other = {1: {"b": 0.9, "c": 0.3}, 2: {"a": 0.6}}
    fused = fuse_runs([vas, other], [2, 1])
    assert fused[1] == pytest.approx({"a": 0.6, "b": 0.7, "c": 0.1})
    assert fused[2] == pytest.approx({"a": 0.2})
    assert list(fused) == [1, 2]


def test_fusing_does_not_depend_on_the_order_of_clips():
    a = fuse_runs([{1: {"a": 0.1, "b": 0.7}}, {1: {"b": 0.2, "c": 0.4}}], [5, 1])
    b = fuse_runs([{1: {"b": 0.7, "a": 0.1}}, {1: {"c": 0.4, "b": 0.2}}], [5, 1])
    assert a == b
    assert list(a[1]) == list(b[1])


def test_minmax_and_rank_bring_runs_of_other_scales_together():
    probs, logs = {1: {"a": 0.9, "b": 0.5, "c": 0.1}}, {1: {"c": -1.0, "b": -3.0, "a": -5.0}}
    expected = {"a": 0.5, "b": 0.5, "c": 0.5}
    assert fuse_runs([probs, logs], [1, 1], normalisation="minmax")[1] == pytest.approx(expected)
    by_rank = fuse_runs([probs], [1], normalisation="rank")[1]
    assert by_rank == pytest.approx({"a": 1, "b": 2 / 3, "c": 1 / 3})


def test_minmax_of_equal_scores_is_1():
    assert fuse_runs([{1: {"a": 0.2, "b": 0.2}}], [1], normalisation="minmax")[1] == {
        "a": 1,
        "b": 1,
    }


def test_negative_scores_need_a_normalisation():
    with pytest.raises(DataError, match="run 2, feature 1, clip a: score must not be negative"):
        fuse_runs([{1: {"a": 0.1}}, {1: {"a": -2.0}}], [1, 1])


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="must be finite, got nan"):
        fuse_runs([{1: {"a": float("nan")}}], [1], normalisation="rank")
    with pytest.raises(ConfigError, match="none, minmax, rank, got 'z'"):
        fuse_runs([{}], [1], normalisation="z")
