"""Cars, trucks, boats and aircraft, and where they are found."""

import math
from dataclasses import dataclass

import numpy as np

from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.geometry import Colour, Point, heading, rectangle, tinted, turned
from dsdi_ray.synthetic.materials import WATER, M, Material
from dsdi_ray.synthetic.ways import shifted

PAINTS: tuple[Colour, ...] = (
    (232, 232, 230), (198, 200, 204), (44, 46, 50), (94, 98, 104), (164, 32, 34), (38, 66, 122),
    (22, 24, 26), (150, 140, 122), (212, 214, 216), (58, 92, 66), (196, 150, 52),
)  # fmt: skip
_KINDS = {"car": M.CAR, "truck": M.TRUCK, "boat": M.BOAT, "aircraft": M.AIRCRAFT}
LENGTH_METRES = {"car": 4.7, "truck": 11.0, "boat": 7.5, "aircraft": 13.0}


@dataclass(frozen=True)
class Mover:
    """A vehicle that travels along a line.

    Attributes:
        kind: "car", "truck", "boat" or "aircraft".
        start: Place at time 0, pixels of the map.
        velocity: Pixels per second.
        paint: Colour of the body.
        scale: Size relative to the usual one.
    """

    kind: str
    start: Point
    velocity: Point
    paint: Colour
    scale: float = 1.0

    def place(self, time_seconds: float) -> Point:
        """Where it is at a time."""
        return (
            self.start[0] + self.velocity[0] * time_seconds,
            self.start[1] + self.velocity[1] * time_seconds,
        )

    @property
    def angle(self) -> float:
        """Direction of travel, radians."""
        return math.atan2(self.velocity[1], self.velocity[0])


def park_vehicles(canvas: Canvas, car_parks: list[tuple[Point, float]]) -> None:
    """Put vehicles on roads and car parks, boats on water, aircraft on aprons and in the air."""
    rng, plan = canvas.rng, canvas.plan
    if plan.has("cars"):
        _fill_car_parks(canvas, car_parks)
        metres = sum(math.dist(a[0], a[-1]) for a, _ in canvas.roads) / canvas.pixels_per_metre
        _on_roads(canvas, "car", int(np.clip(metres / rng.uniform(18, 80), 2, 60)))
    if plan.has("trucks"):
        _on_roads(canvas, "truck", int(rng.integers(1, 6)))
        for (x, y), angle in car_parks[:2]:
            for row in range(int(rng.integers(0, 4))):
                place = turned([(canvas.px(4.0 * row - 8), -canvas.px(14))], (x, y), angle)[0]
                if canvas.is_free([place], frozenset({M.NOTHING, M.DIRT, M.GRASS})):
                    put(canvas, "truck", place, angle + math.pi / 2)
    if plan.has("boats"):
        _on_water(canvas, int(rng.integers(2, 9)))
    if canvas.apron is not None:
        (x, y), angle = canvas.apron
        for i in range(int(rng.integers(2, 5))):
            place = turned([(canvas.px(16.0 * i - 24), 0.0)], (x, y), angle)[0]
            put(canvas, "aircraft", place, angle + 1.2)
    if plan.has("flying aircraft"):
        spot = canvas.random_point(margin=0.25)
        put(canvas, "aircraft", spot, float(rng.uniform(0, 6.28)), height_m=25.0)


def put(canvas: Canvas, kind: str, place: Point, angle: float, *, height_m: float = 0.0) -> None:
    """Put one vehicle at a place; it is drawn with all that stands."""
    paint = PAINTS[int(canvas.rng.integers(len(PAINTS)))]
    scale = float(canvas.rng.uniform(0.9, 1.15))
    mover = Mover(kind, place, (math.cos(angle), math.sin(angle)), paint, scale)
    length = canvas.px(LENGTH_METRES[kind]) * scale
    if kind in ("car", "truck"):
        body = rectangle(place, length, canvas.px(2.0 if kind == "car" else 2.7), angle)
        canvas.shadow(body, height_px=canvas.px(1.4 if kind == "car" else 3.4))
    elif kind == "aircraft":
        drop = (
            place[0] + canvas.sun[0] * canvas.px(height_m),
            place[1] + canvas.sun[1] * canvas.px(height_m),
        )
        for part in _aircraft_parts(length):
            canvas.shadow(turned(part, drop, angle), height_px=canvas.px(1.5))
    foot = math.inf if height_m else place[1]
    canvas.stand(
        foot, lambda: draw_mover(canvas, mover, place, is_moving=kind == "boat" and scale > 1.0)
    )


def draw_mover(canvas: Canvas, mover: Mover, place: Point, *, is_moving: bool) -> None:
    """Draw a vehicle at a place; a moving boat has a wake."""
    length = canvas.px(LENGTH_METRES[mover.kind]) * mover.scale
    if mover.kind == "boat":
        _draw_boat(canvas, place, length, mover.angle, mover.paint, has_wake=is_moving)
    elif mover.kind == "aircraft":
        for part in _aircraft_parts(length):
            canvas.polygon(turned(part, place, mover.angle), (238, 238, 238), M.AIRCRAFT)
        stripe = rectangle(place, length * 0.8, max(1.0, length * 0.03), mover.angle)
        canvas.polygon(stripe, mover.paint, M.AIRCRAFT)
    else:
        _draw_road_vehicle(canvas, mover, place, length)


def cover_box(canvas: Canvas, mover: Mover, place: Point) -> tuple[int, int, int, int]:
    """Box of the map that a mover's picture stays within, clipped to the map."""
    reach = (
        math.ceil(
            canvas.px(LENGTH_METRES[mover.kind])
            * mover.scale
            * (2.9 if mover.kind == "boat" else 1.1)
        )
        + 3
    )
    x, y = round(place[0]), round(place[1])
    width, height = canvas.size
    left, top = min(max(x - reach, 0), width), min(max(y - reach, 0), height)
    return left, top, min(max(x + reach, 0), width), min(max(y + reach, 0), height)


def _on_roads(canvas: Canvas, kind: str, num: int) -> None:
    rng = canvas.rng
    for _ in range(num if canvas.roads else 0):
        points, width_m = canvas.roads[int(rng.integers(len(canvas.roads)))]
        i = int(rng.integers(len(points) - 1))
        side = -1 if rng.random() < 0.5 else 1
        place = shifted(points, canvas.px(side * width_m * 0.24))[i]
        angle = heading(points[i], points[i + 1]) + (math.pi if side < 0 else 0.0)
        if 0 <= place[0] < canvas.size[0] and 0 <= place[1] < canvas.size[1]:
            found = canvas.materials.getpixel((int(place[0]), int(place[1])))
            if found != M.FLOOD or rng.random() < 0.12:
                put(canvas, kind, place, angle)


def _fill_car_parks(canvas: Canvas, car_parks: list[tuple[Point, float]]) -> None:
    rng = canvas.rng
    for centre, angle in car_parks:
        if canvas.materials.getpixel((int(centre[0]), int(centre[1]))) == M.FLOOD:
            continue
        fullness = float(rng.uniform(0.2, 0.9))
        for row in (-7.5, 0.0, 7.5):
            for column in np.arange(-15, 15.1, 3.0).tolist():
                if rng.random() < fullness:
                    place = turned([(canvas.px(column), canvas.px(row))], centre, angle)[0]
                    put(canvas, "car", place, angle + math.pi / 2 + float(rng.normal(0, 0.03)))


def water_places(canvas: Canvas, num: int) -> list[Point]:
    """Some random places on water, at most ``num``."""
    places: list[Point] = []
    for _ in range(num * 14):
        place = canvas.random_point()
        if len(places) < num and canvas.is_free([place], WATER):
            places.append(place)
    return places


def _on_water(canvas: Canvas, num: int) -> None:
    for place in water_places(canvas, num):
        put(canvas, "boat", place, float(canvas.rng.uniform(0, 6.28)))


def _draw_road_vehicle(canvas: Canvas, mover: Mover, place: Point, length: float) -> None:
    material: Material = _KINDS[mover.kind]
    angle = mover.angle
    width = canvas.px(2.0 if mover.kind == "car" else 2.7) * mover.scale
    body = rectangle(place, max(2.0, length), max(1.4, width), angle)
    canvas.polygon([(x + 1, y + 1) for x, y in body], (40, 40, 42), material)
    if mover.kind == "car":
        canvas.polygon(body, mover.paint, material)
        for at, long in ((0.13, 0.16), (-0.28, 0.12)):
            glass = turned([(length * at, 0.0)], place, angle)[0]
            canvas.polygon(
                rectangle(glass, length * long, width * 0.8, angle), (36, 44, 54), material
            )
        return
    box = turned([(-length * 0.12, 0.0)], place, angle)[0]
    cab = turned([(length * 0.39, 0.0)], place, angle)[0]
    pale = tinted(mover.paint, 1.0) if sum(mover.paint) > 420 else (226, 226, 222)
    canvas.polygon(rectangle(box, length * 0.72, width, angle), pale, material)
    canvas.polygon(rectangle(box, length * 0.66, width * 0.62, angle), tinted(pale, 1.08), material)
    canvas.polygon(rectangle(cab, length * 0.2, width * 0.92, angle), mover.paint, material)
    glass = turned([(length * 0.46, 0.0)], place, angle)[0]
    canvas.polygon(rectangle(glass, length * 0.05, width * 0.8, angle), (30, 36, 44), material)


def _draw_boat(
    canvas: Canvas, place: Point, length: float, angle: float, paint: Colour, *, has_wake: bool
) -> None:
    if has_wake:
        for side in (-1, 1):
            wake = [(0.1 * length, 0.12 * side * length), (-1.7 * length, 0.42 * side * length)]
            canvas.line(turned(wake, place, angle), (186, 192, 192), None, width_px=1)
        foam = [
            (-0.4 * length, -0.12 * length),
            (-1.5 * length, 0.0),
            (-0.4 * length, 0.12 * length),
        ]
        canvas.polygon(turned(foam, place, angle), (204, 210, 210), None)
    hull = [(-0.5, -0.17), (0.15, -0.18), (0.5, 0.0), (0.15, 0.18), (-0.5, 0.17)]
    sized = [(x * length, y * length) for x, y in hull]
    canvas.polygon(turned([(x + 1, y + 1) for x, y in sized], place, angle), (34, 44, 48), M.BOAT)
    canvas.polygon(turned(sized, place, angle), (240, 240, 238), M.BOAT)
    deck = [(x * 0.72 - 0.04 * length, y * 0.62) for x, y in sized]
    canvas.polygon(turned(deck, place, angle), tinted(paint, 1.1), M.BOAT)
    cabin = turned([(0.02 * length, 0.0)], place, angle)[0]
    canvas.polygon(rectangle(cabin, 0.22 * length, 0.18 * length, angle), (250, 250, 250), M.BOAT)


def _aircraft_parts(length: float) -> list[list[Point]]:
    """Fuselage, wings and tail of a light aircraft, pointing to the right."""
    shapes = (
        ((0.5, 0.0), (0.38, -0.06), (-0.42, -0.03), (-0.5, 0.0), (-0.42, 0.03), (0.38, 0.06)),
        ((0.2, -0.58), (0.24, 0.0), (0.2, 0.58), (0.05, 0.58), (0.04, 0.0), (0.05, -0.58)),
        ((-0.36, -0.2), (-0.34, 0.2), (-0.46, 0.2), (-0.48, -0.2)),
    )
    return [[(x * length, y * length) for x, y in shape] for shape in shapes]
