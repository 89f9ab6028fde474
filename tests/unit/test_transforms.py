import io

import numpy as np
from PIL import Image

from dsdi_ray.vision.transforms import decode_square, to_channels_first


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
