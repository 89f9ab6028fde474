"""Vehicles that travel through a clip, drawn onto the map for one frame and lifted again."""

import math

from PIL import Image

from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.geometry import Point, heading
from dsdi_ray.synthetic.materials import WATER, M
from dsdi_ray.synthetic.vehicles import PAINTS, Mover, cover_box, draw_mover, water_places
from dsdi_ray.synthetic.ways import shifted

_DRIVEN = frozenset({M.ROAD, M.BRIDGE})
Covered = list[tuple[Image.Image, Image.Image, tuple[int, int]]]


def sample_movers(canvas: Canvas, *, seconds: float) -> list[Mover]:
    """Vehicles that travel through a clip; some enter the picture only late."""
    rng, plan, movers = canvas.rng, canvas.plan, []
    for kind, share, speed_m in (("car", "cars", 11.0), ("truck", "trucks", 9.0)):
        for _ in range(int(rng.integers(1, 5)) if plan.has(share) and canvas.roads else 0):
            points, width_m = canvas.roads[int(rng.integers(len(canvas.roads)))]
            i = int(rng.integers(len(points) - 1))
            lane = shifted(points, canvas.px(width_m * 0.24))
            angle = heading(lane[i], lane[i + 1])
            speed = canvas.px(speed_m * float(rng.uniform(0.5, 1.3)))
            straight = math.dist(points[0], points[-1])
            if (
                canvas.has_material(lane[i], _DRIVEN)
                and straight > 0.9 * 6 * len(points)
                and abs(math.sin(heading(points[0], points[-1]) - angle)) < 0.05
            ):
                movers.append(_mover(canvas, kind, lane[i], angle, speed))
    if plan.has("boats"):
        for place in water_places(canvas, int(rng.integers(0, 3))):
            speed = canvas.px(float(rng.uniform(2, 6)))
            angle = float(rng.uniform(0, 6.28))
            boat = _mover(canvas, "boat", place, angle, speed)
            if canvas.is_free([boat.place(seconds * k / 8) for k in range(9)], WATER):
                movers.append(boat)
    if plan.has("flying aircraft"):
        angle, speed = float(rng.uniform(0, 6.28)), canvas.px(float(rng.uniform(25, 40)))
        x, y = canvas.random_point(margin=0.2)
        back = speed * seconds * float(rng.uniform(0.3, 0.7))
        start = (x - math.cos(angle) * back, y - math.sin(angle) * back)
        movers.append(_mover(canvas, "aircraft", start, angle, speed))
    return movers


def draw_movers(canvas: Canvas, movers: list[Mover], time_seconds: float) -> Covered:
    """Draw all movers at a time onto the map; returns what :func:`restore` needs to lift them."""
    covered = []
    for mover in movers:
        place = mover.place(time_seconds)
        box = cover_box(canvas, mover, place)
        if box[2] > box[0] and box[3] > box[1]:
            covered.append((canvas.rgb.crop(box), canvas.materials.crop(box), box[:2]))
            draw_mover(canvas, mover, place, is_moving=True)
    return covered


def restore(canvas: Canvas, covered: Covered) -> None:
    """Give the map back what movers covered."""
    for rgb, materials, corner in reversed(covered):
        canvas.rgb.paste(rgb, corner)
        canvas.materials.paste(materials, corner)


def _mover(canvas: Canvas, kind: str, start: Point, angle: float, speed_px: float) -> Mover:
    paint = PAINTS[int(canvas.rng.integers(len(PAINTS)))]
    velocity = (math.cos(angle) * speed_px, math.sin(angle) * speed_px)
    return Mover(kind, start, velocity, paint, float(canvas.rng.uniform(0.9, 1.2)))
