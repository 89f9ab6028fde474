"""Power lines, radio towers and water towers: what stands tall."""

import math

from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.geometry import Colour, Point, lifted, rectangle, tinted
from dsdi_ray.synthetic.materials import LAND, M
from dsdi_ray.synthetic.ways import shifted

_OPEN = LAND | {M.FLOOD, M.NOTHING, M.TREES}


def raise_towers(canvas: Canvas) -> None:
    """Raise the power lines and towers that the plan asks for."""
    plan = canvas.plan
    if plan.has("power line"):
        _string_power_line(canvas)
    if plan.has("poles"):
        _string_poles(canvas)
    if plan.has("radio tower"):
        _raise_radio_tower(canvas)
    if plan.has("water tower"):
        _raise_water_tower(canvas)


def _string_power_line(canvas: Canvas) -> None:
    rng = canvas.rng
    curve = canvas.random_curve(bend=0.0)
    points = curve.points(canvas.size)
    if len(points) < 4:
        return
    gap = max(8, round(canvas.px(float(rng.uniform(48, 80))) / 6))
    feet = points[int(rng.integers(min(gap, len(points)))) :: gap]
    arms = canvas.px(float(rng.uniform(5, 7.5)))
    height = canvas.px(float(rng.uniform(22, 32)))
    for foot in feet:
        x, y = (min(max(int(v), 0), side - 1) for v, side in zip(foot, canvas.size, strict=True))
        if canvas.materials.getpixel((x, y)) in (M.LAKE, M.OCEAN, M.DAM):
            continue
        _raise_pylon(canvas, foot, curve.angle, arms, height)
    tops = lifted([points[0], *feet, points[-1]], canvas.lean * height * 0.9)
    shade = 40 if rng.random() < 0.6 else 205

    def draw() -> None:
        for side in (-1.0, -0.55, 0.55, 1.0):
            canvas.line(shifted(tops, side * arms), (shade, shade, shade), M.POWER_LINE, width_px=1)

    canvas.stand(canvas.size[1] + 1.0, draw)


def _raise_pylon(canvas: Canvas, foot: Point, angle: float, arms: float, height: float) -> None:
    base = rectangle(foot, canvas.px(6), canvas.px(6), angle)
    steel: Colour = (172, 176, 178)
    canvas.shadow(rectangle(foot, canvas.px(1.4), canvas.px(1.4), angle), height_px=height)
    canvas.take(base)

    def draw() -> None:
        up = canvas.lean * height
        top = (foot[0], foot[1] - up)
        width = max(1.0, canvas.px(0.5))
        canvas.polygon(base, (134, 128, 116), M.POWER_LINE)
        for corner in base:
            canvas.line([corner, top], steel, M.POWER_LINE, width_px=width)
        for i in range(4):
            canvas.line(
                [base[i], base[(i + 1) % 4]], tinted(steel, 0.7), M.POWER_LINE, width_px=width
            )
        for part, reach in ((1.0, 0.7), (0.9, 1.0), (0.76, 0.85)):
            x, y = foot[0], foot[1] - up * part
            dx, dy = -math.sin(angle) * arms * reach, math.cos(angle) * arms * reach
            canvas.line(
                [(x - dx, y - dy), (x + dx, y + dy)],
                tinted(steel, 1.1),
                M.POWER_LINE,
                width_px=width * 1.6,
            )

    canvas.stand(foot[1], draw)


def _string_poles(canvas: Canvas) -> None:
    for points, width_m in canvas.roads[:3]:
        row = shifted(points, canvas.px(width_m / 2 + 2.5))
        feet = row[:: max(3, round(canvas.px(26) / 6))]
        if len(feet) < 2:
            continue
        height = canvas.px(10)
        for foot in feet:
            canvas.shadow(rectangle(foot, 1.5, 1.5, 0), height_px=height)

        def draw(feet: list[Point] = feet, height: float = height) -> None:
            up = canvas.lean * height
            tops = lifted(feet, up)
            for side in (-0.8, 0.8):
                canvas.line(shifted(tops, canvas.px(side)), (58, 56, 54), M.POWER_LINE, width_px=1)
            for foot, top in zip(feet, tops, strict=True):
                canvas.line([foot, top], (112, 92, 72), M.POWER_LINE, width_px=canvas.px(0.5))
                canvas.disc(top, max(1.0, canvas.px(0.7)), (136, 120, 100), M.POWER_LINE)

        canvas.stand(max(y for _, y in feet), draw)


def _raise_radio_tower(canvas: Canvas) -> None:
    rng = canvas.rng
    foot = _open_place(canvas, canvas.px(4))
    if foot is None:
        return
    height = canvas.px(float(rng.uniform(38, 60)))
    half = canvas.px(2.2)
    yard = rectangle(foot, canvas.px(11), canvas.px(11), 0.3)
    canvas.polygon(yard, (176, 168, 154), M.NOTHING)
    canvas.take(yard)
    canvas.shadow(rectangle(foot, canvas.px(1.8), canvas.px(1.8), 0), height_px=height)
    up = max(canvas.lean, 0.28) * height

    def draw() -> None:
        top = (foot[0], foot[1] - up)
        width = max(1.0, canvas.px(0.55))
        for i in range(10):
            low, high = i / 10, (i + 1) / 10
            paint: Colour = (206, 52, 40) if i % 2 else (238, 236, 230)
            y0, y1 = foot[1] - up * low, foot[1] - up * high
            w0, w1 = half * (1 - 0.8 * low), half * (1 - 0.8 * high)
            for a, b in (((-w0), (-w1)), (w0, w1), (-w0, w1), (w0, -w1)):
                canvas.line(
                    [(foot[0] + a, y0), (foot[0] + b, y1)], paint, M.RADIO_TOWER, width_px=width
                )
        for part in (0.78, 0.9):
            canvas.disc(
                (top[0] + half * 0.5, foot[1] - up * part),
                canvas.px(1.3),
                (240, 240, 238),
                M.RADIO_TOWER,
            )
        canvas.line(
            [top, (top[0], top[1] - canvas.px(3))], (230, 60, 50), M.RADIO_TOWER, width_px=width
        )

    canvas.stand(foot[1], draw)


def _raise_water_tower(canvas: Canvas) -> None:
    rng = canvas.rng
    radius = canvas.px(float(rng.uniform(5.5, 8)))
    foot = _open_place(canvas, radius)
    if foot is None:
        return
    height = canvas.px(float(rng.uniform(20, 30)))
    paint = ((232, 236, 238), (166, 198, 218), (206, 222, 206))[int(rng.integers(3))]
    canvas.round_shadow(foot, radius, height_px=height)
    canvas.take(rectangle(foot, 2 * radius, 2 * radius, 0))
    up = max(canvas.lean, 0.25) * height

    def draw() -> None:
        x, y = foot
        for side in (-0.7, -0.25, 0.25, 0.7):
            leg = [(x + side * radius, y + 0.3 * radius), (x + side * radius * 0.8, y - up)]
            canvas.line(leg, (128, 134, 138), M.WATER_TOWER, width_px=max(1.0, canvas.px(0.7)))
        for i in range(6):  # a ball lit from the upper left
            part = i / 6
            spot = (x - 0.26 * radius * part, y - up - 0.3 * radius * part)
            shade = tinted(paint, 0.62 + 0.42 * part)
            canvas.disc(spot, radius * (1 - 0.82 * part), shade, M.WATER_TOWER, squash=0.92)
        canvas.disc((x, y - up - 0.34 * radius), radius * 0.12, tinted(paint, 0.5), M.WATER_TOWER)

    canvas.stand(foot[1], draw)


def _open_place(canvas: Canvas, radius_px: float) -> Point | None:
    for _ in range(25):
        place = canvas.random_point(margin=0.12)
        if canvas.is_free([place, *rectangle(place, 2 * radius_px, 2 * radius_px, 0)], _OPEN):
            return place
    return None
