import pytest
import torch

from dsdi_ray.method.outliers import kept_images


def kept(losses, num_removed=1):
    return kept_images(torch.tensor(losses), num_removed=num_removed).tolist()


def test_the_image_of_the_largest_loss_is_removed():
    assert kept([1.0, 5.0, 3.0]) == [True, False, True]
    assert kept([1.0, 5.0, 3.0], num_removed=2) == [True, False, False]
    assert kept([1.0, 5.0, 3.0], num_removed=0) == [True] * 3


def test_of_equal_losses_the_earlier_image_is_removed():
    assert kept([2.0] * 4, num_removed=2) == [False, False, True, True]


def test_a_loss_that_is_not_finite_stays_to_be_seen():
    assert kept([1.0, float("nan"), 3.0, float("inf")]) == [True, True, False, True]
    assert kept([float("nan")] * 3, num_removed=2) == [True] * 3


@pytest.mark.parametrize("num_removed", [-1, 3, 4])
def test_some_image_must_be_left(num_removed):
    with pytest.raises(ValueError, match=f"num_removed must be from 0 to 2, got {num_removed}"):
        kept([1.0, 2.0, 3.0], num_removed)
