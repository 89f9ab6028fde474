import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdi_ray.errors import DataError
from dsdi_ray.method.metrics import average_precisions, lrap
from dsdi_ray.method.quick_metrics import (
    METRICS,
    label_ranking_average_precision,
    mean_average_precision,
)


def drawn(seed, *, num_images=40, num_classes=6, levels=None, share=0.3):
    """Labels and scores; few levels of scores make many ties."""
    rng = np.random.default_rng(seed)
    present = rng.random((num_images, num_classes)) < share
    scores = rng.random((num_images, num_classes))
    return present, scores if levels is None else np.floor(scores * levels) / levels


@given(
    seed=st.integers(0, 10_000),
    num_images=st.integers(1, 60),
    num_classes=st.integers(2, 8),
    levels=st.sampled_from([None, 1, 2, 5, 20]),
    share=st.sampled_from([0.02, 0.3, 0.9]),
)
def test_both_metrics_equal_scikit_learn_ties_and_empty_rows_and_classes_included(
    seed, num_images, num_classes, levels, share
):
    present, scores = drawn(
        seed, num_images=num_images, num_classes=num_classes, levels=levels, share=share
    )
    every = range(num_classes)
    expected = lrap(present.astype(float), scores)
    assert label_ranking_average_precision(present, every)(scores) == pytest.approx(
        expected, abs=1e-12
    )
    per_class = average_precisions(present.astype(float), scores)
    if np.isnan(per_class).all():
        with pytest.raises(DataError, match="no image shows any feature"):
            mean_average_precision(present, every)
    else:
        assert mean_average_precision(present, every)(scores) == pytest.approx(
            np.nanmean(per_class), abs=1e-12
        )


@pytest.mark.parametrize("metric", METRICS)
def test_only_the_columns_that_are_named_count(metric):
    present, scores = drawn(1)
    judge = METRICS[metric](present, [0, 2, 5])
    changed = scores.copy()
    changed[:, [1, 3, 4]] = 0
    assert judge(scores) == judge(changed)
    assert judge(scores) == METRICS[metric](present[:, [0, 2, 5]], range(3))(scores[:, [0, 2, 5]])


@pytest.mark.parametrize("metric", METRICS)
def test_sums_are_judged_as_means_are(metric):
    present, scores = drawn(2)
    judge = METRICS[metric](present, range(6))
    assert judge(8 * scores) == judge(scores)


def test_many_images_are_compared_in_parts(monkeypatch):
    present, scores = drawn(3, num_images=200)
    whole = label_ranking_average_precision(present, range(6))(scores)
    monkeypatch.setattr("dsdi_ray.method.quick_metrics._PAIRS_AT_ONCE", 7)
    assert label_ranking_average_precision(present, range(6))(scores) == pytest.approx(
        whole, abs=1e-12
    )


def test_no_image_is_refused():
    with pytest.raises(DataError, match="no image"):
        label_ranking_average_precision(np.zeros((0, 3), bool), range(3))
