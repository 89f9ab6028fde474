"""The ground: land cover, woods and fields, as arrays of the whole map."""

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from dsdi_ray.synthetic.geometry import Curve
from dsdi_ray.synthetic.materials import M, Material
from dsdi_ray.synthetic.plans import ScenePlan
from dsdi_ray.synthetic.textures import Bytes, Floats, Size, smooth_field, texture

# Shares of the land cover from hollow to hill, before each scene's own whims.
_COVERS: Mapping[str, tuple[tuple[Material, float], ...]] = {
    "suburb": ((M.GRASS, 0.84), (M.DIRT, 0.16)),
    "farm": ((M.GRASS, 0.7), (M.DIRT, 0.2), (M.SHRUBS, 0.1)),
    "forest": ((M.GRASS, 0.5), (M.SHRUBS, 0.35), (M.DIRT, 0.15)),
    "dry": ((M.SAND, 0.15), (M.DIRT, 0.5), (M.SHRUBS, 0.2), (M.GRASS, 0.15)),
    "coast": ((M.GRASS, 0.6), (M.SHRUBS, 0.25), (M.SAND, 0.15)),
    "industry": ((M.GRASS, 0.55), (M.DIRT, 0.45)),
    "mountain": ((M.GRASS, 0.3), (M.SHRUBS, 0.2), (M.DIRT, 0.15), (M.ROCKS, 0.35)),
    "snow": ((M.ROCKS, 0.15), (M.SNOW, 0.85)),
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
    rng: np.random.Generator, size: Size, plan: ScenePlan, *, pixels_per_metre: float
) -> tuple[Floats, Bytes, Floats]:
    """Paint the land without any water or works.

    Args:
        rng: Source of randomness.
        size: Width and height, pixels.
        plan: The kind of place.
        pixels_per_metre: Scale of the map.

    Returns:
        Colours ``[H, W, 3]`` (0 to 255), materials ``[H, W]``, and the relief ``[H, W]``, about
        standard normal; water runs where it is low.
    """
    scale = (max(size) / (plan.view_metres * pixels_per_metre)) ** 0.8
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
    colours = _colour(rng, plan, materials, tone, medium, crown_zoom=pixels_per_metre * 0.45)
    if fields is not None:
        _plough(rng, size, colours, fields)
    colours *= (1 + _hillshade(relief, plan))[..., None]
    return colours, materials, relief


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
    rng: np.random.Generator,
    plan: ScenePlan,
    materials: Bytes,
    tone: Floats,
    medium: Floats,
    *,
    crown_zoom: float,
) -> Floats:
    size = (materials.shape[1], materials.shape[0])
    num = max(Material) + 1
    dark, light = np.zeros((num, 3), dtype=np.float32), np.zeros((num, 3), dtype=np.float32)
    noise, grain = np.ones(num, dtype=np.float32), np.full(num, 0.09, dtype=np.float32)
    haze = float(rng.uniform(0.0, 0.35))
    for material, rows in _PALETTES.items():
        row = np.array(rows[int(rng.integers(len(rows)))], dtype=np.float32)
        row *= rng.uniform(0.9, 1.1) * np.tile(rng.uniform(0.96, 1.04, 3), 2).astype(np.float32)
        if plan.biome == "volcanic" and material == M.ROCKS:
            row *= np.float32(0.6)
        dark[material], light[material] = _muted(row[:3], haze), _muted(row[3:], haze)
    for material, amount in _FINE_NOISE.items():
        grain[material] = amount
    for material, amount in _TONE_NOISE.items():
        noise[material] = amount
    zoom = float(np.clip(crown_zoom, 0.5, 2.2))
    bumpy = {M.TREES: (0.46, 0.5), M.SHRUBS: (0.42, 0.45), M.ROCKS: (0.42, 0.42)}
    sizes = {M.TREES: 1.0, M.SHRUBS: 0.5, M.ROCKS: 1.3}
    mixed = 0.5 + (tone - 0.5) * noise[materials]
    for material, (middle, strength) in bumpy.items():
        here = materials == material
        if not here.any():
            continue
        name = "ridges" if material == M.ROCKS else "crowns"
        bumps = texture(name, rng, size, zoom=zoom * sizes[material])
        mixed = np.where(here, middle + strength * bumps + 0.25 * (tone - 0.5), mixed)
    mixed = np.clip(mixed, -0.15, 1.2)
    colours = np.take(dark, materials, axis=0)
    colours += mixed[..., None] * np.take(light - dark, materials, axis=0)
    colours *= (1 + grain[materials] * (texture("fine", rng, size) + 0.5 * medium))[..., None]
    return colours


def _muted(colour: Floats, part: float) -> Floats:
    """A colour moved towards its grey."""
    muted: Floats = colour + np.float32(part) * (colour.mean() - colour)
    return muted


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
