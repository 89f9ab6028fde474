"""Roads, bridges, streets, railways and runways: what is laid on the ground along a line."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.geometry import Colour, Curve, Point, heading, rectangle, tinted
from dsdi_ray.synthetic.materials import M

_INLAND_WATER = frozenset({M.RIVER, M.LAKE})
_LONGEST_BRIDGE_METRES = 110.0


def lay_ways(canvas: Canvas) -> None:
    """Lay all ways that the plan asks for; the roads are then known to the canvas."""
    plan, rng = canvas.plan, canvas.rng
    if plan.has("railway"):
        lay_railway(canvas, canvas.random_curve(bend=0.15).points(canvas.size))
    if plan.has("streets"):
        _lay_streets(canvas)
    if plan.has("coast road") and canvas.shore is not None:
        shore, back = canvas.shore, canvas.shore_setback_px
        x, y = shore.origin
        inland = (x + back * math.sin(shore.angle), y - back * math.cos(shore.angle))
        lay_road(canvas, Curve(inland, shore.angle, shore.waves).points(canvas.size), width_m=7.0)
    if plan.has("road"):
        bend = 0.9 if plan.biome in ("mountain", "forest") else 0.35
        curve = canvas.random_curve(bend=bend, angle=_across_river(canvas))
        lay_road(canvas, curve.points(canvas.size), width_m=float(rng.uniform(6.5, 13)))
    if plan.has("dirt road"):
        curve = canvas.random_curve(bend=0.8)
        lay_road(canvas, curve.points(canvas.size), width_m=float(rng.uniform(4, 6)), paved=False)
    if plan.has("runway"):
        _lay_runway(canvas)


def lay_road(canvas: Canvas, points: list[Point], *, width_m: float, paved: bool = True) -> None:
    """Lay a road with its shoulders and markings; it bridges rivers and shuns the open sea."""
    if len(points) < 4:
        return
    grey = int(canvas.rng.integers(82, 146))
    asphalt: Colour = (grey, grey, grey - 3)
    surface = asphalt if paved else tinted((172, 150, 118), float(canvas.rng.uniform(0.85, 1.1)))
    width = canvas.px(width_m)
    canvas.take(points, margin_px=width / 2 + canvas.px(1.5))
    for over_water, part in _split_at_water(canvas, points):
        if over_water:
            if _length(part) < canvas.px(_LONGEST_BRIDGE_METRES):
                _bridge(canvas, part, width_px=width * 1.12, deck=surface)
                canvas.roads.append((part, width_m))
            continue
        canvas.roads.append((part, width_m))
        canvas.line(part, tinted((142, 126, 98), 1.0), None, width_px=width + canvas.px(2.4))
        canvas.line(part, surface, M.ROAD, width_px=width)
        if paved and width > 6:
            _mark(canvas, part, width, two_way=width_m < 11)


def lay_railway(canvas: Canvas, points: list[Point]) -> None:
    """Lay a single track: ballast, sleepers, two rails."""
    if len(points) < 4:
        return
    canvas.take(points, margin_px=canvas.px(4))
    for over_water, part in _split_at_water(canvas, points):
        if over_water:
            _bridge(canvas, part, width_px=canvas.px(5.5), deck=(120, 108, 96))
        canvas.line(part, (142, 134, 122), M.RAILWAY, width_px=canvas.px(6.0))
        canvas.line(part, (112, 102, 94), M.RAILWAY, width_px=canvas.px(3.8))
        for start, end in pairwise(part):
            angle = heading(start, end)
            for where in (0.25, 0.75):
                x, y = _between(start, end, where)
                dx, dy = -math.sin(angle) * canvas.px(1.5), math.cos(angle) * canvas.px(1.5)
                canvas.line([(x - dx, y - dy), (x + dx, y + dy)], (76, 62, 54), None, width_px=1)
        for side in (-0.9, 0.9):
            canvas.line(shifted(part, canvas.px(side)), (186, 182, 180), None, width_px=1)


def shifted(points: Sequence[Point], offset_px: float) -> list[Point]:
    """A line moved to its right (positive) or left."""
    places = np.array(points, dtype=np.float64)
    steps = np.empty_like(places)
    steps[1:-1] = places[2:] - places[:-2]
    steps[0], steps[-1] = places[1] - places[0], places[-1] - places[-2]
    lengths = np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-9)
    places[:, 0] -= steps[:, 1] / lengths * offset_px
    places[:, 1] += steps[:, 0] / lengths * offset_px
    return [(x, y) for x, y in places.tolist()]


def _across_river(canvas: Canvas) -> float | None:
    """A direction that crosses the river, now and then; None for any."""
    if not canvas.rivers or canvas.rng.random() < 0.35:
        return None
    return canvas.rivers[0].angle + math.pi / 2 + float(canvas.rng.uniform(-0.4, 0.4))


def _lay_streets(canvas: Canvas) -> None:
    rng, (width, height) = canvas.rng, canvas.size
    angle, reach = float(rng.uniform(0, math.pi)), math.hypot(width, height) / 2
    spacing = canvas.px(float(rng.uniform(52, 78)))
    lane = float(rng.uniform(6, 8.5))
    offset = float(rng.uniform(0, spacing))
    for turn, gap in ((0.0, spacing), (math.pi / 2, spacing * float(rng.uniform(1.6, 3)))):
        v = -reach + offset
        while v < reach:
            origin = (
                width / 2 - math.sin(angle + turn) * v,
                height / 2 + math.cos(angle + turn) * v,
            )
            if rng.random() < 0.86:
                lay_road(canvas, Curve(origin, angle + turn).points(canvas.size), width_m=lane)
            v += gap * float(rng.uniform(0.9, 1.1))


def _lay_runway(canvas: Canvas) -> None:
    rng = canvas.rng
    curve = canvas.random_curve(bend=0.0)
    points = curve.points(canvas.size)
    if len(points) < 4:
        return
    width = canvas.px(22)
    canvas.take(points, margin_px=width * 1.9)
    canvas.line(points, (112, 112, 112), M.NOTHING, width_px=width)
    for start, end in zip(points[::4], points[2::4], strict=False):
        canvas.line([start, end], (226, 226, 222), None, width_px=canvas.px(0.8))
    for side in (-0.46, 0.46):
        canvas.line(shifted(points, side * width), (214, 214, 210), None, width_px=canvas.px(0.5))
    x, y = points[int(len(points) * rng.uniform(0.35, 0.65))]
    side = width * 1.2
    apron = (x - math.sin(curve.angle) * side, y + math.cos(curve.angle) * side)
    canvas.apron = (apron, curve.angle)
    canvas.polygon(
        rectangle(apron, canvas.px(70), width * 1.3, curve.angle), (140, 140, 138), M.NOTHING
    )


def _mark(canvas: Canvas, part: list[Point], width: float, *, two_way: bool) -> None:
    yellow, white = (206, 176, 74), (214, 214, 210)
    dash = canvas.px(0.35)
    for start, end in zip(part[::2], part[1::2], strict=False):
        canvas.line([start, end], yellow if two_way else white, None, width_px=dash)
    if width > 14:
        for side in (-0.42, 0.42):
            canvas.line(shifted(part, side * width), white, None, width_px=dash)


def _bridge(canvas: Canvas, part: list[Point], *, width_px: float, deck: Colour) -> None:
    """A deck on piers; it stands above a flood and is drawn before anything else that stands."""
    height = canvas.px(5)
    body = [*shifted(part, width_px / 2), *reversed(shifted(part, -width_px / 2))]
    canvas.shadow(body, height_px=height)
    concrete = tinted((186, 182, 172), float(canvas.rng.uniform(0.85, 1.08)))
    truss = canvas.rng.random() < 0.3

    def draw() -> None:
        up = canvas.lean * height * 0.5
        if up > 1:
            below = [(x, y + up) for x, y in body]
            canvas.polygon(below, tinted(concrete, 0.55), M.BRIDGE)
        canvas.polygon(body, concrete, M.BRIDGE)
        canvas.line(part, deck, M.BRIDGE, width_px=width_px * 0.72)
        if truss:
            for side in (-0.46, 0.46):
                rail = shifted(part, side * width_px)
                canvas.line(rail, (96, 112, 108), M.BRIDGE, width_px=canvas.px(0.6))
            left, right = shifted(part, -0.46 * width_px), shifted(part, 0.46 * width_px)
            for a, b in zip(left[::2], right[1::2], strict=False):
                canvas.line([a, b], (108, 122, 118), M.BRIDGE, width_px=canvas.px(0.4))
        elif width_px > 6:
            for a, b in zip(part[::2], part[1::2], strict=False):
                canvas.line([a, b], (208, 186, 96), M.BRIDGE, width_px=1)

    canvas.stand(-math.inf, draw)


def _split_at_water(canvas: Canvas, points: list[Point]) -> list[tuple[bool, list[Point]]]:
    """Stretches over land and over inland water, overlapping by a point; the sea is left out."""
    kinds = []
    for x, y in points:
        column = min(max(int(x), 0), canvas.size[0] - 1)
        row = min(max(int(y), 0), canvas.size[1] - 1)
        found = canvas.materials.getpixel((column, row))
        kinds.append("sea" if found == M.OCEAN else "water" if found in _INLAND_WATER else "land")
    stretches: list[tuple[bool, list[Point]]] = []
    start = 0
    for i in range(1, len(points) + 1):
        if i < len(points) and kinds[i] == kinds[start]:
            continue
        part = points[max(0, start - 1) : i + 1]
        if kinds[start] != "sea" and len(part) > 1:
            stretches.append((kinds[start] == "water", part))
        start = i
    return stretches


def _length(points: Sequence[Point]) -> float:
    steps = np.diff(np.array(points), axis=0)
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum())


def _between(start: Point, end: Point, part: float) -> Point:
    return start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part
