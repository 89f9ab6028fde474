"""Sea, lakes, rivers and lava, laid into the ground as arrays of the whole map."""

import math

import numpy as np

from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.geometry import Curve
from dsdi_ray.synthetic.materials import M, Material
from dsdi_ray.synthetic.textures import Bytes, Floats, Size, blend, ramp, smooth_field, texture


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


def ripples(rng: np.random.Generator, size: Size, *, strength: float) -> Floats:
    """Brightness of a water surface, around 1: small waves and a broad sheen of sky."""
    waves = texture("waves", rng, size, zoom=float(rng.uniform(0.6, 1.2)))
    sheen = smooth_field(rng, size, cells=2.2)
    brightness: Floats = 1 + np.float32(strength) * waves + np.float32(0.05) * sheen
    return brightness


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
    reach = min(*size, 1.3 * canvas.px(canvas.plan.view_metres))
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


def _lava(canvas: Canvas, curve: Curve, colours: Floats, materials: Bytes) -> None:
    rng, size = canvas.rng, canvas.size
    half = canvas.px(float(rng.uniform(3, 11)))
    depth = half - np.abs(curve.across(size)) + 0.18 * half * smooth_field(rng, size, cells=24)
    crust = texture("ridges", rng, size, zoom=0.8) + 0.7 * texture("medium", rng, size)
    heat = ramp(depth, 0, 0.9 * half) * np.maximum(0.55 + 0.5 * crust, 0)
    blend(colours, ramp(depth, -3.5 * half, 0) ** 2 * np.float32(0.35), (150, 58, 24))
    paint = np.stack([90 + 190 * heat, 18 + 190 * heat**1.6, 10 + 90 * heat**3], axis=-1)
    blend(colours, ramp(depth, 0, 1.5), np.clip(paint, 0, 255).astype(np.float32))
    materials[depth > 0] = M.LAVA
