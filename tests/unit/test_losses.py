"""The soft-label focal loss against a float64 transcription of Eq. 1-2 and other oracles."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from dsdi_ray.method.losses import focal_loss


def equation(x, y, gamma):
    """Eq. 1-2 as printed, in float64; good where sigmoid neither underflows nor rounds to 1."""
    p = 1 / (1 + np.exp(-x))
    p_hat = 1 - np.abs(y - p)
    return -((1 - p_hat) ** gamma) * np.log(p_hat)


def one(x, y, gamma=2.0, dtype=torch.float64):
    return focal_loss(
        torch.tensor([[x]], dtype=dtype), torch.tensor([[y]], dtype=dtype), gamma=gamma
    )


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0, 5.0])
def test_it_is_the_equation(gamma):
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 5, (200, 37)), rng.random((200, 37))
    y[:50] = np.round(y[:50])
    y[50:60] = np.nextafter(0, 1)
    y[60:70] = 1 - 1e-12
    wanted = equation(x, y, gamma)
    exact = focal_loss(torch.from_numpy(x), torch.from_numpy(y), gamma=gamma)
    np.testing.assert_allclose(exact.numpy(), wanted, rtol=1e-7, atol=1e-13)
    single = focal_loss(torch.from_numpy(x).float(), torch.from_numpy(y).float(), gamma=gamma)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "gamma", "loss"),
    [
        (0.0, 1.0, 2.0, 0.25 * math.log(2)),  # p_hat 1/2
        (0.0, 0.0, 2.0, 0.25 * math.log(2)),
        (0.0, 1.0, 0.0, math.log(2)),
        (0.0, 0.75, 2.0, -(0.25**2) * math.log(0.75)),  # p_hat 3/4
        (math.log(3), 0.5, 1.0, -0.25 * math.log(0.75)),  # p 3/4
    ],
)
def test_hand_computed_values(x, y, gamma, loss):
    assert one(x, y, gamma).item() == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("p", [0.5, 0.1, 0.9, 1e-3])
def test_it_is_zero_where_the_prediction_equals_the_label(gamma, p):
    x = torch.tensor([[math.log(p / (1 - p))]], dtype=torch.float64, requires_grad=True)
    loss = focal_loss(x, torch.sigmoid(x.detach()), gamma=gamma)
    assert abs(loss.item()) < 1e-15
    loss.sum().backward()
    assert torch.isfinite(x.grad).all()
    if gamma > 0:
        assert abs(x.grad.item()) < 1e-12


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
def test_value_and_gradient_are_finite_at_any_logit(gamma):
    values = [0.0, 1e-3, 1.0, 16.0, 20.0, 50.0, 88.0, 104.0, 1e3, 1e4]
    labels = [0.0, 1e-45, 1e-8, 0.25, 0.5, 1 - 6e-8, 1.0]
    x = torch.tensor([[s * v for v in values for s in (1, -1)]]).repeat(len(labels), 1)
    x.requires_grad_()
    y = torch.tensor(labels)[:, None].expand_as(x)
    loss = focal_loss(x, y, gamma=gamma)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert (loss >= 0).all()
    assert torch.isfinite(x.grad).all()


def test_a_wrong_hard_label_costs_the_logit_itself():
    """A naive log(1 - p) is infinite there, a clamped one constant and without gradient."""
    for x, y in ((1e4, 0.0), (-1e4, 1.0)):
        logits = torch.tensor([[x]], requires_grad=True)
        loss = focal_loss(logits, torch.tensor([[y]]), gamma=2.0)
        loss.sum().backward()
        assert loss.item() == pytest.approx(1e4)
        assert logits.grad.item() == pytest.approx(math.copysign(1, x))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.0])
def test_gradients_are_those_of_finite_differences(gamma):
    torch.manual_seed(0)
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    y = torch.rand(4, 5, dtype=torch.float64)
    y[0, :2] = torch.tensor([0.0, 1.0])
    assert torch.autograd.gradcheck(lambda z: focal_loss(z, y, gamma=gamma), x)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_hard_labels_give_torchvisions_focal_loss_without_alpha(gamma):
    torch.manual_seed(0)
    x = 8 * torch.randn(64, 37)
    y = torch.randint(0, 2, (64, 37)).float()
    oracle = sigmoid_focal_loss(x, y, alpha=-1, gamma=gamma)
    torch.testing.assert_close(focal_loss(x, y, gamma=gamma), oracle, rtol=1e-4, atol=1e-6)


def test_hard_labels_and_gamma_0_give_cross_entropy_even_where_it_is_tiny():
    x = torch.linspace(-80, 80, 161)[None]
    for y in (torch.zeros_like(x), torch.ones_like(x)):
        oracle = -F.logsigmoid(((2 * y - 1) * x).double()).float()
        torch.testing.assert_close(focal_loss(x, y, gamma=0.0), oracle, rtol=1e-5, atol=0)


def test_soft_labels_are_not_torchvisions():
    assert one(0.0, 0.5).item() == 0
    half = torch.tensor([[0.5]])
    assert sigmoid_focal_loss(torch.zeros(1, 1), half, alpha=-1).item() > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype):
    loss = focal_loss(torch.zeros(2, 3, dtype=dtype), torch.ones(2, 3))
    assert loss.dtype == torch.float32
    assert loss.shape == (2, 3)


@pytest.mark.parametrize("gamma", [-1.0, 0.5, 0.999])
def test_a_gamma_with_infinite_gradients_is_refused(gamma):
    with pytest.raises(ValueError, match=f"gamma must be 0 or at least 1, got {gamma}"):
        one(0.0, 1.0, gamma)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes must agree"):
        focal_loss(torch.zeros(2, 3), torch.zeros(3))
