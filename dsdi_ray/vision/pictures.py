"""Pictures as arrays: resizing to a network's input, orientation, still images."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.cpu_features import avoid_slow_gathers
from dsdi_ray.vision.failures import short_reason

Squares = dict[int, NDArray[np.uint8]]  # side S in pixels -> RGB [S, S, 3]
Sample = tuple[int, Squares]  # position in the plan, pictures

# FFmpeg's numbers of BT.709, none given, FCC, BT.470BG, SMPTE 170M and 240M, BT.2020.
_COLOR_MATRICES = frozenset((1, 2, 4, 5, 6, 7, 9))
_FULL_RANGE = 2
_MAX_IMAGE_PX = 400_000_000
Image.MAX_IMAGE_PIXELS = _MAX_IMAGE_PX  # beyond which Pillow warns
_NO_DATA = 1e30  # maps mark pixels without a value by -3.4e38 and the like, or by NaN
# Filters for quarter turns counter-clockwise.
_TURNS: Mapping[int, Sequence[tuple[str, str | None]]] = {
    0: (),
    1: (("transpose", "cclock"),),
    2: (("hflip", None), ("vflip", None)),
    3: (("transpose", "clock"),),
}


def resize_square(picture: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Resize to a square without cropping, as the paper does; bicubic, antialiased.

    The kernel is that of :class:`SquareScaler`, so still images look as pictures of a video do.

    Args:
        picture: RGB, ``[H, W, 3]``.
        side_px: S.

    Returns:
        RGB, ``[S, S, 3]``.
    """
    if picture.shape[:2] == (side_px, side_px):
        return picture
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    resized = frame.reformat(side_px, side_px, format="rgb24", interpolation="BICUBIC")
    return np.asarray(resized.to_ndarray(), dtype=np.uint8)


class SquareScaler:
    """Turns decoded pictures upright and resizes them to squares, straight from YUV.

    Resizing before the conversion to RGB costs a third of converting whole pictures first. decord has
    FFmpeg do both in one step, which is slower than two (see :func:`_scales_in_two_steps`) and may
    differ in few pixels: so where decord may serve a clip too, it is done as decord does. *Measured*:
    then both give the same bytes, and a frame does not depend on which one served.

    Args:
        sizes: Sides in pixels.
        like_decord: Whether bytes must be decord's.
    """

    def __init__(self, sizes: Sequence[int], *, like_decord: bool) -> None:
        avoid_slow_gathers()
        self._sizes = sizes
        self._like_decord = like_decord
        self._graphs: dict[int, Graph] = {}
        self._kind: tuple[object, ...] | None = None

    def squares(self, frame: VideoFrame) -> Squares:
        """Resize one picture to every size, each straight from the decoded one.

        Raises:
            FFmpegError: If FFmpeg cannot convert its pixels.
        """
        turns = round(frame.rotation / 90) % 4
        look = (frame.format.name, frame.colorspace, frame.color_range)
        kind = (frame.width, frame.height, *look, turns)
        if kind != self._kind:  # a stream may change its picture size on the way
            self._graphs = {
                size: _square_graph(
                    frame,
                    size,
                    turns,
                    in_two_steps=not self._like_decord and _scales_in_two_steps(frame, size),
                )
                for size in self._sizes
            }
            self._kind = kind
        pictures = {}
        for size, graph in self._graphs.items():
            graph.push(frame)
            picture = graph.pull()
            assert isinstance(picture, VideoFrame)
            pictures[size] = np.asarray(picture.to_ndarray(), dtype=np.uint8)
        return pictures


def _square_graph(frame: VideoFrame, side_px: int, turns: int, *, in_two_steps: bool) -> Graph:
    graph = Graph()
    graph.threads = 1  # each of many would filter the rows that its neighbours need as well
    source = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000"
    scaling = [("scale", f"{side_px}:{side_px}")]
    if in_two_steps:
        # What the one step does: rounded to 8 bits before the conversion, colours half as wide.
        # But here FFmpeg has vector instructions for the first of the two.
        source += f":colorspace={frame.colorspace}:range={frame.color_range}"
        exact = "flags=bicubic+accurate_rnd"
        scaling = [
            ("scale", f"{side_px}:{side_px}:{exact}"),
            ("format", "yuv422p"),
            ("scale", exact),
        ]
    steps = [
        ("buffer", source),
        *_TURNS[turns],
        *scaling,
        ("format", "rgb24"),
        ("buffersink", None),
    ]
    for one, following in pairwise([graph.add(name, arguments) for name, arguments in steps]):
        one.link_to(following)
    graph.configure()
    return graph


def _scales_in_two_steps(frame: VideoFrame, side_px: int) -> bool:
    """Whether scaling first and converting to RGB then gives what one step gives, but for rounding.

    It does where FFmpeg's one step rounds to 8 bits and halves the colours' width as well, and as long
    as no value overshoots 0 to 255. *Measured* for limited range: the same bytes but for hard edges
    between fully saturated colours, where some pixels in 10,000 are up to 4 levels off; 0.88 ms and not
    1.29 from 1080p to 224 px.
    """
    return (
        frame.format.name in {"yuv420p", "yuv422p", "nv12"}
        and frame.color_range != _FULL_RANGE
        and frame.colorspace in _COLOR_MATRICES
        and side_px % 2 == 0
    )


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

    16 bits are scaled by their range, others (thermal, elevation) by the values' own; pixels without
    one are black.
    """
    values: NDArray[np.float64] = grey.astype(np.float64)
    is_measured = np.abs(values) < _NO_DATA  # nor is NaN
    measured = values[is_measured]
    if not measured.size:
        raise DecodeError("no pixel has a value")
    is_16_bit = 255 < measured.max() <= 65_535 and measured.min() >= 0
    low, high = (0.0, 65_535.0) if is_16_bit else (measured.min(initial=0), measured.max(initial=1))
    scaled = np.clip((values - low) / max(high - low, 1e-12) * 255, 0, 255)
    scaled[~is_measured] = 0
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)
