import numpy as np
import pytest

from dsdi_ray.errors import ConfigError
from dsdi_ray.method.pooling import (
    POOLS,
    logsumexp_pool,
    max_pool,
    mean_pool,
    peak_frame,
    pool_clip,
    topk_mean_pool,
)

PROBS = np.array([[0.1, 0.9], [0.5, 0.9], [0.3, 0.0], [0.5, 0.3]])


def test_values_computed_by_hand():
    np.testing.assert_allclose(max_pool(PROBS), [0.5, 0.9])
    np.testing.assert_allclose(mean_pool(PROBS), [0.35, 0.525])
    np.testing.assert_allclose(topk_mean_pool(PROBS, k=3), [1.3 / 3, 0.7])
    expected = np.log(np.exp(10 * PROBS).mean(axis=0)) / 10
    np.testing.assert_allclose(logsumexp_pool(PROBS), expected)


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_lies_between_mean_and_max_and_ignores_the_order_of_frames(pool):
    rng = np.random.default_rng(0)
    probs = rng.random((40, 6)).astype(np.float32)
    pooled = pool_clip(probs, pool)
    assert pooled.dtype == np.float64
    assert (pooled <= probs.max(axis=0) + 1e-12).all()
    assert (pooled >= probs.mean(axis=0, dtype=np.float64) - 1e-12).all()
    np.testing.assert_allclose(pool_clip(rng.permutation(probs), pool), pooled, rtol=1e-12)


@pytest.mark.parametrize("pool", POOLS)
def test_one_frame_pools_to_itself(pool):
    np.testing.assert_allclose(pool_clip(PROBS[:1], pool), PROBS[0], atol=1e-12)


def test_topk_mean_takes_all_frames_of_a_clip_shorter_than_k():
    np.testing.assert_allclose(topk_mean_pool(PROBS, k=9), mean_pool(PROBS))
    np.testing.assert_array_equal(topk_mean_pool(PROBS, k=1), max_pool(PROBS))


def test_logsumexp_goes_to_the_maximum_as_it_sharpens():
    np.testing.assert_allclose(logsumexp_pool(PROBS, sharpness=1e5), max_pool(PROBS), atol=1e-4)
    np.testing.assert_allclose(logsumexp_pool(PROBS, sharpness=1e-6), mean_pool(PROBS), atol=1e-6)


def test_peak_frame_is_the_first_of_equal_peaks():
    np.testing.assert_array_equal(peak_frame(PROBS), [1, 0])


def test_a_clip_without_frames_is_refused():
    with pytest.raises(ValueError, match="T from 1"):
        pool_clip(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="T from 1"):
        peak_frame(np.zeros((0, 3)))


def test_an_unknown_pool_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match="max, mean, topk_mean, logsumexp, got 'median'"):
        pool_clip(PROBS, "median")


@pytest.mark.parametrize(
    "call", [lambda: topk_mean_pool(PROBS, k=0), lambda: logsumexp_pool(PROBS, sharpness=0)]
)
def test_options_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="must be"):
        call()
