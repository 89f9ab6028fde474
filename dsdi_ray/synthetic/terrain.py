"""The ground: land cover, fields, rivers, lakes, sea, snow and lava, as arrays of the whole map."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dsdi_ray.synthetic.canvas import Canvas, Curve, Point
from dsdi_ray.synthetic.materials import M, Material
from dsdi_ray.synthetic.plans import ScenePlan
from dsdi_ray.synthetic.textures import Floats, Size, smooth_field, texture

Bytes = NDArray[np.uint8]

# Shares of the land cover from hollow to hill, before each scene's own whims.
_COVERS: Mapping[str, tuple[tuple[Material, float], ...]] = {
    "suburb": ((M.GRASS, 0.84), (M.DIRT, 0.16)),
    "farm": ((M.GRASS, 0.7), (M.DIRT, 0.2), (M.SHRUBS, 0.1)),
    "forest": ((M.GRASS, 0.5), (M.SHRUBS, 0.35), (M.DIRT, 0.15)),
    "dry": ((M.SAND, 0.15), (M.DIRT, 0.5), (M.SHRUBS, 0.2), (M.GRASS, 0.15)),
    "coast": ((M.GRASS, 0.6), (M.SHRUBS, 0.25), (M.SAND, 0.15)),
    "industry": ((M.GRASS, 0.55), (M.DIRT, 0.45)),
    "mountain": ((M.GRASS, 0.3), (M.SHRUBS, 0.2), (M.DIRT, 0.15), (M.ROCKS, 0.35)),
    "snow": ((M.SNOW, 0.74), (M.ROCKS, 0.16), (M.GRASS, 0.1)),
    "volcanic": ((M.ROCKS, 0.75), (M.DIRT, 0.15), (M.GRASS, 0.1)),
}
_FOREST: Mapping[str, float] = {
    "suburb": 0.13, "farm": 0.12, "forest": 0.55, "dry": 0.0, "coast": 0.12, "industry": 0.06,
    "mountain": 0.30, "snow": 0.25, "volcanic": 0.05,
}  # fmt: skip
# Dark and light ends of each ground; one row is picked per scene.
_PALETTES: Mapping[Material, tuple[tuple[int, int, int, int, int, int], ...]] = {
    M.NOTHING: ((112, 112, 110, 152, 150, 146), (88, 88, 90, 128, 127, 125)),
    M.GRASS: ((62, 84, 40, 116, 136, 66), (84, 94, 48, 146, 148, 84), (52, 80, 46, 92, 122, 68),
              (104, 102, 58, 164, 156, 98)),
    M.DIRT: ((112, 88, 62, 166, 138, 104), (124, 92, 70, 178, 142, 112), (98, 84, 68, 148, 130, 106)),
    M.SAND: ((188, 170, 132, 222, 208, 172), (176, 160, 126, 214, 198, 164)),
    M.ROCKS: ((74, 72, 70, 156, 150, 142), (92, 80, 68, 168, 152, 134), (58, 56, 58, 128, 124, 122)),
    M.SNOW: ((190, 202, 218, 244, 247, 250), (204, 210, 220, 250, 250, 250)),
    M.SHRUBS: ((70, 74, 44, 138, 130, 84), (84, 82, 54, 156, 142, 100), (60, 72, 44, 120, 122, 72)),
    M.TREES: ((26, 42, 24, 82, 106, 54), (34, 46, 22, 104, 112, 52), (20, 40, 30, 64, 92, 60),
              (46, 44, 22, 128, 104, 52)),
}  # fmt: skip
_TONE_NOISE = {M.ROCKS: 0.5, M.SNOW: 0.2, M.SAND: 0.25, M.NOTHING: 0.25}
_FINE_NOISE = {M.ROCKS: 0.16, M.SNOW: 0.02, M.SAND: 0.05, M.NOTHING: 0.05, M.TREES: 0.05}


def paint_ground(
    rng: np.random.Generator, size: Size, plan: ScenePlan
) -> tuple[Floats, Bytes, Floats]:
    """Paint the land without any water or works.

    Returns:
        Colours ``[H, W, 3]`` (0 to 255), materials ``[H, W]``, and the relief ``[H, W]``, about
        standard normal; water runs where it is low.
    """
    scale = max(size) / min(size)
    medium = texture("medium", rng, size)
    relief = smooth_field(rng, size, cells=2.6 * scale) + 0.35 * smooth_field(
        rng, size, cells=9 * scale
    )
    materials = _cover(rng, size, plan, medium)
    fields = _fields(rng, size, materials) if plan.has("fields") else None
    if _FOREST[plan.biome]:
        share = _FOREST[plan.biome] * rng.uniform(0.3, 1.5)
        wood = smooth_field(rng, size, cells=6 * scale) + 0.7 * medium
        materials[wood > _quantile(wood, 1 - min(share, 0.85))] = M.TREES
        if fields is not None:
            fields[materials == M.TREES] = 0
    tone = 0.5 + 0.16 * smooth_field(rng, size, cells=5 * scale) + 0.35 * medium
    colours = _colour(rng, size, materials, tone, medium)
    if fields is not None:
        _plough(rng, size, colours, fields)
    colours *= (1 + _hillshade(relief, plan))[..., None]
    return colours, materials, relief


def paint_waters(canvas: Canvas, colours: Floats, materials: Bytes) -> None:
    """Add sea, lake, river and lava to the ground, in place, and the rivers to the canvas."""
    plan = canvas.plan
    if plan.biome == "coast":
        _sea(canvas, colours, materials)
    if plan.has("lake"):
        _lake(canvas, colours, materials)
    if plan.has("river"):
        curve = canvas.random_curve(bend=float(canvas.rng.uniform(0.3, 1.3)))
        canvas.rivers.append(curve)
        _river(canvas, curve, colours, materials)
    if plan.has("lava"):
        for _ in range(int(canvas.rng.integers(1, 3))):
            _lava(canvas, canvas.random_curve(bend=1.3), colours, materials)


def ripples(rng: np.random.Generator, size: Size, *, strength: float) -> Floats:
    """Brightness of a water surface, around 1: small waves and a broad sheen of sky."""
    waves = texture("waves", rng, size, zoom=float(rng.uniform(0.6, 1.2)))
    sheen = smooth_field(rng, size, cells=2.2)
    brightness: Floats = 1 + np.float32(strength) * waves + np.float32(0.05) * sheen
    return brightness


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


def _quantile(values: Floats, part: float) -> np.float32:
    return np.float32(np.quantile(values[::7, ::7], part))


def _cover(rng: np.random.Generator, size: Size, plan: ScenePlan, medium: Floats) -> Bytes:
    kinds = _COVERS[plan.biome]
    shares = np.array([share for _, share in kinds]) * rng.gamma(1.6, size=len(kinds))
    edges = np.cumsum(shares / shares.sum())
    patchy = smooth_field(rng, size, cells=float(rng.uniform(4, 8))) + 0.55 * medium
    materials = np.full(size[::-1], int(kinds[0][0]), dtype=np.uint8)
    for (material, _), edge in zip(kinds[1:], edges[:-1], strict=True):
        materials[patchy > _quantile(patchy, float(edge))] = material
    return materials


def _colour(
    rng: np.random.Generator, size: Size, materials: Bytes, tone: Floats, medium: Floats
) -> Floats:
    num = max(Material) + 1
    dark, light = np.zeros((num, 3), dtype=np.float32), np.zeros((num, 3), dtype=np.float32)
    noise, grain = np.ones(num, dtype=np.float32), np.full(num, 0.09, dtype=np.float32)
    for material, rows in _PALETTES.items():
        row = np.array(rows[int(rng.integers(len(rows)))], dtype=np.float32)
        row *= rng.uniform(0.9, 1.1) * np.tile(rng.uniform(0.96, 1.04, 3), 2).astype(np.float32)
        dark[material], light[material] = row[:3], row[3:]
    for material, amount in _FINE_NOISE.items():
        grain[material] = amount
    for material, amount in _TONE_NOISE.items():
        noise[material] = amount
    zoom = float(np.clip(min(size) / 400, 0.7, 1.3))
    bumpy = {M.TREES: (0.46, 0.5), M.SHRUBS: (0.42, 0.45), M.ROCKS: (0.45, 0.6)}
    mixed = 0.5 + (tone - 0.5) * noise[materials]
    for material, (middle, strength) in bumpy.items():
        here = materials == material
        if not here.any():
            continue
        name = "ridges" if material == M.ROCKS else "crowns"
        bumps = texture(name, rng, size, zoom=zoom * (0.55 if material == M.SHRUBS else 1.0))
        mixed = np.where(here, middle + strength * bumps + 0.25 * (tone - 0.5), mixed)
    mixed = np.clip(mixed, -0.15, 1.2)
    colours = np.take(dark, materials, axis=0)
    colours += mixed[..., None] * np.take(light - dark, materials, axis=0)
    colours *= (1 + grain[materials] * (texture("fine", rng, size) + 0.5 * medium))[..., None]
    return colours


def _fields(rng: np.random.Generator, size: Size, materials: Bytes) -> Bytes:
    """Number the parcels of farmland from 1 and set their materials; 0 is no parcel."""
    parcels = Image.new("L", size)
    draw = ImageDraw.Draw(parcels)
    angle, reach = float(rng.uniform(0, math.pi)), math.hypot(*size)
    side = min(size) * float(rng.uniform(0.35, 0.7))
    axis = Curve((size[0] / 2, size[1] / 2), angle)
    c, s = math.cos(angle), math.sin(angle)
    number, u = 0, -reach / 2
    while u < reach / 2 and number < 60:
        width, v = side * rng.uniform(0.5, 1.3), -reach / 2
        while v < reach / 2 and number < 60:
            depth, number = side * rng.uniform(0.5, 1.6), number + 1
            corners = [
                (u + 2, v + 2),
                (u + width - 2, v + 2),
                (u + width - 2, v + depth - 2),
                (u + 2, v + depth - 2),
            ]
            if rng.random() < 0.8:
                turned = [
                    (axis.origin[0] + a * c - b * s, axis.origin[1] + a * s + b * c)
                    for a, b in corners
                ]
                draw.polygon(turned, fill=number)
            v += depth
        u += width
    fields = np.array(parcels)
    bare = rng.random(256) < 0.3
    kind = np.where(bare, int(M.DIRT), int(M.GRASS)).astype(np.uint8)
    np.copyto(materials, kind[fields], where=fields > 0)
    fields[(fields > 0) & (rng.random(256) < 0.1)[fields]] = 0
    return fields


def _plough(rng: np.random.Generator, size: Size, colours: Floats, fields: Bytes) -> None:
    tints = rng.uniform(0.78, 1.2, (256, 1)) * rng.uniform(0.94, 1.06, (256, 3))
    tints[0] = 1
    strength = rng.uniform(0.0, 0.13, 256).astype(np.float32)
    strength[0] = 0
    rows = Curve((0.0, 0.0), float(rng.uniform(0, math.pi))).across(size)
    period = np.float32(rng.uniform(0.6, 1.4))
    furrows = np.sin(rows * period) * strength[fields]
    colours *= np.take(tints.astype(np.float32), fields, axis=0) * (1 + furrows)[..., None]


def _hillshade(relief: Floats, plan: ScenePlan) -> Floats:
    steep = 12.0 if plan.biome in ("mountain", "snow", "volcanic") else 4.0
    shade = np.zeros_like(relief)
    shade[1:, 1:] = (relief[1:, 1:] - relief[:-1, :-1]) * np.float32(steep)
    limited: Floats = np.clip(shade, -0.35, 0.3)
    return limited


def _sea(canvas: Canvas, colours: Floats, materials: Bytes) -> None:
    rng, size = canvas.rng, canvas.size
    metre = canvas.pixels_per_metre
    middle = (size[0] * float(rng.uniform(0.3, 0.7)), size[1] * float(rng.uniform(0.3, 0.7)))
    shore = canvas.random_curve(bend=float(rng.uniform(0.2, 0.8)), through=middle)
    offshore = shore.across(size) / metre + 2.5 * smooth_field(rng, size, cells=8)
    canvas.shore = shore
    beach = float(rng.uniform(8, 28))
    canvas.shore_setback_px = canvas.px(beach + 16)
    sand = (offshore > -beach) & (offshore <= 0)
    pale = np.array((206, 190, 152), dtype=np.float32) * np.float32(rng.uniform(0.9, 1.08))
    grain = (1 + 0.07 * texture("medium", rng, size) + 0.04 * texture("fine", rng, size))[..., None]
    np.copyto(colours, pale * grain, where=sand[..., None])
    blend(colours, ramp(offshore, -5, -1) * (offshore <= 0) * 0.45, (118, 100, 76))
    materials[sand] = M.SAND
    deep = np.array(
        [(24, 62, 92), (34, 78, 96), (52, 76, 84), (22, 50, 78)][rng.integers(4)], dtype=np.float32
    )
    shallow = np.array(
        [(96, 138, 132), (120, 130, 108), (86, 142, 148)][rng.integers(3)], dtype=np.float32
    )
    paint = shallow + ramp(offshore, 0, float(rng.uniform(30, 90)))[..., None] * (deep - shallow)
    paint *= ripples(rng, size, strength=float(rng.uniform(0.05, 0.16)))[..., None]
    wave = np.sin(
        offshore * np.float32(rng.uniform(0.35, 0.6)) + 2.5 * texture("medium", rng, size)
    )
    foam = ramp(
        wave
        + 0.9 * texture("fine", rng, size)
        - ramp(offshore, 0, float(rng.uniform(14, 40))) * 1.7,
        0.45,
        0.8,
    )
    blend(paint, foam * 0.85, (236, 240, 240))
    sea = offshore > 0
    np.copyto(colours, paint, where=sea[..., None])
    materials[sea] = M.OCEAN


def _lake(canvas: Canvas, colours: Floats, materials: Bytes) -> None:
    rng, size = canvas.rng, canvas.size
    reach = min(min(size), 1.3 * canvas.px(canvas.plan.view_metres))
    a, b = (reach * float(rng.uniform(0.14, 0.42)) for _ in range(2))
    axis = Curve(canvas.random_point(margin=0.2), float(rng.uniform(0, math.pi)))
    depth = 1 - np.hypot(axis.along(size) / a, axis.across(size) / b)
    depth = depth + 0.16 * smooth_field(rng, size, cells=9) + 0.04 * texture("medium", rng, size)
    water = [(38, 66, 72), (52, 74, 58), (30, 52, 68), (70, 84, 66), (22, 38, 44)][rng.integers(5)]
    fill_water(canvas, colours, materials, depth * a, water, M.LAKE)


def _river(canvas: Canvas, curve: Curve, colours: Floats, materials: Bytes) -> None:
    rng, size = canvas.rng, canvas.size
    half = canvas.px(float(np.exp(rng.uniform(np.log(5), np.log(26)))))
    wiggle = 0.22 * half * smooth_field(rng, size, cells=14)
    depth = half - np.abs(curve.across(size)) + wiggle
    water = [(74, 88, 66), (58, 80, 80), (96, 94, 68), (48, 72, 66), (84, 98, 92)][rng.integers(5)]
    materials_before = materials.copy() if canvas.plan.biome == "coast" else None
    fill_water(canvas, colours, materials, depth, water, M.RIVER)
    if materials_before is not None:
        np.copyto(materials, materials_before, where=materials_before == M.OCEAN)


def fill_water(
    canvas: Canvas,
    colours: Floats,
    materials: Bytes,
    depth: Floats,
    water: tuple[int, int, int],
    material: Material,
) -> None:
    """Fill where ``depth`` (pixels from the bank) is positive, with a wet bank around."""
    rng, size = canvas.rng, canvas.size
    bank = canvas.px(float(rng.uniform(1.0, 4.0)))
    muddy: tuple[int, int, int] = (132, 116, 88)
    blend(colours, ramp(depth, -bank, -0.2 * bank) * np.float32(0.75), muddy)
    paint = np.array(water, dtype=np.float32) * np.float32(rng.uniform(0.85, 1.2))
    paint = paint * (1.16 - 0.26 * ramp(depth, 0, canvas.px(14)))[..., None]
    paint *= ripples(rng, size, strength=float(rng.uniform(0.02, 0.09)))[..., None]
    blend(colours, ramp(depth, -0.7, 0.7), paint)
    materials[depth > 0] = material


def _lava(canvas: Canvas, curve: Curve, colours: Floats, materials: Bytes) -> None:
    rng, size = canvas.rng, canvas.size
    half = canvas.px(float(rng.uniform(3, 11)))
    depth = half - np.abs(curve.across(size)) + 0.4 * half * smooth_field(rng, size, cells=16)
    crust = texture("ridges", rng, size, zoom=0.8) + 0.7 * texture("medium", rng, size)
    heat = ramp(depth, 0, 0.9 * half) * np.maximum(0.55 + 0.5 * crust, 0)
    blend(colours, ramp(depth, -3.5 * half, 0) ** 2 * np.float32(0.35), (150, 58, 24))
    paint = np.stack([90 + 190 * heat, 18 + 190 * heat**1.6, 10 + 90 * heat**3], axis=-1)
    blend(colours, ramp(depth, 0, 1.5), np.clip(paint, 0, 255).astype(np.float32))
    materials[depth > 0] = M.LAVA


def shore_point(curve: Curve, size: Size, rng: np.random.Generator) -> Point:
    """A random point of a curve within the map."""
    points = [p for p in curve.points(size) if 0 <= p[0] < size[0] and 0 <= p[1] < size[1]]
    return points[int(rng.integers(len(points)))] if points else (size[0] / 2, size[1] / 2)
