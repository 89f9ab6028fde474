"""Shrink an image to the size that it is kept at for training."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.timeline import short_reason

_JPEG_QUALITY = 92


@dataclass(frozen=True)
class StoredImage:
    """A JPEG and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def prepare_image(path: Path, *, short_side_px: int) -> StoredImage:
    """Read an image, turn it upright and shrink it; one that is small enough keeps its size.

    A JPEG is decoded at a fraction of its size where that suffices (libjpeg's DCT scaling).

    Raises:
        DecodeError: If it cannot be read.
    """
    try:
        with Image.open(path) as image:
            short = min(image.size)
            if short > 2 * short_side_px:
                scale = short_side_px / short
                image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
            picture = ImageOps.exif_transpose(image).convert("RGB")
        scale = short_side_px / min(picture.size)
        if scale < 1:
            size = (round(picture.width * scale), round(picture.height * scale))
            picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    except UnidentifiedImageError as error:
        raise DecodeError("not an image of a known format") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DecodeError(f"cannot be read as an image: {short_reason(error)}") from error
    return StoredImage(buffer.getvalue(), *picture.size)
