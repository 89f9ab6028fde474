"""Cross-entropy, Class-Balanced and Reduced Focal Loss against their printed equations."""

import math

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from dsdi_ray.method.losses import (
    binary_cross_entropy,
    class_balanced_focal_loss,
    class_balanced_weights,
    focal_loss,
    reduced_focal_loss,
)
from dsdi_ray.taxonomy import load_taxonomy

COUNTS = load_taxonomy("ladi_v1").class_counts
LOGITS = st.floats(-100, 100)
SOFT = st.floats(0, 1)
HARD = st.sampled_from([0.0, 1.0])
GAMMAS = st.one_of(st.just(0.0), st.floats(1, 5))
THRESHOLDS = st.floats(0.05, 0.95)

CLASS_BALANCED = {"class_counts": (3, 50, 98412), "beta": 0.9999}
EXTREME = [s * v for v in (0.0, 1e-3, 1.0, 16.0, 20.0, 88.0, 104.0, 1e3, 1e4) for s in (1, -1)]
EVERY_LOSS = {
    "bce": binary_cross_entropy,
    "focal": focal_loss,
    "class_balanced": lambda x, y: class_balanced_focal_loss(
        x, y, class_counts=[7] * x.shape[-1], beta=0.999
    ),
    "reduced as printed": lambda x, y: reduced_focal_loss(x, y, threshold=0.3),
    "reduced original": lambda x, y: reduced_focal_loss(x, y, threshold=0.3, variant="original"),
}
every_loss = pytest.mark.parametrize("loss", EVERY_LOSS.values(), ids=EVERY_LOSS)


def p_and_p_hat(x, y, digits=80):
    """Eq. 2 in as many digits as it takes not to cancel."""
    mpmath.mp.dps = digits
    p = 1 / (1 + mpmath.exp(-mpmath.mpf(x)))
    return p, 1 - abs(mpmath.mpf(y) - p)


def power(base, exponent):
    return mpmath.mpf(1) if exponent == 0 else base**exponent


def eq_4(x, y, th, gamma, digits=80):
    p, p_hat = p_and_p_hat(x, y, digits)
    w1, w2 = (1, 0) if p > th else (0, 1)
    log = mpmath.log(p_hat)
    return -(w1 * log + w2 * power((1 - p_hat) / th, gamma) * log)


def sergievskiy(x, y, th, gamma):
    _, p_hat = p_and_p_hat(x, y)
    factor = 1 if p_hat < th else power(1 - p_hat, gamma) / power(mpmath.mpf(th), gamma)
    return -factor * mpmath.log(p_hat)


def one(loss, x, y, **settings):
    x, y = (torch.tensor([[v]], dtype=torch.float64) for v in (x, y))
    return loss(x, y, **settings).item()


def close(got, wanted, *, hard):
    """Where p nears a soft label, p - y itself has few digits; a hard label's are all there."""
    rel, absolute = (1e-12, 0.0) if hard else (1e-9, 1e-13)
    return got == pytest.approx(float(wanted), rel=rel, abs=absolute)


@given(LOGITS, st.one_of(SOFT, HARD), GAMMAS, THRESHOLDS)
def test_the_reduced_loss_is_equations_4_to_6(x, y, gamma, th):
    p, _ = p_and_p_hat(x, y)
    assume(abs(p - th) > 1e-9)
    got = one(reduced_focal_loss, x, y, threshold=th, gamma=gamma)
    assert close(got, eq_4(x, y, th, gamma), hard=y in {0, 1})


@given(LOGITS, st.one_of(SOFT, HARD), GAMMAS, THRESHOLDS)
def test_its_original_variant_leaves_hard_elements_undamped(x, y, gamma, th):
    _, p_hat = p_and_p_hat(x, y)
    assume(abs(p_hat - th) > 1e-9)
    got = one(reduced_focal_loss, x, y, threshold=th, gamma=gamma, variant="original")
    assert close(got, sergievskiy(x, y, th, gamma), hard=y in {0, 1})


@pytest.mark.parametrize(("x", "y"), [(1e4, 0.0), (-1e4, 1.0), (1e4, 0.25), (-1e4, 0.75)])
def test_the_reduced_loss_is_its_equation_at_any_logit(x, y):
    wanted = float(eq_4(x, y, 0.3, 2.0, digits=4500))
    assert one(reduced_focal_loss, x, y, threshold=0.3) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "variant", "loss"),
    [
        # p = 1/2 > th: undamped by Eq. 5, whatever the label.
        (0.0, 1.0, "as_printed", math.log(2)),
        (0.0, 0.0, "as_printed", math.log(2)),
        # p = 1/4 <= th: ((1 - p_hat) / 0.3)^2, p_hat 1/4 and 3/4.
        (-math.log(3), 1.0, "as_printed", 2.5**2 * math.log(4)),
        (-math.log(3), 0.0, "as_printed", (0.25 / 0.3) ** 2 * math.log(4 / 3)),
        # p_hat 1/4 < th is hard, p_hat 3/4 is easy.
        (-math.log(3), 1.0, "original", math.log(4)),
        (math.log(3), 1.0, "original", (0.25 / 0.3) ** 2 * math.log(4 / 3)),
        (math.log(3), 0.0, "original", math.log(4)),
    ],
)
def test_hand_computed_reduced_losses(x, y, variant, loss):
    got = one(reduced_focal_loss, x, y, threshold=0.3, gamma=2.0, variant=variant)
    assert got == pytest.approx(loss, rel=1e-12)


def test_the_variants_differ_for_absent_classes():
    """As printed the condition is on p: a false alarm is undamped, a miss is amplified."""
    miss, false_alarm = (-3.0, 1.0), (3.0, 0.0)
    printed = [one(reduced_focal_loss, *at, threshold=0.5) for at in (miss, false_alarm)]
    original = [
        one(reduced_focal_loss, *at, threshold=0.5, variant="original")
        for at in (miss, false_alarm)
    ]
    assert original[0] == pytest.approx(original[1])
    assert printed[0] > 3 * printed[1]
    assert printed[1] == pytest.approx(original[1])


@given(st.integers(1, 200_000), st.floats(0, 0.99999))
def test_class_balanced_weights_are_equation_3(count, beta):
    mpmath.mp.dps = 60
    wanted = (1 - mpmath.mpf(beta)) / (1 - mpmath.mpf(beta) ** count)
    got = class_balanced_weights([count], beta=beta, normalized=False)
    assert got.item() == pytest.approx(float(wanted), rel=1e-10)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.9999])
def test_the_class_balanced_loss_is_equation_3(beta, gamma):
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 5, (50, 37)), rng.random((50, 37))
    y[:20] = np.round(y[:20])
    p_hat = 1 - np.abs(y - 1 / (1 + np.exp(-x)))
    weights = (1 - beta) / (1 - beta ** np.array(COUNTS, dtype=np.float64))
    wanted = -weights * (1 - p_hat) ** gamma * np.log(p_hat)
    settings = {"class_counts": COUNTS, "beta": beta, "gamma": gamma}
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    printed = class_balanced_focal_loss(x, y, **settings, normalized=False)
    np.testing.assert_allclose(printed.numpy(), wanted, rtol=1e-7, atol=1e-13)
    scaled = class_balanced_focal_loss(x, y, **settings)
    np.testing.assert_allclose(scaled.numpy(), wanted * 37 / weights.sum(), rtol=1e-7, atol=1e-12)
    single = class_balanced_focal_loss(x.float(), y.float(), **settings)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), scaled, rtol=1e-4, atol=1e-5)


def test_hand_computed_class_balanced_losses():
    # beta 1/2: (1/2) / (1 - 1/2) = 1 and (1/2) / (1 - 1/8) = 4/7.
    weights = class_balanced_weights([1, 3], beta=0.5, normalized=False)
    assert weights.tolist() == pytest.approx([1, 4 / 7])
    loss = class_balanced_focal_loss(
        torch.zeros(1, 2), torch.ones(1, 2), class_counts=[1, 3], beta=0.5, normalized=False
    )
    quarter = 0.25 * math.log(2)
    assert loss.tolist()[0] == pytest.approx([quarter, quarter * 4 / 7])


def test_rare_classes_weigh_more_and_normalized_weights_have_a_mean_of_1():
    weights = class_balanced_weights(COUNTS, beta=0.9999)
    assert weights.mean().item() == pytest.approx(1)
    rarest_first = torch.argsort(torch.tensor(COUNTS))
    assert (torch.diff(weights[rarest_first]) <= 0).all()
    assert weights.max().item() == weights[load_taxonomy("ladi_v1").index_of("lava")].item()


@pytest.mark.parametrize("normalized", [True, False])
def test_a_class_that_was_never_counted_leaves_the_others_as_they_are_and_weighs_least(normalized):
    counted = class_balanced_weights([20, 1, 900], beta=0.99, normalized=normalized)
    with_empty = class_balanced_weights([20, 1, 900, 0], beta=0.99, normalized=normalized)
    torch.testing.assert_close(with_empty[:3], counted)
    assert with_empty[3] == with_empty[2]


def test_classes_none_of_which_was_counted_weigh_the_same():
    assert class_balanced_weights([0, 0], beta=0.9).tolist() == [1, 1]


def test_beta_0_gives_the_focal_loss():
    torch.manual_seed(0)
    x, y = torch.randn(4, 37), torch.rand(4, 37)
    balanced = class_balanced_focal_loss(x, y, class_counts=COUNTS, beta=0.0)
    assert torch.equal(balanced, focal_loss(x, y))


@given(LOGITS, st.one_of(SOFT, HARD))
def test_cross_entropy_is_its_equation(x, y):
    p, _ = p_and_p_hat(x, y)
    wanted = -mpmath.mpf(y) * mpmath.log(p) - (1 - mpmath.mpf(y)) * mpmath.log(1 - p)
    assert one(binary_cross_entropy, x, y) == pytest.approx(float(wanted), rel=1e-12)


def test_cross_entropy_is_torchs_where_that_does_not_cancel():
    torch.manual_seed(0)
    x, y = 5 * torch.randn(64, 37), torch.rand(64, 37)
    oracle = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    torch.testing.assert_close(binary_cross_entropy(x, y), oracle)
    tiny = binary_cross_entropy(torch.tensor([[-80.0]]), torch.zeros(1, 1)).item()
    assert tiny == pytest.approx(math.exp(-80), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_hard_labels_give_torchvisions_focal_loss_with_the_families_factors(gamma):
    """In float64, since torchvision's cross-entropy cancels where it is tiny."""
    torch.manual_seed(0)
    x = 8 * torch.randn(64, 37, dtype=torch.float64)
    y = torch.randint(0, 2, (64, 37)).double()
    focal = sigmoid_focal_loss(x, y, alpha=-1, gamma=gamma)
    cross_entropy = sigmoid_focal_loss(x, y, alpha=-1, gamma=0)
    close_to = {"rtol": 1e-8, "atol": 1e-14}
    torch.testing.assert_close(binary_cross_entropy(x, y), cross_entropy, **close_to)

    weights = class_balanced_weights(COUNTS, beta=0.999)
    balanced = class_balanced_focal_loss(x, y, class_counts=COUNTS, beta=0.999, gamma=gamma)
    torch.testing.assert_close(balanced, weights * focal, **close_to)

    p = torch.sigmoid(x)
    reduced = reduced_focal_loss(x, y, threshold=0.3, gamma=gamma)
    oracle = torch.where(p > 0.3, cross_entropy, focal / 0.3**gamma)
    torch.testing.assert_close(reduced, oracle, **close_to)
    is_hard = torch.where(y == 1, p, 1 - p) < 0.3
    original = reduced_focal_loss(x, y, threshold=0.3, gamma=gamma, variant="original")
    oracle = torch.where(is_hard, cross_entropy, focal / 0.3**gamma)
    torch.testing.assert_close(original, oracle, **close_to)


@every_loss
def test_value_and_gradient_are_finite_at_any_logit(loss):
    labels = torch.tensor([0.0, 1e-45, 1e-8, 0.25, 0.5, 1 - 6e-8, 1.0])
    x = torch.tensor([EXTREME]).repeat(len(labels), 1).requires_grad_()
    y = labels[:, None].expand_as(x)
    values = loss(x, y)
    values.sum().backward()
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()
    assert (values >= 0).all()
    assert torch.isfinite(x.grad).all()


@every_loss
def test_gradients_are_those_of_finite_differences(loss):
    torch.manual_seed(0)
    x = 2 * torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    y = torch.rand(4, 5, dtype=torch.float64)
    y[0, :2] = torch.tensor([0.0, 1.0])
    assert torch.autograd.gradcheck(lambda z: loss(z, y), x)


@every_loss
def test_logits_of_a_bfloat16_autocast_are_computed_in_float32(loss):
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 5)
    inputs, y = 100 * torch.randn(8, 6), torch.rand(8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(inputs)
        values = loss(logits, y)
    assert logits.dtype == torch.bfloat16
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, loss(logits.float(), y), rtol=0, atol=0)
    values.sum().backward()
    assert torch.isfinite(head.weight.grad).all()


@every_loss
def test_shapes_must_agree(loss):
    with pytest.raises(ValueError, match="shapes must agree"):
        loss(torch.zeros(2, 3), torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        (reduced_focal_loss, {"threshold": 0.0}, "threshold must be in (0, 1), got 0.0"),
        (reduced_focal_loss, {"threshold": 1.0}, "threshold must be in (0, 1), got 1.0"),
        (reduced_focal_loss, {"gamma": 0.5}, "gamma must be 0 or at least 1, got 0.5"),
        (reduced_focal_loss, {"variant": "x"}, "variant must be as_printed or original, got 'x'"),
        (class_balanced_focal_loss, CLASS_BALANCED | {"beta": 1.0}, "beta must be in [0, 1), got"),
        (class_balanced_focal_loss, CLASS_BALANCED | {"gamma": 0.5}, "gamma must be 0 or"),
        (
            class_balanced_focal_loss,
            CLASS_BALANCED | {"class_counts": (1, 2)},
            "class_counts must be of 3 classes, got 2",
        ),
        (
            class_balanced_focal_loss,
            CLASS_BALANCED | {"class_counts": (1, 2, -3)},
            "class_counts must be [C] and not negative, got [1.0, 2.0, -3.0]",
        ),
    ],
)
def test_a_setting_out_of_range_is_refused_by_value(loss, settings, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 the message is compared below
        loss(torch.zeros(2, 3), torch.zeros(2, 3), **settings)
    assert str(caught.value).startswith(message)
