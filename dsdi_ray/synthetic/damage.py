"""What a disaster does to a place: floodwater, slides, washouts, puddles, scorched land, smoke."""

import math

import numpy as np
from PIL import Image

from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.geometry import Curve, Point, blob, heading, rectangle, tinted
from dsdi_ray.synthetic.materials import M
from dsdi_ray.synthetic.textures import Bytes, Floats, blend, ramp, smooth_field, texture
from dsdi_ray.synthetic.waters import ripples

_SMOKE_SCALE = 4
_FLAMES = ((214, 74, 20), (240, 130, 34), (255, 196, 84), (255, 228, 150), (188, 52, 16))


def wash_out_roads(canvas: Canvas) -> None:
    """Tear a gap into a road or two: raw soil, a gully, slabs of broken asphalt."""
    rng = canvas.rng
    for _ in range(int(rng.integers(1, 3)) if canvas.roads else 0):
        points, width_m = canvas.roads[int(rng.integers(len(canvas.roads)))]
        inside = [
            i
            for i, (x, y) in enumerate(points[1:-1], start=1)
            if 0.1 < x / canvas.size[0] < 0.9 and 0.1 < y / canvas.size[1] < 0.9
        ]
        if inside:
            i = inside[int(rng.integers(len(inside)))]
            _tear(canvas, points[i], heading(points[i - 1], points[i + 1]), width_m)


def slide_land(canvas: Canvas, colours: Floats, materials: Bytes) -> None:
    """Let slopes slide, in place: scars of raw soil that widen downhill, with lobed ends."""
    rng, size = canvas.rng, canvas.size
    soils = ((140, 104, 76), (150, 120, 90), (118, 96, 80), (160, 132, 106), (126, 116, 104))
    soil = np.array(soils[int(rng.integers(len(soils)))], dtype=np.float32)
    soil *= np.float32(rng.uniform(0.8, 1.05))
    downhill = float(rng.uniform(0, 2 * math.pi))
    for _ in range(int(rng.integers(1, 4))):
        length = canvas.px(float(rng.uniform(55, 150)))
        scar = Curve(canvas.random_point(margin=0.15), downhill + float(rng.normal(0, 0.15)))
        along = scar.along(size) + length / 2
        across = scar.across(size) + 0.05 * length * smooth_field(rng, size, cells=6)
        part = along / length
        half = canvas.px(4) + 0.16 * length * ramp(part, 0.0, 0.9) ** 0.8
        rough = 0.28 * smooth_field(rng, size, cells=18) + 0.15 * texture("medium", rng, size)
        edge = half * (1 + rough) - np.abs(across)
        toe = length * (1 + 0.3 * rough) - along + 0.5 * edge - 0.3 * half
        inside = np.minimum(edge, np.minimum(along, toe))
        inside[np.isin(materials, (int(M.LAKE), int(M.OCEAN), int(M.DAM)))] = -9
        streaks = texture("waves", rng, size) * 0.12 + texture("medium", rng, size) * 0.22
        rows = np.sin(across / canvas.px(1.7) + 3 * smooth_field(rng, size, cells=9)) * 0.06
        shade = 1.04 + streaks + rows - 0.22 * ramp(-inside, -canvas.px(3), 0)
        head = ramp(part, 0.16, 0.02)
        shade = shade * (1 - 0.35 * head)
        blend(colours, ramp(inside, -1, 1.5), soil * shade[..., None])
        materials[inside > 0] = M.LANDSLIDE


def flood_land(canvas: Canvas, colours: Floats, materials: Bytes) -> None:
    """Flood the low ground, roads and fields alike, in place; crowns of woods stay above."""
    rng, size = canvas.rng, canvas.size
    relief = canvas.relief.copy()
    for river in canvas.rivers:
        relief -= 1.3 * ramp(-np.abs(river.across(size)), -canvas.px(70), 0)
    share = float(rng.uniform(0.22, 0.75))
    level = float(np.quantile(relief[::7, ::7], share))
    depth = level - relief + 0.05 * texture("medium", rng, size)
    open_water = np.isin(materials, (int(M.LAKE), int(M.OCEAN), int(M.LAVA), int(M.DAM)))
    depth[open_water] = -1
    crowns = (materials == M.TREES) & (texture("medium", rng, size) > -0.35)
    depth[crowns] = -1
    muds = (
        (142, 116, 82),
        (124, 104, 76),
        (158, 134, 100),
        (112, 100, 78),
        (134, 122, 98),
        (104, 96, 70),
    )
    mud = np.array(muds[int(rng.integers(len(muds)))], dtype=np.float32) * np.float32(
        rng.uniform(0.85, 1.12)
    )
    paint = mud * ripples(rng, size, strength=float(rng.uniform(0.015, 0.06)))[..., None]
    sky = ramp(smooth_field(rng, size, cells=2.5), 0.4, 2.2) * np.float32(rng.uniform(0.1, 0.6))
    blend(paint, sky, (188, 194, 198))
    wet = ramp(depth, -0.06, 0.0) * ~crowns
    colours *= (1 - 0.3 * wet)[..., None]
    clarity = float(rng.uniform(0.04, 0.16))
    blend(colours, ramp(depth, -0.01, clarity) ** 0.6, paint)
    materials[depth > 0.25 * clarity] = M.FLOOD


def leave_puddles(canvas: Canvas, colours: Floats, materials: Bytes) -> None:
    """Leave water in the hollows of open ground and on roads, in place."""
    rng, size = canvas.rng, canvas.size
    hollows = smooth_field(rng, size, cells=float(rng.uniform(22, 38))) + 0.5 * texture(
        "medium", rng, size
    )
    hollows += 0.5 * smooth_field(rng, size, cells=3)
    wettable = np.isin(
        materials, (int(M.DIRT), int(M.GRASS), int(M.ROAD), int(M.SAND), int(M.NOTHING))
    )
    level = float(np.quantile(hollows[::7, ::7], 1 - float(rng.uniform(0.02, 0.06))))
    depth = hollows - np.float32(level)
    blend(colours, ramp(depth, -0.35, -0.02) * wettable * np.float32(0.45), (84, 72, 56))
    surface = ((150, 158, 164), (122, 112, 96), (168, 174, 180), (96, 100, 100))[
        int(rng.integers(4))
    ]
    blend(colours, ramp(depth, 0, 0.06) * wettable, surface)
    materials[(depth > 0.03) & wettable] = M.PUDDLE


def scorch_land(canvas: Canvas, colours: Floats) -> None:
    """Blacken patches of land, in place."""
    char = smooth_field(canvas.rng, canvas.size, cells=5) + 0.6 * texture(
        "medium", canvas.rng, canvas.size
    )
    blend(colours, ramp(char, 0.5, 1.1) * np.float32(0.8), (38, 34, 32))


def set_fires(canvas: Canvas) -> list[Point]:
    """Light fires; returns where their smoke rises."""
    rng = canvas.rng
    sources = [canvas.random_point(margin=0.2) for _ in range(int(rng.integers(1, 5)))]
    for x, y in sources:
        spread = canvas.px(float(rng.uniform(3, 9)))
        canvas.polygon(blob(rng, (x, y), 1.5 * spread), (46, 36, 30), None)
        for _ in range(int(rng.integers(14, 60))):
            spot = (x + float(rng.normal(0, 0.7 * spread)), y + float(rng.normal(0, 0.5 * spread)))
            radius = canvas.px(float(rng.uniform(0.3, 1.3)))
            paint = _FLAMES[int(rng.integers(len(_FLAMES)))]
            canvas.polygon(blob(rng, spot, radius), paint, M.FIRE)
    return sources


def raise_smoke(canvas: Canvas, sources: list[Point]) -> None:
    """Let smoke drift from the sources over whatever is there; thick smoke hides it."""
    rng, size = canvas.rng, canvas.size
    small = (size[0] // _SMOKE_SCALE + 1, size[1] // _SMOKE_SCALE + 1)
    wind = float(rng.uniform(-2.6, -0.5)) if canvas.lean > 0.4 else float(rng.uniform(0, 6.28))
    density = np.zeros(small[::-1], dtype=np.float32)
    x, y = (
        np.arange(small[0], dtype=np.float32)[None, :],
        np.arange(small[1], dtype=np.float32)[:, None],
    )
    reach = min(size) * float(rng.uniform(0.6, 1.2)) / _SMOKE_SCALE
    for source in sources:
        bend = float(rng.normal(0, 0.5))
        place = np.array(source) / _SMOKE_SCALE
        for part in np.linspace(0.04, 1, 16):
            angle = wind + bend * part
            place = place + reach / 16 * np.array((math.cos(angle), math.sin(angle)))
            radius = canvas.px(2.5) / _SMOKE_SCALE + reach * 0.17 * part
            offset = rng.normal(0, 0.35 * radius, 2)
            far = (x - place[0] - offset[0]) ** 2 + (y - place[1] - offset[1]) ** 2
            density += np.float32(1.5 * (1 - part) + 0.35) * np.exp(
                -far / np.float32(radius * radius)
            )
    billows = texture("crowns", rng, small, zoom=0.9) + 1.3 * texture("medium", rng, small)
    density *= np.clip(0.85 + 0.75 * billows, 0.1, 2)
    opacity = 1 - np.exp(-float(rng.uniform(1.3, 2.4)) * density)
    tones = ((222, 222, 220), (176, 172, 166), (112, 108, 104), (84, 80, 78), (204, 196, 184))
    tone = np.array(tones[int(rng.integers(len(tones)))], dtype=np.float32)
    puffs = tone * np.clip(1 + 0.2 * billows - 0.12 * opacity, 0.6, 1.2)[..., None]
    cloud = Image.fromarray(np.clip(puffs, 0, 255).astype(np.uint8)).resize(
        size, Image.Resampling.BILINEAR
    )
    mask = Image.fromarray((opacity * 238).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    canvas.rgb.paste(cloud, None, mask)
    thick = mask.point([255 if level > 100 else 0 for level in range(256)])
    canvas.materials.paste(int(M.SMOKE), None, thick)


def _tear(canvas: Canvas, place: Point, angle: float, width_m: float) -> None:
    rng = canvas.rng
    gap, width = canvas.px(float(rng.uniform(9, 20))), canvas.px(width_m)
    soil = tinted((142, 108, 76), float(rng.uniform(0.85, 1.15)))
    across = angle + math.pi / 2 + float(rng.normal(0, 0.2))
    for i in range(9):  # the gully runs on beside the road
        part = (i - 4) / 4
        reach = width * 1.5 * part
        spot = (place[0] + math.cos(across) * reach, place[1] + math.sin(across) * reach)
        radius = gap * (0.62 - 0.22 * abs(part)) + 1
        canvas.polygon(
            blob(rng, spot, radius), tinted(soil, float(rng.uniform(0.88, 1.08))), M.WASHOUT
        )
    wet = rng.random() < 0.5
    for i in range(9):
        part = (i - 4) / 4
        reach = width * 1.35 * part
        spot = (place[0] + math.cos(across) * reach, place[1] + math.sin(across) * reach)
        shade = (116, 98, 72) if wet else tinted(soil, 0.62)
        canvas.polygon(blob(rng, spot, gap * 0.28), shade, M.WASHOUT)
    for _ in range(int(rng.integers(5, 12))):
        side = -1 if rng.random() < 0.5 else 1
        forward, sideways = (
            side * gap * float(rng.uniform(0.25, 0.62)),
            float(rng.uniform(-0.5, 0.5)) * width,
        )
        spot = (
            place[0] + math.cos(angle) * forward - math.sin(angle) * sideways,
            place[1] + math.sin(angle) * forward + math.cos(angle) * sideways,
        )
        slab = rectangle(
            spot,
            canvas.px(float(rng.uniform(1.5, 4))),
            canvas.px(float(rng.uniform(1, 2.5))),
            float(rng.uniform(0, 3)),
        )
        canvas.polygon([(x + 1, y + 1.5) for x, y in slab], (52, 46, 42), M.WASHOUT)
        canvas.polygon(slab, tinted((128, 128, 126), float(rng.uniform(0.8, 1.15))), M.WASHOUT)
