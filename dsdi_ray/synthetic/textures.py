"""Noise: tileable textures made once per process, and smooth random fields."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Size = tuple[int, int]

_TILE_PX = 768
_BANK_SEED = 20201
_CROWN_SPACING_PX = 16


def smooth_field(rng: np.random.Generator, size: Size, *, cells: float) -> Floats:
    """Random field without detail, about standard normal, ``[H, W]``.

    Args:
        rng: Source of randomness.
        size: Width and height in pixels.
        cells: Bumps along the longer side.
    """
    width, height = size
    step = max(size) / cells
    knots = rng.standard_normal((int(height / step) + 3, int(width / step) + 3), dtype=np.float32)
    # The knots reach over the edge, so that a border looks like the middle.
    box = (0.5, 0.5, 0.5 + width / step, 0.5 + height / step)
    return np.asarray(
        Image.fromarray(knots).resize(size, Image.Resampling.BICUBIC, box=box), dtype=np.float32
    )


def texture(name: str, rng: np.random.Generator, size: Size, *, zoom: float = 1.0) -> Floats:
    """A random part of a texture, about in [-1, 1], ``[H, W]``.

    Args:
        name: A key of the bank: "fine", "medium", "crowns", "ridges" or "waves".
        rng: Source of randomness.
        size: Width and height in pixels.
        zoom: Enlargement; 1 takes the texture pixel by pixel.
    """
    tile = _bank()[name]
    width, height = (max(2, round(side / zoom)) for side in size)
    top, left = (int(v) for v in rng.integers(_TILE_PX, size=2))
    part = np.take(tile, np.arange(top, top + height) % _TILE_PX, axis=0)
    part = np.tile(part, (1, (left + width) // _TILE_PX + 1))[:, left : left + width]
    if (width, height) != size:
        part = np.asarray(Image.fromarray(part).resize(size, Image.Resampling.BILINEAR))
    return (part.astype(np.float32) - 127.5) / 127.5


def blend(colours: Floats, alpha: Floats, paint: Floats | tuple[int, int, int]) -> None:
    """Mix a paint into the colours, in place, by ``alpha`` in [0, 1], ``[H, W]``."""
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not rows.size:
        return
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    layer = np.asarray(paint, dtype=np.float32)
    part = colours[box]
    part += alpha[box][..., None] * ((layer[box] if layer.ndim == 3 else layer) - part)


def ramp(values: Floats, low: float, high: float) -> Floats:
    """0 below ``low``, 1 above ``high``, linear between."""
    part: Floats = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return part


@lru_cache(maxsize=1)
def _bank() -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(_BANK_SEED)
    ridges = _band(rng, shortest_px=5, longest_px=70, slope=0.9)
    return {
        "fine": _to_bytes(_band(rng, shortest_px=2, longest_px=6, slope=0.0)),
        "medium": _to_bytes(_band(rng, shortest_px=5, longest_px=110, slope=1.0)),
        "crowns": _crowns(rng),
        "ridges": _to_bytes(1.6 - 2.6 * np.abs(ridges) ** 0.7),
        "waves": _to_bytes(_band(rng, shortest_px=4, longest_px=30, slope=0.6, stretch=3.0)),
    }


def _band(
    rng: np.random.Generator,
    *,
    shortest_px: float,
    longest_px: float,
    slope: float,
    stretch: float = 1.0,
) -> NDArray[np.float64]:
    """Periodic noise whose wavelengths lie in a band, standard normal, ``[768, 768]``."""
    y = np.fft.fftfreq(_TILE_PX)[:, None]
    x = np.fft.rfftfreq(_TILE_PX)[None, :] * stretch
    frequency = np.hypot(x, y)
    inside = (frequency >= 1 / longest_px) & (frequency <= 1 / shortest_px)
    gain = np.where(inside, np.maximum(frequency, 1e-9) ** -slope, 0.0)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_TILE_PX, _TILE_PX))) * gain)
    scaled: NDArray[np.float64] = noise / noise.std()
    return scaled


def _crowns(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Tree crowns seen from above and lit from the upper left; dark between the crowns."""
    num_cells = _TILE_PX // _CROWN_SPACING_PX
    centre = rng.uniform(0.1, 0.9, (num_cells, num_cells, 2))
    radius = rng.uniform(0.55, 0.95, (num_cells, num_cells))
    tint = rng.uniform(-0.28, 0.28, (num_cells, num_cells))
    pixel = np.arange(_TILE_PX)
    cell, inside = np.divmod(pixel, _CROWN_SPACING_PX)
    u = inside / _CROWN_SPACING_PX
    best = np.full((_TILE_PX, _TILE_PX), -1.0)
    shade = np.full((_TILE_PX, _TILE_PX), -1.0)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            where = np.ix_((cell + dy) % num_cells, (cell + dx) % num_cells)
            y = u[:, None] - centre[where][..., 1] - dy
            x = u[None, :] - centre[where][..., 0] - dx
            dome = 1 - (x * x + y * y) / radius[where] ** 2
            higher = dome > best
            best = np.where(higher, dome, best)
            light = 0.75 * dome - 0.55 * (x + y) - 0.35 + tint[where]
            shade = np.where(higher, light, shade)
    rough = _band(rng, shortest_px=2, longest_px=8, slope=0.4)
    return _to_bytes(np.clip(1.5 * shade + 0.45 * rough, -2.4, 2.4))


def _to_bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map -2.5 .. 2.5 to 0 .. 255."""
    return np.clip(values * 51 + 127.5, 0, 255).astype(np.uint8)
