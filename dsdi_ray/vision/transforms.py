"""Training pictures: decoding, resizing, and the paper's augmentation."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from dsdi_ray.vision.pictures import resize_square


def decode_square(jpeg: bytes, side_px: int) -> NDArray[np.uint8]:
    """Decode a JPEG and resize it as frames are when they are scored.

    Args:
        jpeg: The file's bytes.
        side_px: S.

    Returns:
        RGB, ``[S, S, 3]``.
    """
    with Image.open(io.BytesIO(jpeg)) as image:
        return resize_square(np.array(image.convert("RGB"), dtype=np.uint8), side_px)


def augmentation(
    *,
    horizontal_flip: float,
    vertical_flip: float,
    rotation_degrees: float,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> v2.Transform:
    """The paper's augmentation (section 3): flips, rotation, colour jitter.

    Args:
        horizontal_flip: Probability.
        vertical_flip: Probability.
        rotation_degrees: Largest angle either way.
        brightness: Largest relative change.
        contrast: Largest relative change.
        saturation: Largest relative change.
        hue: Largest turn of the colour circle, in turns.

    Returns:
        A transform of uint8 pictures ``[3, S, S]``.
    """
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(horizontal_flip),
            v2.RandomVerticalFlip(vertical_flip),
            v2.RandomRotation(rotation_degrees, interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(brightness, contrast, saturation, hue),
        ]
    )


def to_channels_first(picture: NDArray[np.uint8]) -> Tensor:
    """``[S, S, 3]`` to ``[3, S, S]``, without a copy."""
    return torch.from_numpy(picture).permute(2, 0, 1)
