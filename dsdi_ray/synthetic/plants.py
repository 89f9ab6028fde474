"""Single trees, rows of trees and shrubs, stamped from a few pictures that a scene draws itself."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.geometry import Colour, Point, blob, tinted
from dsdi_ray.synthetic.materials import LAND, M, Material

_LEAVES: tuple[Colour, ...] = (
    (66, 88, 44), (82, 98, 50), (52, 76, 44), (96, 100, 56), (74, 92, 62), (120, 104, 54), (44, 66, 42),
)  # fmt: skip
_SHRUBS: tuple[Colour, ...] = ((98, 104, 62), (112, 108, 70), (84, 96, 56), (124, 116, 82))


@dataclass(frozen=True)
class _Stamp:
    picture: Image.Image
    mask: Image.Image
    radius_px: float


def plant(canvas: Canvas) -> None:
    """Plant trees and shrubs where there is open land."""
    rng, plan = canvas.rng, canvas.plan
    area = canvas.size[0] * canvas.size[1] / canvas.pixels_per_metre**2
    trees = [_stamp(canvas, _LEAVES, float(rng.uniform(2.2, 5.0))) for _ in range(9)]
    if plan.has("lone trees"):
        per_tree = float(np.exp(rng.uniform(np.log(130), np.log(900))))
        ground = LAND | {M.FLOOD} if plan.biome != "dry" else LAND
        _scatter(canvas, trees, min(900, int(area / per_tree)), ground, M.TREES)
    if rng.random() < (0.75 if plan.biome in ("dry", "forest", "mountain") else 0.4):
        shrubs = [_stamp(canvas, _SHRUBS, float(rng.uniform(0.8, 1.7))) for _ in range(6)]
        per_shrub = float(np.exp(rng.uniform(np.log(50), np.log(300))))
        ground = frozenset({M.GRASS, M.DIRT, M.SAND, M.SHRUBS})
        _scatter(canvas, shrubs, min(1200, int(area / per_shrub)), ground, M.SHRUBS)


def fell_trees(canvas: Canvas) -> None:
    """Lay down trees that a storm broke: pale trunks, root plates, brown crowns."""
    rng = canvas.rng
    wind = float(rng.uniform(0, 2 * math.pi))
    middle = canvas.random_point(margin=0.2)
    for _ in range(int(rng.integers(16, 44))):
        x, y = (m + float(rng.normal(0, canvas.px(24))) for m in middle)
        if not canvas.is_free([(x, y)], LAND | {M.TREES, M.FLOOD}):
            continue
        length, angle = canvas.px(float(rng.uniform(7, 14))), wind + float(rng.normal(0, 0.3))
        step_x, step_y = math.cos(angle) * length, math.sin(angle) * length
        crown = tinted((96, 98, 58), float(rng.uniform(0.75, 1.15)))
        canvas.line(
            [(x, y), (x + 0.7 * step_x, y + 0.7 * step_y)],
            (186, 166, 136),
            M.WRECKAGE,
            width_px=canvas.px(0.5),
        )
        for part in rng.uniform(0.45, 1.05, 6).tolist():
            spot = (
                x + part * step_x + float(rng.normal(0, canvas.px(0.8))),
                y + part * step_y + float(rng.normal(0, canvas.px(0.8))),
            )
            shade = tinted(crown, float(rng.uniform(0.75, 1.25)))
            canvas.polygon(blob(rng, spot, canvas.px(1.7)), shade, M.WRECKAGE)
        canvas.disc((x, y), canvas.px(0.9), (104, 80, 60), M.WRECKAGE)


def _scatter(
    canvas: Canvas, stamps: list[_Stamp], num: int, ground: frozenset[Material], material: Material
) -> None:
    rng = canvas.rng
    # Trees stand in groups: half of them near one of a few centres.
    centres = rng.uniform(0, 1, (6, 2)) * canvas.size
    places = rng.uniform(-0.02, 1.02, (num, 2)) * canvas.size
    grouped = rng.random(num) < 0.5
    near = centres[rng.integers(6, size=num)] + rng.normal(0, 0.09 * min(canvas.size), (num, 2))
    places[grouped] = near[grouped]
    kinds = rng.integers(len(stamps), size=num)
    for (x, y), kind in zip(places.tolist(), kinds.tolist(), strict=True):
        if canvas.is_free([(x, y)], ground):
            _stand(canvas, stamps[kind], (x, y), material)


def _stand(canvas: Canvas, stamp: _Stamp, foot: Point, material: Material) -> None:
    radius = stamp.radius_px
    height = radius * (0.6 if material == M.SHRUBS else 1.25)
    canvas.round_shadow(foot, radius * 0.95, height_px=0.9 * height)
    left = round(foot[0] - radius)
    top = round(foot[1] - canvas.lean * height - radius)

    def draw() -> None:
        if canvas.lean > 0.4 and radius > 5:
            canvas.line(
                [foot, (foot[0], top + radius)], (70, 58, 46), material, width_px=radius * 0.2
            )
        canvas.rgb.paste(stamp.picture, (left, top), stamp.mask)
        canvas.materials.paste(
            int(material), (left, top, left + stamp.mask.width, top + stamp.mask.height), stamp.mask
        )

    canvas.stand(foot[1], draw)


def _stamp(canvas: Canvas, colours: tuple[Colour, ...], radius_m: float) -> _Stamp:
    """Draw one crown: bumpy outline, lit side, dark side."""
    rng = canvas.rng
    radius = max(1.2, canvas.px(radius_m))
    side = max(3, math.ceil(2 * radius) + 1)
    grid = (np.arange(side) - (side - 1) / 2) / radius
    x, y = grid[None, :], grid[:, None]
    turn = np.arctan2(y, x)
    lobes = (
        1
        + 0.13 * np.sin(5 * turn + rng.uniform(0, 6))
        + 0.08 * np.sin(9 * turn + rng.uniform(0, 6))
    )
    distance = np.hypot(x, y) / (0.9 * lobes)
    sun_x, sun_y = canvas.sun
    reach = math.hypot(sun_x, sun_y) + 1e-6
    light = -(x * sun_x + y * sun_y) / reach
    clumps = rng.normal(0, 0.16, (side, side))
    shade = 0.86 + (0.18 + 0.22 * canvas.plan.sunlight) * light - 0.25 * distance**2 + clumps
    base = np.array(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.8, 1.15)
    pixels = np.clip(base * np.clip(shade, 0.35, 1.5)[..., None] * 1.15, 0, 255).astype(np.uint8)
    mask = ((distance < 1) * 255).astype(np.uint8)
    return _Stamp(Image.fromarray(pixels), Image.fromarray(mask), side / 2)
