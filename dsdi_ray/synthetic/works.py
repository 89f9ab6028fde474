"""Pipes, piers, dams and levees: what is built on the ground."""

import math

import numpy as np

from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.geometry import Curve, lifted, tinted
from dsdi_ray.synthetic.materials import M
from dsdi_ray.synthetic.textures import Bytes, Floats, ramp
from dsdi_ray.synthetic.waters import fill_water
from dsdi_ray.synthetic.ways import shifted


def lay_works(canvas: Canvas) -> None:
    """Lay what lies on the ground: pipes and piers."""
    if canvas.plan.has("pipes"):
        _lay_pipes(canvas)
    if canvas.plan.has("pier") and canvas.shore is not None:
        _build_pier(canvas)


def dam_river(canvas: Canvas, colours: Floats, materials: Bytes) -> None:
    """Dam the first river, in place: a reservoir above a concrete wall, white water below."""
    rng, size = canvas.rng, canvas.size
    river = canvas.rivers[0]
    along, across = river.along(size), river.across(size)
    half = canvas.px(float(rng.uniform(38, 70)))
    thick = canvas.px(float(rng.uniform(7, 12)))
    bulge = along + np.float32(0.16 / half) * across**2
    wide = half * (0.8 + 0.5 * ramp(-along, 0, 3 * half))
    depth = np.minimum(wide - np.abs(across), -bulge)
    fill_water(canvas, colours, materials, depth, (38, 66, 76), M.LAKE)
    foam = ramp(bulge, 0, thick) * ramp(bulge, 5 * thick, thick) * (np.abs(across) < 0.35 * half)
    colours += (foam * 0.6)[..., None] * (np.float32(232) - colours)
    wall = (np.abs(bulge - thick / 2) < thick / 2) & (np.abs(across) < half * 1.1)
    shade = 196 - 70 * ramp(bulge, 0.25 * thick, thick) + 9 * np.sin(across / canvas.px(1.1))
    crest = np.where(bulge < 0.25 * thick, np.float32(160), shade)
    np.copyto(
        colours,
        (crest[..., None] * np.array((1.0, 0.985, 0.95), dtype=np.float32)),
        where=wall[..., None],
    )
    materials[wall] = M.DAM


def raise_levee(canvas: Canvas, colours: Floats, materials: Bytes) -> None:
    """Raise a long bank of earth with a gravel track on top, in place."""
    rng, size = canvas.rng, canvas.size
    if canvas.rivers:
        river = canvas.rivers[0]
        back = canvas.px(38)
        x, y = river.origin
        line = Curve(
            (x - math.sin(river.angle) * back, y + math.cos(river.angle) * back),
            river.angle,
            river.waves,
        )
    else:
        line = canvas.random_curve(bend=0.2)
    across = line.across(size)
    half = canvas.px(float(rng.uniform(7, 10)))
    bank = np.abs(across) < half
    slope = np.where(across < 0, np.float32(1.22), np.float32(0.72)) * (
        1 + 0.06 * np.sin(line.along(size) / canvas.px(2.2))
    )
    green = np.array((128, 134, 82), dtype=np.float32)
    np.copyto(colours, slope[..., None] * green, where=bank[..., None])
    np.copyto(
        colours,
        np.array((188, 174, 146), dtype=np.float32),
        where=(np.abs(across) < 0.24 * half)[..., None],
    )
    materials[bank] = M.DAM


def _lay_pipes(canvas: Canvas) -> None:
    rng = canvas.rng
    points = canvas.random_curve(bend=0.0).points(canvas.size)
    if len(points) < 4:
        return
    num = int(rng.integers(1, 4))
    metal = tinted(((206, 206, 202), (176, 186, 190), (196, 182, 150))[int(rng.integers(3))], 1.0)
    canvas.take(points, margin_px=canvas.px(4 + 2 * num))
    canvas.line(points, (166, 146, 114), None, width_px=canvas.px(5 + 3.4 * num))
    for i in range(num):
        row = shifted(points, canvas.px(3.4 * (i - (num - 1) / 2)))
        width = canvas.px(1.9)
        dark = [(x + canvas.sun[0] * width, y + canvas.sun[1] * width) for x, y in row]
        canvas.line(dark, (92, 80, 66), None, width_px=width)
        canvas.line(row, tinted(metal, 0.74), M.PIPES, width_px=width)
        canvas.line(shifted(row, -0.18 * width), metal, M.PIPES, width_px=width * 0.5)
        for x, y in row[:: max(2, round(canvas.px(9) / 6))]:
            canvas.disc((x, y), width * 0.62, tinted(metal, 0.55), M.PIPES)


def _build_pier(canvas: Canvas) -> None:
    shore, rng = canvas.shore, canvas.rng
    assert shore is not None
    points = shore.points(canvas.size)
    if not points:
        return
    x, y = points[int(rng.integers(len(points)))]
    length = canvas.px(float(rng.uniform(30, 60)))
    out = (x - math.sin(shore.angle) * length, y + math.cos(shore.angle) * length)
    back = (x + math.sin(shore.angle) * canvas.px(12), y - math.cos(shore.angle) * canvas.px(12))
    canvas.line([back, out], (92, 80, 66), M.NOTHING, width_px=canvas.px(4))
    canvas.line(lifted([back, out], 1), (176, 156, 126), M.NOTHING, width_px=canvas.px(3.2))
