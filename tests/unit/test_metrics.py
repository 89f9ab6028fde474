import numpy as np
import pytest

from dsdi_ray.method.metrics import average_precisions, lrap


def test_lrap_of_a_hand_computed_case():
    """scikit-learn's own example: 1/2 * (1/2 + 1/3)."""
    labels = np.array([[1, 0, 0], [0, 0, 1]])
    scores = np.array([[0.75, 0.5, 1], [1, 0.2, 0.1]])
    assert lrap(labels, scores) == pytest.approx(0.5 * (1 / 2 + 1 / 3))


def test_a_soft_label_counts_as_present_from_the_threshold_on():
    soft = np.array([[0.5, 0.49, 0.0]])
    scores = np.array([[0.1, 0.9, 0.0]])
    assert lrap(soft, scores) == 0.5
    assert lrap(soft, scores, threshold=0.4) == 1.0


def test_lrap_depends_on_the_order_of_scores_alone():
    rng = np.random.default_rng(0)
    labels, logits = rng.random((20, 5)), rng.normal(size=(20, 5))
    assert lrap(labels, logits) == pytest.approx(lrap(labels, 1 / (1 + np.exp(-logits))))


def test_average_precision_per_class_and_nan_without_a_positive():
    labels = np.array([[1, 0], [0, 0], [0.6, 0.2]])
    scores = np.array([[0.9, 1], [0.8, 2], [0.7, 3]])
    ap = average_precisions(labels, scores)
    assert ap[0] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(ap[1])
