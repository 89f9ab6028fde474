"""Shrink a photograph to the JPEG that a prepared set stores."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.failures import short_reason
from dsdi_ray.vision.probe import image_facts

_JPEG_QUALITY = 90
# A JPEG decoded at a fraction of its size is kept this much larger than what is stored: nearer, the
# inverse DCT's box shows (38 dB to the plain way at 1.0, 43 dB from here on).
_DRAFT_MARGIN = 1.25
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
        capture_time: ISO 8601, None where the source does not say.
        latitude: Degrees north.
        longitude: Degrees east.
    """

    jpeg: bytes
    width: int
    height: int
    capture_time: str | None
    latitude: float | None
    longitude: float | None


def shrink_to_jpeg(content: bytes, *, short_side_px: int) -> ShrunkImage:
    """Decode an image, turn it upright and shrink it; small ones are never enlarged.

    A large JPEG is decoded at a half, a quarter or an eighth of its size by way of its DCT (Pillow's
    ``draft``): reading its Huffman codes is then most of the work. Its picture is that of
    decoding it whole to 40 dB and better. A JPEG that is upright and small enough is kept byte by byte.

    Args:
        content: A file of any format that Pillow reads.
        short_side_px: Length of the shorter side of what is larger.

    Raises:
        DecodeError: If it cannot be read whole.
    """
    try:
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
    facts = image_facts(image)
    taken = (facts.capture_time, facts.latitude, facts.longitude)
    orientation = _orientation(image)
    scale = min(1.0, short_side_px / min(image.size))
    size = (round(image.width * scale), round(image.height * scale))
    if image.format == "JPEG" and image.mode in {"RGB", "L"} and scale == 1 and orientation == 1:
        image.load()
        return ShrunkImage(content, image.width, image.height, *taken)
    small = decode_at(image, size)
    if orientation in _UPRIGHT:
        small = small.transpose(_UPRIGHT[orientation])
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return ShrunkImage(buffer.getvalue(), small.width, small.height, *taken)


def decode_at(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Decode an open image and resize it; a JPEG at the fraction of its size that does."""
    drafted = image.draft("RGB", (round(size[0] * _DRAFT_MARGIN), round(size[1] * _DRAFT_MARGIN)))
    picture = _as_rgb(image)
    if picture.size == size:
        return picture
    box = None if drafted is None else drafted[1]  # 1501 pixels are 375.25 at a quarter, not 376
    return picture.resize(size, Image.Resampling.LANCZOS, box=box)


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
