"""Points, lines and outlines on a map, in pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.synthetic.textures import Floats, Size

Point = tuple[float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Curve:
    """A wavy line across a map: ``v = sum a sin(u / l + p)`` in axes turned by ``angle``.

    Attributes:
        origin: A point near the line, pixels.
        angle: Direction of travel, radians.
        waves: Amplitude (pixels), wavelength (pixels) and phase of each wave.
    """

    origin: Point
    angle: float
    waves: tuple[tuple[float, float, float], ...] = ()

    def points(self, size: Size, *, step: float = 6.0) -> list[Point]:
        """Points of the line within the map and a little beyond, in order."""
        reach = math.hypot(*size) + 60
        u = np.arange(-reach, reach, step)
        v = sum((a * np.sin(u / w + p) for a, w, p in self.waves), np.zeros_like(u))
        x = self.origin[0] + u * math.cos(self.angle) - v * math.sin(self.angle)
        y = self.origin[1] + u * math.sin(self.angle) + v * math.cos(self.angle)
        keep = (x > -60) & (x < size[0] + 60) & (y > -60) & (y < size[1] + 60)
        return [(float(a), float(b)) for a, b in zip(x[keep], y[keep], strict=True)]

    def along(self, size: Size) -> Floats:
        """Distance travelled at each pixel, pixels, ``[H, W]``."""
        x, y = _grid(size, self.origin)
        return x * np.float32(math.cos(self.angle)) + y * np.float32(math.sin(self.angle))

    def across(self, size: Size) -> Floats:
        """Signed distance from the line at each pixel, pixels, ``[H, W]``."""
        x, y = _grid(size, self.origin)
        v = y * np.float32(math.cos(self.angle)) - x * np.float32(math.sin(self.angle))
        u = self.along(size) if self.waves else v
        for amplitude, length, phase in self.waves:
            v = v - np.float32(amplitude) * np.sin(u / np.float32(length) + np.float32(phase))
        return v


def rectangle(centre: Point, length_px: float, width_px: float, angle: float) -> list[Point]:
    """Corners of a turned rectangle; ``angle`` is the direction of its length."""
    return turned(
        [
            (-length_px / 2, -width_px / 2),
            (length_px / 2, -width_px / 2),
            (length_px / 2, width_px / 2),
            (-length_px / 2, width_px / 2),
        ],
        centre,
        angle,
    )


def blob(rng: np.random.Generator, centre: Point, radius: float) -> list[Point]:
    """An irregular round outline."""
    turns = np.arange(11) * (2 * math.pi / 11)
    reach = radius * rng.uniform(0.65, 1.15, 11)
    return [
        (centre[0] + float(r * math.cos(t)), centre[1] + float(r * math.sin(t)))
        for r, t in zip(reach, turns, strict=True)
    ]


def turned(points: Sequence[Point], centre: Point, angle: float) -> list[Point]:
    """Points turned by an angle about the origin, then moved to ``centre``."""
    c, s = math.cos(angle), math.sin(angle)
    return [(centre[0] + x * c - y * s, centre[1] + x * s + y * c) for x, y in points]


def lifted(points: Sequence[Point], up_px: float) -> list[Point]:
    """Points moved up the map."""
    return [(x, y - up_px) for x, y in points]


def tinted(colour: Colour, factor: float) -> Colour:
    """A lighter or darker colour."""
    r, g, b = (min(255, max(0, round(c * factor))) for c in colour)
    return r, g, b


def heading(start: Point, end: Point) -> float:
    """Direction from one point to another, radians."""
    return math.atan2(end[1] - start[1], end[0] - start[0])


def _grid(size: Size, origin: Point) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    x = np.arange(size[0], dtype=np.float32)[None, :] - np.float32(origin[0])
    y = np.arange(size[1], dtype=np.float32)[:, None] - np.float32(origin[1])
    return x, y
