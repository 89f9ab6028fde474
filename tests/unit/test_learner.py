"""Steps of training in this process: what must not change them."""

import numpy as np
import pytest
import torch
from torch import nn

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.learner import Learner, MicroBatch
from dsdi_ray.distributed.loss_watch import DivergedError, LossWatch
from dsdi_ray.distributed.train_loop import starting_network
from dsdi_ray.method.objective import Objective

CPU = torch.device("cpu")
STILL = dict.fromkeys(
    ("horizontal_flip", "vertical_flip", "rotation_degrees", "brightness", "contrast", "saturation",
     "hue"), 0.0
)  # fmt: skip


def recipe(**changes):
    values = {
        "name": "tiny",
        "backbone": {"name": "test_convnext", "weights": "none"},  # no batch normalisation
        "input_px": 32,
        "batch_size": 8,
        "epochs": 2,
        "augmentation": STILL,
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"warmup_epochs": 0},
    }
    return Recipe.model_validate(values | changes)


def learner(of, network=None):
    network = network or starting_network(of, weights="none", num_classes=3)
    objective = Objective(remove_outliers=of.loss.remove_outliers)
    return Learner(of, network, objective, device=CPU, steps_per_epoch=10)


def parts(num_parts=1, num_images=8):
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (num_images, 3, 32, 32), dtype=np.uint8))
    labels = torch.from_numpy(rng.random((num_images, 3), np.float32))
    return [
        MicroBatch(
            pictures=pictures[own],
            labels=labels[own],
            is_asked=None,
            seeds=[(0, 0, int(i)) for i in own],
        )
        for own in np.array_split(np.arange(num_images), num_parts)
    ]


def stepped(of, num_parts=1, num_steps=3):
    learns = learner(of)
    for i in range(num_steps):
        losses = learns.step(parts(num_parts), number=i, batch_size=8)
    return learns, losses


def test_steps_lower_the_loss_of_each_image():
    _, first = stepped(recipe(), num_steps=1)
    _, later = stepped(recipe(), num_steps=10)
    assert first.shape == (8,)
    assert later.mean() < first.mean()


@pytest.mark.parametrize("num_parts", [2, 3])
def test_micro_batches_even_of_unequal_size_are_as_the_whole_batch(num_parts):
    whole, in_parts = stepped(recipe())[0].weights(), stepped(recipe(), num_parts)[0].weights()
    for name, weight in whole.items():
        torch.testing.assert_close(in_parts[name], weight, atol=1e-5, rtol=1e-4)


def test_outliers_leave_the_gradient_of_their_micro_batch_but_are_seen():
    """Of two images one is removed: the step is that of the other alone."""
    of = recipe(loss={"remove_outliers": 1}, batch_size=2)
    learns = learner(of)
    losses = learns.step(parts(num_images=2), number=0, batch_size=2)
    assert losses.shape == (2,)
    (both,) = parts(num_images=2)
    stays = int(losses.argmin())
    alone = MicroBatch(
        pictures=both.pictures[[stays]],
        labels=both.labels[[stays]],
        is_asked=None,
        seeds=[both.seeds[stays]],
    )
    other = learner(recipe(batch_size=2))
    other.step([alone], number=0, batch_size=1)
    for name, weight in other.weights().items():
        torch.testing.assert_close(learns.weights()[name], weight, atol=1e-6, rtol=1e-5)


class TwoHeads(nn.Module):
    """Logits, and auxiliary logits besides in train mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.main, self.auxiliary = nn.Linear(3, 3), nn.Linear(3, 3)
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 32, 32)}

    def forward(self, inputs):
        features = inputs.mean(dim=(2, 3))
        if not self.training:
            return self.main(features)
        return self.main(features), self.auxiliary(features)


def test_auxiliary_logits_are_trained_as_well_and_their_loss_is_added():
    network = TwoHeads()
    before = [network.main.weight.clone(), network.auxiliary.weight.clone()]
    learns = learner(recipe(), network)
    losses = learns.step(parts(), number=0, batch_size=8)
    assert all(
        (a != b).any()
        for a, b in zip(before, (network.main.weight, network.auxiliary.weight), strict=True)
    )
    assert losses.shape == (8,)
    assert learns.logits(parts()[0].pictures).shape == (8, 3)


def test_a_moving_average_lags_behind_and_becomes_the_member():
    plain, _ = stepped(recipe())
    averaged, _ = stepped(recipe(ema_decay=0.9))
    assert averaged.weights().keys() == averaged.average_weights().keys()
    for name, weight in plain.weights().items():
        assert torch.equal(averaged.weights()[name], weight), "training goes on without it"
    start = learner(recipe()).weights()
    name = next(n for n, t in start.items() if t.ndim > 1)
    gone = (plain.weights()[name] - start[name]).norm()
    assert 0 < (averaged.average_weights()[name] - start[name]).norm() < gone
    inputs = parts()[0].pictures
    assert not torch.equal(averaged.logits(inputs), plain.logits(inputs))


@pytest.mark.parametrize("optimizer", [{"name": "sgd"}, {"name": "adamw", "lr": 0.01}])
def test_a_learner_that_loads_a_state_goes_on_to_the_bit(optimizer):
    of = recipe(optimizer=optimizer, ema_decay=0.99)
    unbroken, _ = stepped(of, num_steps=4)
    saved, _ = stepped(of, num_steps=2)
    resumed = learner(of)
    resumed.load(saved.weights(), saved.average_weights(), saved.optimizer_state())
    for i in (2, 3):
        resumed.step(parts(), number=i, batch_size=8)
    for state in (Learner.weights, Learner.average_weights, Learner.optimizer_state):
        expected, got = state(unbroken), state(resumed)
        assert expected.keys() == got.keys()
        assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def watch():
    return LossWatch(recipe(), epoch=2, num_workers=1)


def test_the_mean_of_an_epoch_is_over_its_images():
    losses = watch()
    losses.add(torch.tensor([1.0, 2.0]), ["a", "b"])
    losses.add(torch.tensor([3.0, 6.0]), ["c", "d"])
    assert losses.mean() == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e7])
def test_a_loss_that_diverges_names_recipe_epoch_step_and_image(bad):
    losses = watch()
    for i in range(60):
        losses.add(torch.tensor([1.0, 2.0]), [f"image-{i}", f"other-{i}"])
    losses.add(torch.tensor([1.0, bad]), ["good", "bad"])
    losses.add(torch.tensor([bad, bad]), ["later", "later too"])
    with pytest.raises(
        DivergedError,
        match=r"recipe tiny: the loss diverged in epoch 3, step 61, on bad \(.*\); set optimizer.lr "
        r"below 0.1",
    ):
        losses.mean()
