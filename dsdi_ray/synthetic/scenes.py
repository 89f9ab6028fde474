"""Synthetic aerial scenes: the map of a place, and pictures of it that know what they show."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsdi_ray.synthetic.buildings import build_halls, build_houses, heap_rubble
from dsdi_ray.synthetic.camera import Camera, Pose, expose, light, map_size
from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.damage import (
    flood_land,
    leave_puddles,
    raise_smoke,
    scorch_land,
    set_fires,
    slide_land,
    wash_out_roads,
)
from dsdi_ray.synthetic.materials import class_fractions, visible_features, with_none_classes
from dsdi_ray.synthetic.plans import ScenePlan, sample_plan
from dsdi_ray.synthetic.plants import fell_trees, plant
from dsdi_ray.synthetic.terrain import paint_ground
from dsdi_ray.synthetic.textures import Bytes, Floats, Size
from dsdi_ray.synthetic.towers import raise_towers
from dsdi_ray.synthetic.vehicles import park_vehicles
from dsdi_ray.synthetic.waters import paint_waters
from dsdi_ray.synthetic.ways import lay_ways
from dsdi_ray.synthetic.works import dam_river, lay_works, raise_levee


def render_scene(rng: np.random.Generator, size: Size) -> tuple[NDArray[np.uint8], frozenset[str]]:
    """Render one aerial picture of a random place.

    Args:
        rng: Source of all randomness: the same state gives the same pixels.
        size: Width and height, pixels.

    Returns:
        The picture ``[H, W, 3]``, and the names of the ``ladi_v1`` classes that it shows: the
        features whose visible part reaches its threshold, and the none-class of each category
        without one.
    """
    image, fractions = render_still(rng, size, sample_plan(rng))
    return image, with_none_classes(visible_features(fractions))


def render_still(
    rng: np.random.Generator, size: Size, plan: ScenePlan
) -> tuple[NDArray[np.uint8], dict[str, float]]:
    """Render one picture of a planned scene; returns it and the part of it that each class fills."""
    camera = Camera(rng, plan, size)
    pose = sample_pose(rng, plan)
    map_px, dx, dy = map_size([pose], camera.ground_size)
    pose = Pose(x=pose.x + dx, y=pose.y + dy, scale=pose.scale, angle=pose.angle, tilt=pose.tilt)
    canvas = paint_map(rng, plan, map_px, pixels_per_metre=min(size) / plan.view_metres)
    picture = camera.see(canvas.rgb, pose)
    return expose(picture, rng), class_fractions(camera.see_materials(canvas.materials, pose))


def sample_pose(rng: np.random.Generator, plan: ScenePlan) -> Pose:
    """A view of a map whose middle is (0, 0)."""
    tilt = float(rng.uniform(0.35, 0.95)) if plan.is_oblique else 0.0
    turn = float(rng.normal(0, 0.05))
    return Pose(x=0.0, y=0.0, scale=1.0, angle=turn, tilt=tilt)


def paint_map(
    rng: np.random.Generator, plan: ScenePlan, size: Size, *, pixels_per_metre: float
) -> Canvas:
    """Paint the map of a planned place: ground, water, ways, damage, then all that stands.

    Args:
        rng: Source of randomness.
        plan: What to paint.
        size: Width and height of the map, pixels.
        pixels_per_metre: Scale of the map.

    Returns:
        The canvas; its ``rgb`` and ``materials`` are complete and lit.
    """
    colours, materials, relief = paint_ground(rng, size, plan, pixels_per_metre=pixels_per_metre)
    lean = float(rng.uniform(0.5, 0.85)) if plan.is_oblique else float(rng.uniform(0.04, 0.2))
    sun = float(rng.uniform(0.4, 1.1)) * (0.3 + 0.7 * plan.sunlight)
    azimuth = float(rng.uniform(0.1, 1.4))  # crowns are lit from the upper left
    canvas = Canvas(
        rng=rng,
        plan=plan,
        size=size,
        pixels_per_metre=pixels_per_metre,
        lean=lean,
        sun=(sun * math.cos(azimuth), sun * math.sin(azimuth)),
        rgb=Image.new("RGB", size),
        materials=Image.new("L", size),
        relief=relief,
    )
    paint_waters(canvas, colours, materials)
    if plan.has("dam") and canvas.rivers:
        dam_river(canvas, colours, materials)
    if plan.has("levee"):
        raise_levee(canvas, colours, materials)
    _attach(canvas, colours, materials)
    lay_ways(canvas)
    lay_works(canvas)
    if plan.has("washout"):
        wash_out_roads(canvas)
    _overflow(canvas)
    _populate(canvas)
    shaded = canvas.shade_ground(np.asarray(canvas.rgb, dtype=np.float32))
    canvas.attach(_to_image(shaded), canvas.materials)
    canvas.draw_standing()
    if plan.has("smoke"):
        raise_smoke(canvas, set_fires(canvas))
    canvas.attach(light(canvas.rgb, rng, plan), canvas.materials)
    return canvas


def _overflow(canvas: Canvas) -> None:
    """What a disaster does to the ground, after the ways and before what stands."""
    plan = canvas.plan
    if not any(plan.has(name) for name in ("landslide", "flood", "puddles", "burnt")):
        return
    colours = np.array(canvas.rgb, dtype=np.float32)
    materials = np.array(canvas.materials)
    if plan.has("landslide"):
        slide_land(canvas, colours, materials)
    if plan.has("puddles"):
        leave_puddles(canvas, colours, materials)
    if plan.has("burnt"):
        scorch_land(canvas, colours)
    if plan.has("flood"):
        flood_land(canvas, colours, materials)
    _attach(canvas, colours, materials)


def _populate(canvas: Canvas) -> None:
    plan, rng = canvas.plan, canvas.rng
    if plan.has("wreckage"):
        fell_trees(canvas)
    car_parks = build_halls(canvas) if plan.has("halls") else []
    if plan.has("houses"):
        build_houses(canvas)
    elif plan.has("rubble"):
        for _ in range(int(rng.integers(1, 4))):
            heap_rubble(
                canvas, canvas.random_point(margin=0.2), canvas.px(14), float(rng.uniform(0, 3))
            )
    raise_towers(canvas)
    park_vehicles(canvas, car_parks)
    plant(canvas)


def _attach(canvas: Canvas, colours: Floats, materials: Bytes) -> None:
    canvas.attach(_to_image(colours), Image.fromarray(materials))


def _to_image(colours: Floats) -> Image.Image:
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
