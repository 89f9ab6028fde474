"""Each change is torchvision's, on pictures that are each changed in a way of their own."""

import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from dsdi_ray import config
from dsdi_ray.vision.augmentation import (
    Augmentation,
    Changes,
    jitter_in_turn,
    jitter_together,
)
from dsdi_ray.vision.cpu_threads import LoneThreads

OFF = dict.fromkeys(config.Augmentation().scaled, 0.0)
SEEDS = [(0, 3, i) for i in range(6)]


def some(**changes):
    """All augmentation off but what is given."""
    return Augmentation(**(OFF | changes))


def pictures(num=6, side=24):
    torch.manual_seed(0)
    small = torch.randint(0, 256, (num, 3, side // 4, side // 4), dtype=torch.uint8)
    return v2.functional.resize(small, [side, side])


def one_by_one(change, inputs):
    """The change of torchvision on each picture, as floats from 0 to 255."""
    return 255 * torch.stack([change(picture / 255, i) for i, picture in enumerate(inputs)])


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, atol=0.02, rtol=0)


def test_nothing_on_changes_nothing():
    assert torch.equal(some().apply(pictures(), some().draw(SEEDS)), pictures().float())


@pytest.mark.parametrize(("key", "dimension"), [("horizontal_flip", -1), ("vertical_flip", -2)])
def test_flips_are_flips_of_some_pictures(key, dimension):
    always, sometimes = some(**{key: 1.0}), some(**{key: 0.5})
    flipped = always.apply(pictures(), always.draw(SEEDS))
    assert torch.equal(flipped, pictures().float().flip(dimension))
    drawn = sometimes.draw([(i,) for i in range(1000)])
    is_flipped = drawn.is_mirrored if dimension == -1 else drawn.is_upturned
    assert 440 < int(is_flipped.sum()) < 560


def test_rotation_with_flips_is_torchvisions():
    augmentation = some(rotation_degrees=40.0, horizontal_flip=0.5, vertical_flip=0.5)
    drawn = augmentation.draw(SEEDS)
    assert drawn.is_mirrored.any()
    assert drawn.is_upturned.any()

    def change(picture, i):
        picture = tv.horizontal_flip(picture) if drawn.is_mirrored[i] else picture
        picture = tv.vertical_flip(picture) if drawn.is_upturned[i] else picture
        angle = math.degrees(drawn.radians[i])
        return tv.rotate(picture, angle, interpolation=v2.InterpolationMode.BILINEAR)

    assert_same(augmentation.apply(pictures(), drawn), one_by_one(change, pictures()))


COLOUR_CHANGES = (
    ("brightness", lambda p, drawn, i: tv.adjust_brightness(p, float(drawn.factors[i, 0]))),
    ("contrast", lambda p, drawn, i: tv.adjust_contrast(p, float(drawn.factors[i, 1]))),
    ("saturation", lambda p, drawn, i: tv.adjust_saturation(p, float(drawn.factors[i, 2]))),
    ("hue", lambda p, drawn, i: tv.adjust_hue(p, float(drawn.turns[i]))),
)


@pytest.mark.parametrize(("key", "torchvisions"), COLOUR_CHANGES)
def test_each_change_of_colour_is_torchvisions(key, torchvisions):
    augmentation = some(**{key: 0.45})
    drawn = augmentation.draw(SEEDS)
    expected = one_by_one(lambda picture, i: torchvisions(picture, drawn, i), pictures())
    assert_same(augmentation.apply(pictures(), drawn), expected)


def test_changes_of_colour_come_in_each_pictures_own_order():
    augmentation = some(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    drawn = augmentation.draw(SEEDS)
    assert len({tuple(order) for order in drawn.order.tolist()}) > 1

    def change(picture, i):
        for k in drawn.order[i].tolist():
            picture = COLOUR_CHANGES[k][1](picture, drawn, i)
        return picture

    assert_same(augmentation.apply(pictures(), drawn), one_by_one(change, pictures()))


def test_what_is_drawn_spans_the_ranges():
    strong = some(rotation_degrees=10.0, brightness=0.2, contrast=1.5, hue=0.5)
    drawn: Changes = strong.draw([(i,) for i in range(2000)])
    degrees = torch.rad2deg(drawn.radians)
    assert degrees.min() < -9.5 < 9.5 < degrees.max() <= 10
    assert drawn.factors[:, 0].min() >= 0.8
    assert drawn.factors[:, 0].max() <= 1.2
    assert drawn.factors[:, 1].min() >= 0
    assert drawn.factors[:, 1].max() > 2.4
    assert torch.equal(drawn.factors[:, 2], torch.ones(2000))
    assert len({tuple(order) for order in drawn.order.tolist()}) == 24


def test_a_pictures_change_depends_on_its_own_seed_alone():
    full = Augmentation(**config.Augmentation().scaled)
    together = full.apply(pictures(), full.draw(SEEDS))
    for i in (4, 0):
        alone = full.apply(pictures()[i : i + 1], full.draw(SEEDS[i : i + 1]))
        assert torch.equal(alone[0], together[i])
    others = full.draw([(0, 4, i) for i in range(6)])
    assert not torch.equal(full.apply(pictures(), others), together)


def test_drawing_leaves_the_networks_randomness_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    some(hue=0.1).draw(SEEDS)
    assert torch.equal(torch.rand(1), expected)


def test_pictures_change_together_as_each_does_on_its_own():
    augmentation = Augmentation(**config.Augmentation().scaled)
    drawn = augmentation.draw(SEEDS)
    amounts = torch.cat([drawn.factors, drawn.turns[:, None]], dim=1)[..., None, None]
    in_turn = jitter_in_turn(pictures().float(), drawn.order, amounts)
    together = jitter_together(pictures().float(), drawn.order, amounts)
    assert torch.equal(in_turn, together)
    assert not torch.equal(in_turn, pictures().float())


def test_threads_change_pictures_as_one_does():
    augmentation = Augmentation(**config.Augmentation().scaled)
    inputs = pictures(num=30)
    drawn = augmentation.draw([(i,) for i in range(30)])
    with LoneThreads(3) as pool:
        by_threads = augmentation.apply(inputs, drawn, pool=pool)
    assert torch.equal(by_threads, augmentation.apply(inputs, drawn))
