"""A map that is painted twice at once, in colour and in materials, and where things may stand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dsdi_ray.synthetic.geometry import Colour, Curve, Point
from dsdi_ray.synthetic.materials import Material
from dsdi_ray.synthetic.plans import ScenePlan
from dsdi_ray.synthetic.textures import Floats, Size

_TAKEN_SCALE = 4


@dataclass
class Canvas:
    """A map under the brush.

    Lengths of things are metres, places are pixels. Heights lean up the map by ``lean`` and throw
    shadows along ``sun`` (both pixels per pixel of height).
    """

    rng: np.random.Generator
    plan: ScenePlan
    size: Size
    pixels_per_metre: float
    lean: float
    sun: Point
    rgb: Image.Image
    materials: Image.Image
    relief: Floats
    roads: list[tuple[list[Point], float]] = field(default_factory=list)
    rivers: list[Curve] = field(default_factory=list)
    shore: Curve | None = None
    apron: tuple[Point, float] | None = None
    shore_setback_px: float = 0.0
    _standing: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._shadow = Image.new("L", self.size)
        self._taken = Image.new(
            "L", (self.size[0] // _TAKEN_SCALE + 1, self.size[1] // _TAKEN_SCALE + 1)
        )
        self._shadow_draw = ImageDraw.Draw(self._shadow)
        self._taken_draw = ImageDraw.Draw(self._taken)
        self.attach(self.rgb, self.materials)

    def attach(self, rgb: Image.Image, materials: Image.Image) -> None:
        """Go on with other pictures of the same size."""
        self.rgb, self.materials = rgb, materials
        self.colour_draw = ImageDraw.Draw(rgb)
        self.material_draw = ImageDraw.Draw(materials)

    def px(self, metres: float) -> float:
        """Pixels of a length on the ground."""
        return metres * self.pixels_per_metre

    def polygon(self, points: Sequence[Point], colour: Colour, material: Material | None) -> None:
        """Fill a polygon; without a material what was there stays what it was."""
        self.colour_draw.polygon(points, fill=colour)
        if material is not None:
            self.material_draw.polygon(points, fill=int(material))

    def line(
        self, points: Sequence[Point], colour: Colour, material: Material | None, *, width_px: float
    ) -> None:
        """Draw a line of at least one pixel."""
        width = max(1, round(width_px))
        self.colour_draw.line(points, fill=colour, width=width)
        if material is not None:
            self.material_draw.line(points, fill=int(material), width=width)

    def disc(
        self,
        centre: Point,
        radius_px: float,
        colour: Colour,
        material: Material | None,
        *,
        squash: float = 1.0,
    ) -> None:
        """Fill a circle, or an ellipse whose height is ``squash`` times its width."""
        x, y = centre
        box = (x - radius_px, y - radius_px * squash, x + radius_px, y + radius_px * squash)
        self.colour_draw.ellipse(box, fill=colour)
        if material is not None:
            self.material_draw.ellipse(box, fill=int(material))

    def shadow(self, points: Sequence[Point], *, height_px: float) -> None:
        """Throw the shadow of an upright body: its footprint swept along the sun."""
        dx, dy = self.sun[0] * height_px, self.sun[1] * height_px
        moved = [(x + dx, y + dy) for x, y in points]
        self._shadow_draw.polygon(moved, fill=255)
        for i, corner in enumerate(points):
            j = (i + 1) % len(points)
            self._shadow_draw.polygon([corner, points[j], moved[j], moved[i]], fill=255)

    def round_shadow(self, centre: Point, radius_px: float, *, height_px: float) -> None:
        """Throw the shadow of a crown or a tank."""
        x, y = centre[0] + self.sun[0] * height_px, centre[1] + self.sun[1] * height_px
        self._shadow_draw.ellipse(
            (x - radius_px, y - radius_px, x + radius_px, y + radius_px), fill=255
        )

    def stand(self, foot_y: float, draw: Callable[[], None]) -> None:
        """Draw later, behind what stands nearer to the viewer."""
        self._standing.append((foot_y, draw))

    def draw_standing(self) -> None:
        """Draw all that stands, from the far to the near."""
        for _, draw in sorted(self._standing, key=lambda item: item[0]):
            draw()
        self._standing.clear()

    def shade_ground(self, colours: Floats) -> Floats:
        """Darken the ground, ``[H, W, 3]``, where the shadows fall."""
        depth = np.float32(0.25 + 0.33 * self.plan.sunlight)
        soft = self._shadow.filter(ImageFilter.BoxBlur(0.8 + 2.0 * (1 - self.plan.sunlight)))
        dark = np.asarray(soft, dtype=np.float32) * (depth / 255)
        return colours * (1 - dark[..., None] * np.array([1.0, 0.95, 0.82], dtype=np.float32))

    def take(self, points: Sequence[Point], *, margin_px: float = 0.0) -> None:
        """Keep a place from being built on again."""
        scaled = [(x / _TAKEN_SCALE, y / _TAKEN_SCALE) for x, y in points]
        if len(scaled) > 2:
            self._taken_draw.polygon(scaled, fill=255)
        width = max(1, round(2 * margin_px / _TAKEN_SCALE))
        self._taken_draw.line(
            [*scaled, scaled[0]] if len(scaled) > 2 else scaled, fill=255, width=width
        )

    def has_material(self, point: Point, wanted: frozenset[Material]) -> bool:
        """Whether a point lies in the map and shows one of the materials."""
        x, y = point
        if not (0 <= x < self.size[0] and 0 <= y < self.size[1]):
            return False
        return self.materials.getpixel((int(x), int(y))) in wanted

    def is_free(self, points: Sequence[Point], ground: frozenset[Material]) -> bool:
        """Whether all points lie in the map, on one of the materials, and are not taken."""
        return all(
            self.has_material((x, y), ground)
            and not self._taken.getpixel((int(x / _TAKEN_SCALE), int(y / _TAKEN_SCALE)))
            for x, y in points
        )

    def random_point(self, *, margin: float = 0.05) -> Point:
        """A random place, not at the very border."""
        x, y = self.rng.uniform(margin, 1 - margin, 2)
        return float(x * self.size[0]), float(y * self.size[1])

    def random_curve(
        self, *, bend: float, through: Point | None = None, angle: float | None = None
    ) -> Curve:
        """A curve through the map; ``bend`` from 0 (straight) to 1 (meandering)."""
        rng = self.rng
        reach = min(self.size)
        waves = tuple(
            (
                float(bend * rng.uniform(0.03, 0.09) * length),
                float(length / 2),
                float(rng.uniform(0, 6.28)),
            )
            for length in (reach * rng.uniform(0.9, 1.6), reach * rng.uniform(0.3, 0.6))
        )
        return Curve(
            through or self.random_point(margin=0.25),
            float(rng.uniform(0, 2 * math.pi)) if angle is None else angle,
            waves if bend > 0 else (),
        )
