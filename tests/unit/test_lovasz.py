"""The Lovasz hinge against its definition by set functions, on all permutations of few classes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsdi_ray.method.lovasz import symmetric_lovasz_hinge

CASES = st.integers(1, 5).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-4, 4), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=n, max_size=n),
    )
)


def jaccard_loss(present, wrong, sizes):
    """1 - intersection over union of what is there and what is predicted; 0 where both are empty."""
    predicted = present ^ wrong
    union = sum(sizes[i] for i in present | predicted)
    return 1 - sum(sizes[i] for i in present & predicted) / union if union else 0.0


def hinge_by_definition(x, present, sizes):
    """The Lovasz extension of a submodular function is the maximum over all orders of the greedy sum."""
    classes = range(len(x))
    violations = [max(0.0, 1 - (x[i] if i in present else -x[i])) for i in classes]
    best = 0.0
    for order in itertools.permutations(classes):
        losses = [jaccard_loss(present, frozenset(order[:k]), sizes) for k in range(len(order) + 1)]
        best = max(
            best, sum(violations[i] * s for i, s in zip(order, np.diff(losses), strict=True))
        )
    return best


def by_definition(x, y, sizes):
    present = frozenset(i for i, v in enumerate(y) if v)
    absent = frozenset(range(len(y))) - present
    flipped = [-v for v in x]
    return (
        hinge_by_definition(x, present, sizes) + hinge_by_definition(flipped, absent, sizes)
    ) / 2


def rows(*values):
    return (torch.tensor([v], dtype=torch.float64) for v in values)


@given(CASES)
def test_it_is_the_definition(case):
    x, y, _ = case
    logits, targets = rows(x, y)
    got = symmetric_lovasz_hinge(logits, targets, scaling="none")
    assert got.item() == pytest.approx(by_definition(x, y, [1.0] * len(x)), abs=1e-12)


@given(CASES)
def test_weights_are_the_sizes_of_the_classes_in_the_sets(case):
    x, y, sizes = case
    logits, targets, weights = rows(x, y, sizes)
    got = symmetric_lovasz_hinge(logits, targets, scaling="none", weights=weights)
    assert got.item() == pytest.approx(by_definition(x, y, sizes), abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "loss"),
    [
        ([0.0], [1.0], 1.0),
        ([0.5], [1.0], 0.5),
        ([1.0], [1.0], 0.0),
        ([-3.0], [1.0], 4.0),
        # Violations 2 and 1/2. Present {0}: 2 * 1 + 1/2 * 0; its complement {1}: 2 * 1/2 + 1/2 * 1/2.
        ([-1.0, -0.5], [1.0, 0.0], (2.0 + 1.25) / 2),
    ],
)
def test_hand_computed_values(x, y, loss):
    logits, targets = rows(x, y)
    got = symmetric_lovasz_hinge(logits, targets, scaling="none")
    assert got.item() == pytest.approx(loss)


def test_where_each_class_is_right_by_its_margin_or_undecided_it_is_the_jaccard_loss():
    """A logit of 0 violates by exactly 1: the extension agrees with the set function there."""
    present = frozenset({0, 2})
    for wrong in map(frozenset, itertools.product(range(4), repeat=2)):
        right = [1.0 if i in present else -1.0 for i in range(4)]
        logits, targets = rows(
            [0.0 if i in wrong else 9 * v for i, v in enumerate(right)],
            [float(i in present) for i in range(4)],
        )
        got = symmetric_lovasz_hinge(logits, targets, scaling="none").item()
        absent = frozenset(range(4)) - present
        losses = [jaccard_loss(s, wrong, [1.0] * 4) for s in (present, absent)]
        assert got == pytest.approx(sum(losses) / 2)


def test_swapping_presence_and_absence_changes_nothing():
    torch.manual_seed(0)
    x, y = torch.randn(9, 6), torch.randint(0, 2, (9, 6)).float()
    torch.testing.assert_close(symmetric_lovasz_hinge(x, y), symmetric_lovasz_hinge(-x, 1 - y))


def test_a_label_counts_as_present_from_one_half_on():
    x = torch.randn(1, 4)
    soft, hard = torch.tensor([[0.5, 0.49, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    assert torch.equal(symmetric_lovasz_hinge(x, soft), symmetric_lovasz_hinge(x, hard))


def test_sqrt_scaling_is_the_root_to_a_hundredth_and_without_infinite_gradients():
    torch.manual_seed(0)
    x, y = 3 * torch.randn(50, 6), torch.randint(0, 2, (50, 6)).float()
    plain = symmetric_lovasz_hinge(x, y, scaling="none")
    scaled = symmetric_lovasz_hinge(x, y, scaling="sqrt")
    assert ((plain.sqrt() - scaled) >= 0).all()
    assert ((plain.sqrt() - scaled) <= 0.01).all()
    for margin in (0.0, 1e-7, 1e-4):
        logits = torch.full((1, 6), 1 - margin, requires_grad=True)
        symmetric_lovasz_hinge(logits, torch.ones(1, 6)).sum().backward()
        assert torch.isfinite(logits.grad).all()
        assert logits.grad.abs().sum() <= 50.01


@pytest.mark.parametrize("scaling", ["sqrt", "none"])
def test_gradients_are_those_of_finite_differences(scaling):
    torch.manual_seed(0)
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randint(0, 2, (4, 5)).double()
    weights = torch.rand(4, 5, dtype=torch.float64)
    for sizes in (None, weights):
        assert torch.autograd.gradcheck(
            lambda z, sizes=sizes: symmetric_lovasz_hinge(z, y, scaling=scaling, weights=sizes), x
        )


@pytest.mark.parametrize("scaling", ["sqrt", "none"])
@pytest.mark.parametrize("labels", [0.0, 1.0])
def test_value_and_gradient_are_finite_at_any_logit(scaling, labels):
    x = torch.tensor([[1e4, -1e4, 0.0, 1.0, -1.0], [1e4] * 5, [-1e4] * 5], requires_grad=True)
    loss = symmetric_lovasz_hinge(x, torch.full_like(x, labels), scaling=scaling)
    loss.sum().backward()
    assert loss.shape == (3,)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(x.grad).all()


def test_logits_of_a_bfloat16_autocast_are_computed_in_float32():
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 37)
    inputs, y = torch.randn(8, 6), torch.rand(8, 37)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(inputs)
        loss = symmetric_lovasz_hinge(logits, y)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, symmetric_lovasz_hinge(logits.float(), y), rtol=0, atol=0)


def test_an_image_without_any_class_in_the_sets_costs_nothing():
    x = torch.randn(1, 3, requires_grad=True)
    loss = symmetric_lovasz_hinge(x, torch.ones(1, 3), weights=torch.zeros(1, 3))
    loss.sum().backward()
    assert loss.item() == 0
    assert x.grad.abs().sum() == 0


def test_an_unknown_scaling_and_shapes_that_differ_are_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="scaling must be sqrt or none, got 'log'"):
        symmetric_lovasz_hinge(x, x, scaling="log")
    with pytest.raises(ValueError, match="shapes must agree"):
        symmetric_lovasz_hinge(x, x[:1])
    with pytest.raises(ValueError, match="shapes must agree"):
        symmetric_lovasz_hinge(x, x, weights=torch.ones(3))
