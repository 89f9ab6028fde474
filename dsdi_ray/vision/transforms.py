"""Training pictures: decoded and resized."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

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


def to_channels_first(picture: NDArray[np.uint8]) -> Tensor:
    """``[S, S, 3]`` to ``[3, S, S]``, without a copy."""
    return torch.from_numpy(picture).permute(2, 0, 1)
