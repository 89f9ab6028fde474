"""Pictures as arrays: resizing to a network's input, orientation, still images."""

import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.video_stream import short_reason

_MAX_IMAGE_PX = 400_000_000


def resize_square(picture: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Resize to a square without cropping, as the paper does; bilinear, antialiased.

    The same function serves every decoder, so that a frame's pixels do not depend on which one
    gave it. Within 0.3 grey levels (RMS) of torchvision's antialiased bilinear ``resize``.

    Args:
        picture: RGB, ``[H, W, 3]``.
        side_px: S.

    Returns:
        RGB, ``[S, S, 3]``.
    """
    if picture.shape[:2] == (side_px, side_px):
        return picture
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    resized = frame.reformat(side_px, side_px, format="rgb24", interpolation="BILINEAR")
    return np.asarray(resized.to_ndarray(), dtype=np.uint8)


def upright(picture: NDArray[np.uint8], rotation_degrees: int) -> NDArray[np.uint8]:
    """Turn a decoded picture as its display matrix says, counter-clockwise, in quarter turns."""
    return np.rot90(picture, k=round(rotation_degrees / 90) % 4)


def read_image(path: str) -> tuple[NDArray[np.uint8], str | None]:
    """Read a still image, turned upright by its EXIF orientation.

    Returns:
        RGB, ``[H, W, 3]``, and what is damaged about it (the part that is lost is grey or black),
        None if nothing is.

    Raises:
        DecodeError: If it cannot be read.
    """
    try:
        return _read_image(path), None
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError("not an image of a known format") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = short_reason(error)
    try:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        return _read_image(path), f"damaged: {reason}"
    except (OSError, ValueError, SyntaxError) as error:
        raise DecodeError(f"cannot be read as an image: {reason}") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _read_image(path: str) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(Path(path)) as image:
            if image.width * image.height > _MAX_IMAGE_PX:
                raise DecodeError(f"picture size {image.width}x{image.height} is absurd")
            picture = ImageOps.exif_transpose(image)
            if picture.mode.startswith("I") or picture.mode == "F":
                return _stretched(np.asarray(picture))
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)


def _stretched(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of over 8 bits as RGB; Pillow would clip them to white.

    16 bits are scaled by their range, others (thermal, elevation) by the values' own.
    """
    values: NDArray[np.float64] = grey.astype(np.float64)
    is_16_bit = 255 < values.max(initial=0) <= 65_535 and values.min(initial=0) >= 0
    low, high = (0.0, 65_535.0) if is_16_bit else (values.min(initial=0), values.max(initial=1))
    scaled = np.clip((values - low) / max(high - low, 1e-12) * 255, 0, 255)
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)
