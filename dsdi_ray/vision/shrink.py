"""Shrink a photograph to the JPEG that a prepared set stores."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.failures import short_reason

_JPEG_QUALITY = 90
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes each EXIF orientation; 1 is upright


@dataclass(frozen=True)
class ShrunkImage:
    """An upright RGB or grey JPEG.

    Attributes:
        jpeg: The file's bytes.
        width: In pixels.
        height: In pixels.
    """

    jpeg: bytes
    width: int
    height: int


def shrink_to_jpeg(path: Path, *, short_side_px: int) -> ShrunkImage:
    """Decode an image, turn it upright and shrink it; small ones are never enlarged.

    A JPEG is decoded at a fraction of its size, as far as the result allows: a 24-megapixel one in
    about a fifth of the time. A JPEG that is upright and small enough is kept byte by byte.

    Args:
        path: An image of any format that Pillow reads.
        short_side_px: Length of the shorter side of what is larger.

    Raises:
        DecodeError: If it cannot be read whole.
    """
    try:
        content = path.read_bytes()
        if not content:
            raise DecodeError("the file is empty (0 bytes)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                return _shrink(image, content, short_side_px)
    except UnidentifiedImageError as error:
        raise DecodeError("not an image of a known format") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DecodeError(f"cannot be read as an image: {short_reason(error)}") from error


def _shrink(image: Image.Image, content: bytes, short_side_px: int) -> ShrunkImage:
    orientation = _orientation(image)
    scale = min(1.0, short_side_px / min(image.size))
    size = (round(image.width * scale), round(image.height * scale))
    if image.format == "JPEG" and image.mode in {"RGB", "L"} and scale == 1 and orientation == 1:
        image.load()
        return ShrunkImage(content, image.width, image.height)
    image.draft("RGB", size)
    small = _as_rgb(image)
    if small.size != size:
        small = small.resize(size, Image.Resampling.LANCZOS)
    if orientation in _UPRIGHT:
        small = small.transpose(_UPRIGHT[orientation])
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return ShrunkImage(buffer.getvalue(), small.width, small.height)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        raise DecodeError(f"pixels of mode {image.mode} have no known range")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parser fails in many ways; broken EXIF says nothing
        return 1
