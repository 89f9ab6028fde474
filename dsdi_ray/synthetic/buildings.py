"""Houses, halls and rubble where houses stood."""

import math
from itertools import pairwise

import numpy as np

from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.geometry import (
    Colour,
    Point,
    blob,
    heading,
    lifted,
    rectangle,
    tinted,
    turned,
)
from dsdi_ray.synthetic.materials import LAND, M, Material
from dsdi_ray.synthetic.ways import shifted

_ROOFS: tuple[Colour, ...] = (
    (116, 108, 102), (92, 88, 88), (142, 134, 126), (134, 88, 70), (152, 110, 86), (100, 78, 66),
    (176, 168, 156), (122, 126, 132), (160, 82, 62), (84, 92, 100), (206, 202, 196),
)  # fmt: skip
_FLAT_ROOFS: tuple[Colour, ...] = (
    (214, 212, 206), (186, 184, 180), (160, 158, 154), (228, 228, 226), (142, 150, 156), (176, 164, 148),
)  # fmt: skip
_WALLS: tuple[Colour, ...] = ((206, 198, 184), (180, 166, 146), (222, 218, 210), (160, 132, 114))
_DEBRIS: tuple[Colour, ...] = (
    (198, 178, 146), (166, 138, 104), (220, 216, 208), (120, 108, 98), (88, 78, 70), (178, 172, 166),
    (146, 110, 84), (204, 196, 176), (112, 122, 132), (160, 92, 76), (236, 234, 230), (70, 100, 140),
)  # fmt: skip
_SITE = LAND | {M.FLOOD, M.NOTHING}


def build_houses(canvas: Canvas) -> None:
    """Put houses beside the roads, or scattered where there is no road."""
    rng, plan = canvas.rng, canvas.plan
    towns = {"suburb": 1.0, "coast": 0.8, "farm": 0.12, "industry": 0.2}
    density = towns.get(plan.biome, 0.15) * float(rng.uniform(0.6, 1.1))
    damaged = float(rng.uniform(0.15, 0.7)) if plan.has("damaged houses") else 0.0
    wrecked = float(rng.uniform(0.08, 0.45)) if plan.has("rubble") else 0.0
    sites = _sites_along_roads(canvas, density)
    if not sites:
        num = int(rng.integers(1, 4)) if density < 0.3 else int(rng.integers(8, 22))
        sites = [(canvas.random_point(), float(rng.uniform(0, 3.14))) for _ in range(num)]
    for centre, angle in sites:
        length, width = float(rng.uniform(11, 19)), float(rng.uniform(8, 12))
        outline = rectangle(centre, canvas.px(length + 3), canvas.px(width + 3), angle)
        if not canvas.is_free([centre, *outline], _SITE):
            continue
        draw = rng.random()
        if draw < wrecked:
            heap_rubble(canvas, centre, canvas.px(float(rng.uniform(9, 15))), angle)
        else:
            raise_building(
                canvas, centre, (length, width), float(rng.uniform(3.5, 7)), angle,
                is_damaged=bool(rng.random() < damaged),
            )  # fmt: skip
    if wrecked and not sites:
        heap_rubble(canvas, canvas.random_point(margin=0.25), canvas.px(16), 0.4)


def build_halls(canvas: Canvas) -> list[tuple[Point, float]]:
    """Put large flat buildings, each with a car park; returns the parks' centres and angles."""
    rng = canvas.rng
    angle = float(rng.uniform(0, math.pi / 2))
    if canvas.roads:
        points = canvas.roads[0][0]
        angle = heading(points[0], points[-1])
    parks = []
    for _ in range(int(rng.integers(1, 6))):
        centre = canvas.random_point(margin=0.12)
        length, width = float(rng.uniform(26, 60)), float(rng.uniform(18, 34))
        park = (
            centre[0] - math.sin(angle) * canvas.px(width / 2 + 14),
            centre[1] + math.cos(angle) * canvas.px(width / 2 + 14),
        )
        outline = rectangle(centre, canvas.px(length + 4), canvas.px(width + 4), angle)
        if not canvas.is_free([centre, *outline], _SITE):
            continue
        lot = rectangle(park, canvas.px(length), canvas.px(22), angle)
        if canvas.is_free([park, *lot], _SITE):
            if canvas.materials.getpixel((int(park[0]), int(park[1]))) != M.FLOOD:
                canvas.polygon(lot, (112, 112, 112), M.NOTHING)
            canvas.take(lot)
            parks.append((park, angle))
        is_damaged = canvas.plan.has("damaged houses") and rng.random() < 0.4
        raise_building(
            canvas, centre, (length, width), float(rng.uniform(6, 12)), angle,
            is_flat=True, is_damaged=bool(is_damaged),
        )  # fmt: skip
    return parks


def raise_building(
    canvas: Canvas,
    centre: Point,
    footprint_m: tuple[float, float],
    height_m: float,
    angle: float,
    *,
    is_flat: bool = False,
    is_damaged: bool = False,
) -> None:
    """Raise one building: walls, roof, shadow, and holes where it is damaged."""
    rng = canvas.rng
    length, width = canvas.px(footprint_m[0]), canvas.px(footprint_m[1])
    feet = rectangle(centre, length, width, angle)
    height = canvas.px(height_m)
    canvas.shadow(feet, height_px=height)
    canvas.take(feet, margin_px=canvas.px(2))
    palette = _FLAT_ROOFS if is_flat else _ROOFS
    roof = tinted(palette[int(rng.integers(len(palette)))], float(rng.uniform(0.9, 1.08)))
    wall = _WALLS[int(rng.integers(len(_WALLS)))]
    material = M.DAMAGED_BUILDING if is_damaged else M.BUILDING
    seed = int(rng.integers(2**31))

    def draw() -> None:
        up = canvas.lean * height
        eaves = lifted(feet, up)
        if up > 1:
            _walls(canvas, feet, eaves, wall, material)
        if is_flat:
            _flat_roof(canvas, eaves, roof, material, centre, (length, width), angle, up)
        else:
            _pitched_roof(canvas, eaves, roof, material, angle, canvas.lean * canvas.px(2.2))
        if is_damaged:
            damage_rng = np.random.default_rng(seed)
            _holes(canvas, damage_rng, (centre[0], centre[1] - up), (length, width), angle)

    canvas.stand(max(y for _, y in feet), draw)


def heap_rubble(canvas: Canvas, centre: Point, radius_px: float, angle: float) -> None:
    """Spread the remains of a house: a dusty patch strewn with boards and sheets."""
    rng = canvas.rng
    outline = blob(rng, centre, radius_px)
    canvas.take(outline)
    dust = tinted((158, 140, 118), float(rng.uniform(0.8, 1.1)))
    for _ in range(9):
        spot = (
            centre[0] + float(rng.normal(0, 0.42 * radius_px)),
            centre[1] + float(rng.normal(0, 0.42 * radius_px)),
        )
        patch = blob(rng, spot, 0.5 * radius_px)
        canvas.polygon(patch, tinted(dust, float(rng.uniform(0.85, 1.06))), M.RUBBLE)
    num = int(np.clip(radius_px**2 / 7, 30, 150))
    spread = rng.normal(0, radius_px * 0.42, (num, 2))
    for dx, dy in spread.tolist():
        where = (centre[0] + dx, centre[1] + dy)
        size = canvas.px(float(rng.uniform(0.6, 3.4))), canvas.px(float(rng.uniform(0.3, 1.2)))
        board = rectangle(
            where, max(2.0, size[0]), max(1.2, size[1]), angle + float(rng.normal(0, 1))
        )
        shade = tinted(_DEBRIS[int(rng.integers(len(_DEBRIS)))], float(rng.uniform(0.75, 1.1)))
        canvas.polygon(lifted(board, -1), (62, 56, 50), M.RUBBLE)
        canvas.polygon(board, shade, M.RUBBLE)


def _sites_along_roads(canvas: Canvas, density: float) -> list[tuple[Point, float]]:
    rng, sites = canvas.rng, []
    for points, width_m in canvas.roads:
        for side in (-1, 1):
            setback = canvas.px(width_m / 2 + float(rng.uniform(9, 14))) * side
            row = shifted(points, setback)
            travelled = float(rng.uniform(0, 20))
            for start, end in pairwise(row):
                travelled += math.dist(start, end) / canvas.pixels_per_metre
                if travelled > 19:
                    travelled = float(rng.uniform(-3, 1))
                    if rng.random() < density:
                        turn = math.pi / 2 if rng.random() < 0.25 else 0.0
                        sites.append((end, heading(start, end) + turn + float(rng.normal(0, 0.04))))
    return sites


def _walls(
    canvas: Canvas, feet: list[Point], eaves: list[Point], wall: Colour, material: Material
) -> None:
    for i in sorted(range(4), key=lambda k: feet[k][1] + feet[(k + 1) % 4][1]):
        j = (i + 1) % 4
        facing = math.cos(heading(feet[i], feet[j]))
        shade = tinted(wall, 0.62 + 0.22 * abs(facing))
        canvas.polygon([feet[i], feet[j], eaves[j], eaves[i]], shade, material)


def _pitched_roof(
    canvas: Canvas,
    eaves: list[Point],
    roof: Colour,
    material: Material,
    angle: float,
    rise_px: float,
) -> None:
    a, b, c, d = eaves
    hip = canvas.px(2.5) if (eaves[0][0] * 7) % 2 > 1 else 0.0
    along = (math.cos(angle) * hip, math.sin(angle) * hip)
    west = ((a[0] + d[0]) / 2 + along[0], (a[1] + d[1]) / 2 + along[1] - rise_px)
    east = ((b[0] + c[0]) / 2 - along[0], (b[1] + c[1]) / 2 - along[1] - rise_px)
    sun = math.atan2(-canvas.sun[1], -canvas.sun[0])
    contrast = 0.10 + 0.14 * canvas.plan.sunlight
    faces = (((a, b, east, west), angle - math.pi / 2), ((d, c, east, west), angle + math.pi / 2),
             ((a, d, west), angle + math.pi), ((b, c, east), angle))  # fmt: skip
    for face, normal in faces:
        canvas.polygon(face, tinted(roof, 1 + contrast * math.cos(normal - sun)), material)
    canvas.line([west, east], tinted(roof, 1.18), None, width_px=1)


def _flat_roof(
    canvas: Canvas,
    eaves: list[Point],
    roof: Colour,
    material: Material,
    centre: Point,
    sides: tuple[float, float],
    angle: float,
    up: float,
) -> None:
    canvas.polygon(eaves, tinted(roof, 0.86), material)
    middle = (centre[0], centre[1] - up)
    inner = rectangle(middle, sides[0] - canvas.px(1.4), sides[1] - canvas.px(1.4), angle)
    canvas.polygon(inner, roof, material)
    for part in (-0.36, -0.12, 0.14, 0.33):
        spot = turned([(part * sides[0], 0.22 * sides[1] * math.sin(9 * part))], middle, angle)[0]
        unit = rectangle(spot, canvas.px(2.6), canvas.px(2.0), angle)
        canvas.polygon([(x + 1.5, y + 1.5) for x, y in unit], tinted(roof, 0.6), material)
        canvas.polygon(unit, tinted(roof, 1.08), material)


def _holes(
    canvas: Canvas,
    rng: np.random.Generator,
    middle: Point,
    sides: tuple[float, float],
    angle: float,
) -> None:
    for _ in range(int(rng.integers(2, 5))):
        at = (float(rng.uniform(-0.35, 0.35)) * sides[0], float(rng.uniform(-0.3, 0.3)) * sides[1])
        spot = turned([at], middle, angle)[0]
        kind = rng.random()
        radius = float(rng.uniform(0.14, 0.32)) * min(sides) + 1
        if kind < 0.3:  # a tarpaulin
            cover = rectangle(spot, radius * 2.6, radius * 1.8, angle)
            canvas.polygon(cover, (44, 96, 176), M.DAMAGED_BUILDING)
        elif kind < 0.6:  # shingles gone, boards show
            canvas.polygon(blob(rng, spot, radius * 1.2), (188, 156, 112), M.DAMAGED_BUILDING)
        else:
            canvas.polygon(blob(rng, spot, radius * 1.1), (46, 40, 38), M.DAMAGED_BUILDING)
            beam = rectangle(spot, radius * 2.2, max(1.0, radius * 0.16), angle + 1.5)
            canvas.polygon(beam, (170, 140, 104), M.DAMAGED_BUILDING)
