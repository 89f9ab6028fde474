import io

import numpy as np
import torch
from PIL import Image

from dsdi_ray.config import Augmentation
from dsdi_ray.vision.transforms import augmentation, decode_square, to_channels_first


def off(**changes):
    """All augmentation off but what is given."""
    return Augmentation(**(dict.fromkeys(Augmentation.model_fields, 0.0) | changes)).model_dump()


def picture(side=32):
    torch.manual_seed(0)
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8)


def test_a_decoded_picture_is_a_plain_resize_to_a_square_in_rgb():
    array = np.zeros((60, 100, 3), np.uint8)
    array[:, :50] = (250, 10, 10)
    array[:, 50:] = (10, 10, 250)
    jpeg = io.BytesIO()
    Image.fromarray(array).save(jpeg, "JPEG", quality=95)
    square = decode_square(jpeg.getvalue(), 32)
    assert square.shape == (32, 32, 3)
    assert square.dtype == np.uint8
    assert square[:, :14].mean((0, 1))[0] > 230  # nothing is cropped: half is red, half is blue
    assert square[:, 18:].mean((0, 1))[2] > 230


def test_grey_jpegs_become_rgb():
    jpeg = io.BytesIO()
    Image.new("L", (40, 30), 128).save(jpeg, "JPEG")
    assert decode_square(jpeg.getvalue(), 32).shape == (32, 32, 3)


def test_channels_come_first_without_a_copy():
    array = np.zeros((4, 4, 3), np.uint8)
    tensor = to_channels_first(array)
    array[1, 2, 0] = 7
    assert tensor[0, 1, 2] == 7


def test_augmentation_with_nothing_on_changes_nothing():
    assert torch.equal(augmentation(**off())(picture()), picture())


def test_flips_are_flips():
    flipped = augmentation(**off(horizontal_flip=1.0))(picture())
    assert torch.equal(flipped, picture().flip(-1))
    flipped = augmentation(**off(vertical_flip=1.0))(picture())
    assert torch.equal(flipped, picture().flip(-2))


def test_the_default_augmentation_changes_pictures_but_not_their_form():
    transform = augmentation(**Augmentation().model_dump())
    original = picture()
    changed = [transform(original) for _ in range(3)]
    assert all(c.dtype == torch.uint8 and c.shape == (3, 32, 32) for c in changed)
    assert not torch.equal(changed[0], changed[1])
