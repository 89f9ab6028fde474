"""Where a camera looks on a map, what reaches it, and what the air and the lens add."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from dsdi_ray.synthetic.plans import ScenePlan
from dsdi_ray.synthetic.textures import Bytes, Size, smooth_field, texture

_THICKEST_HAZE = 0.68  # nothing that counts as visible is hidden altogether
_SOFT_LENS = ImageFilter.Kernel((3, 3), (1, 2, 1, 2, 10, 2, 1, 2, 1))


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A view of the map.

    Attributes:
        x: Place of the frame's middle on the map, pixels.
        y: As x.
        scale: Map pixels per frame pixel at the frame's middle.
        angle: Turn about the view axis, radians.
        tilt: 0 looks straight down; the far edge is ``1 / (1 - tilt / 2)`` times as wide as the middle.
    """

    x: float
    y: float
    scale: float
    angle: float
    tilt: float

    def coefficients(self, size: Size) -> tuple[float, ...]:
        """The eight numbers with which Pillow's PERSPECTIVE maps frame pixels to map pixels."""
        width, height = size
        c, s = math.cos(self.angle) * self.scale, math.sin(self.angle) * self.scale
        stretch = 1 + 0.35 * self.tilt  # ground that recedes is foreshortened
        far, slope = 1 - self.tilt / 2, self.tilt / height
        rows = (
            (
                c,
                -s * stretch + self.x * slope,
                -c * width / 2 + s * stretch * height / 2 + self.x * far,
            ),
            (
                s,
                c * stretch + self.y * slope,
                -s * width / 2 - c * stretch * height / 2 + self.y * far,
            ),
        )
        return (*(v / far for v in rows[0]), *(v / far for v in rows[1]), 0.0, slope / far)

    def corners(self, size: Size) -> list[tuple[float, float]]:
        """Where the frame's corners lie on the map."""
        a, b, c, d, e, f, g, h = self.coefficients(size)
        return [
            ((a * x + b * y + c) / (g * x + h * y + 1), (d * x + e * y + f) / (g * x + h * y + 1))
            for x in (0, size[0])
            for y in (0, size[1])
        ]


class Camera:
    """One camera on one flight: frame size, air, horizon."""

    def __init__(self, rng: np.random.Generator, plan: ScenePlan, size: Size) -> None:
        self.size = size
        self._sky_px = (
            round(size[1] * float(rng.uniform(0.04, 0.17)))
            if plan.is_oblique and rng.random() < 0.3
            else 0
        )
        self.ground_size = (size[0], size[1] - self._sky_px)
        haze = (
            float(rng.uniform(0.1, 0.45)) * (1.5 - plan.sunlight)
            if plan.is_oblique
            else float(rng.uniform(0, 0.06))
        )
        self._air = tuple(
            int(v) for v in np.array((188, 200, 214)) + 10 * plan.warmth * np.array((1, 0, -1))
        )
        self._haze = self._haze_mask(haze)
        self._sky = self._paint_sky(plan) if self._sky_px else None

    def see(self, rgb: Image.Image, pose: Pose) -> Image.Image:
        """The picture of the map from a pose, mode "RGB"."""
        ground = self._project(rgb, pose, Image.Resampling.BILINEAR)
        if self._haze is not None:
            ground.paste(self._air, None, self._haze)
        if self._sky is None:
            return ground
        picture = self._sky.copy()
        picture.paste(ground, (0, self._sky_px))
        return picture

    def see_materials(self, materials: Image.Image, pose: Pose) -> Image.Image:
        """The materials that the same picture shows, mode "L"."""
        ground = self._project(materials, pose, Image.Resampling.NEAREST)
        if not self._sky_px:
            return ground
        picture = Image.new("L", self.size)
        picture.paste(ground, (0, self._sky_px))
        return picture

    def _project(
        self, picture: Image.Image, pose: Pose, resampling: Image.Resampling
    ) -> Image.Image:
        numbers = pose.coefficients(self.ground_size)
        if pose.tilt == 0:  # the last two are then 0, and the affine way is a third faster
            return picture.transform(
                self.ground_size, Image.Transform.AFFINE, numbers[:6], resampling
            )
        return picture.transform(self.ground_size, Image.Transform.PERSPECTIVE, numbers, resampling)

    def _haze_mask(self, haze: float) -> Image.Image | None:
        if haze < 0.02:
            return None
        far = np.linspace(1, 0, self.ground_size[1]) ** 1.6
        horizon = 0.5 * np.linspace(1, 0, self.ground_size[1]) ** 9 if self._sky_px else 0.0
        alpha = np.minimum(0.25 * haze + 1.1 * haze * far + horizon, _THICKEST_HAZE)
        column = Image.fromarray((alpha * 255).astype(np.uint8)[:, None])
        return column.resize(self.ground_size)

    def _paint_sky(self, plan: ScenePlan) -> Image.Image:
        low = np.array(self._air, dtype=np.float64)
        high = np.array((118, 158, 208)) * plan.sunlight + np.array((176, 184, 192)) * (
            1 - plan.sunlight
        )
        part = np.linspace(1, 0, self._sky_px)[:, None] ** 0.8
        column = np.broadcast_to(low, (self.size[1], 3)).copy()
        column[: self._sky_px] = low + part * (high - low)
        return Image.fromarray(column.astype(np.uint8)[:, None, :]).resize(self.size)


def map_size(poses: Sequence[Pose], ground_size: Size) -> tuple[Size, float, float]:
    """Size of the map that holds all poses, and how far to move the poses to lie in it."""
    corners = np.array([corner for pose in poses for corner in pose.corners(ground_size)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    width, height = (int(v) for v in np.ceil(high - low) + 2)
    return (width, height), float(1 - low[0]), float(1 - low[1])


def light(rgb: Image.Image, rng: np.random.Generator, plan: ScenePlan) -> Image.Image:
    """The map in the light of the day: exposure, contrast, tint."""
    exposure = float(rng.uniform(0.86, 1.14)) * (0.94 + 0.1 * plan.sunlight)
    contrast = float(rng.uniform(0.8, 1.08)) + 0.14 * plan.sunlight
    tint = 1 + 0.06 * plan.warmth * np.array((1.0, 0.2, -1.2))
    levels = np.arange(256)
    table: list[int] = []
    for gain in tint:
        curve = 118 + contrast * (levels * exposure * gain - 118)
        table += np.clip(curve + 6, 0, 255).astype(int).tolist()
    return rgb.point(table)


def expose(picture: Image.Image, rng: np.random.Generator) -> Bytes:
    """A still as the sensor delivers it: soft lens, vignette, grain; ``[H, W, 3]`` uint8."""
    size = picture.size
    pixels = np.asarray(picture.filter(_SOFT_LENS), dtype=np.float32)
    x, y = (
        np.linspace(-1, 1, size[0], dtype=np.float32),
        np.linspace(-1, 1, size[1], dtype=np.float32),
    )
    vignette = 1 - np.float32(rng.uniform(0, 0.16)) * (x[None, :] ** 2 + y[:, None] ** 2) / 2
    strength = np.float32(rng.uniform(1.5, 6.5))
    grain = texture("fine", rng, size) * strength
    speckle = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8).astype(np.float32) - 127.5
    clouds = 1 + np.float32(0.03) * smooth_field(rng, size, cells=2)
    pixels = pixels * (vignette * clouds)[..., None] + grain[..., None] + speckle * (strength / 128)
    exposed: Bytes = np.clip(pixels, 0, 255).astype(np.uint8)
    return exposed
