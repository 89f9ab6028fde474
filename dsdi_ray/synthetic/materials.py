"""What a pixel of a synthetic scene shows, and which classes are thereby visible.

Every scene is painted twice with the same geometry: once in colour, once as a map of materials.
Occlusion is therefore exact: what lies under a tree, a flood or smoke is not in the map any more.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import lru_cache

from PIL import Image

from dsdi_ray.taxonomy import Taxonomy, load_taxonomy


class Material(IntEnum):
    """Value of a pixel in a map of materials."""

    NOTHING = 0  # sky, pavement, shade: of no class
    GRASS = 1
    DIRT = 2
    SAND = 3
    ROCKS = 4
    SNOW = 5
    SHRUBS = 6
    TREES = 7
    LAVA = 8
    RIVER = 9
    LAKE = 10
    OCEAN = 11
    PUDDLE = 12
    FLOOD = 13
    ROAD = 14
    BRIDGE = 15
    RAILWAY = 16
    BUILDING = 17
    DAMAGED_BUILDING = 18
    RUBBLE = 19
    WRECKAGE = 20
    DAM = 21
    PIPES = 22
    POWER_LINE = 23
    RADIO_TOWER = 24
    WATER_TOWER = 25
    AIRCRAFT = 26
    BOAT = 27
    CAR = 28
    TRUCK = 29
    LANDSLIDE = 30
    WASHOUT = 31
    SMOKE = 32
    FIRE = 33


M = Material
LAND = frozenset({M.GRASS, M.DIRT, M.SAND, M.ROCKS, M.SNOW, M.SHRUBS})
WATER = frozenset({M.RIVER, M.LAKE, M.OCEAN, M.FLOOD})

CLASSES_OF: Mapping[Material, tuple[str, ...]] = {
    M.NOTHING: (),
    M.GRASS: ("grass",),
    M.DIRT: ("dirt",),
    M.SAND: ("sand",),
    M.ROCKS: ("rocks",),
    M.SNOW: ("snow/ice",),
    M.SHRUBS: ("shrubs",),
    M.TREES: ("trees",),
    M.LAVA: ("lava",),
    M.RIVER: ("river / stream",),
    M.LAKE: ("lake / pond",),
    M.OCEAN: ("ocean",),
    M.PUDDLE: ("puddle",),
    M.FLOOD: ("flooding / water damage", "flooding"),
    M.ROAD: ("road",),
    M.BRIDGE: ("bridge",),
    M.RAILWAY: ("railway",),
    M.BUILDING: ("building",),
    M.DAMAGED_BUILDING: ("building", "damage (misc)"),
    M.RUBBLE: ("rubble / debris",),
    M.WRECKAGE: ("damage (misc)",),
    M.DAM: ("dam / levee",),
    M.PIPES: ("pipes",),
    M.POWER_LINE: ("utility or power lines / electric towers",),
    M.RADIO_TOWER: ("wireless / radio communication towers",),
    M.WATER_TOWER: ("water tower",),
    M.AIRCRAFT: ("aircraft",),
    M.BOAT: ("boat",),
    M.CAR: ("car",),
    M.TRUCK: ("truck",),
    M.LANDSLIDE: ("landslide",),
    M.WASHOUT: ("road washout",),
    M.SMOKE: ("smoke / fire",),
    M.FIRE: ("smoke / fire",),
}

# The least part of a frame's pixels that counts as visible: a tenth of a car's side is no car, and
# a ground cover counts where it is much of what is seen; a tuft is no grassland.
MIN_FRACTION: Mapping[str, float] = {
    "damage (misc)": 0.025,
    "flooding / water damage": 0.21,
    "landslide": 0.012,
    "road washout": 0.01,
    "rubble / debris": 0.03,
    "smoke / fire": 0.006,
    "dirt": 0.49,
    "grass": 0.77,
    "lava": 0.004,
    "rocks": 0.17,
    "sand": 0.21,
    "shrubs": 0.28,
    "snow/ice": 0.04,
    "trees": 0.49,
    "bridge": 0.012,
    "building": 0.13,
    "dam / levee": 0.008,
    "pipes": 0.004,
    "utility or power lines / electric towers": 0.008,
    "railway": 0.005,
    "wireless / radio communication towers": 0.001,
    "water tower": 0.0012,
    "road": 0.13,
    "aircraft": 0.0006,
    "boat": 0.0015,
    "car": 0.0056,
    "truck": 0.003,
    "flooding": 0.21,
    "lake / pond": 0.14,
    "ocean": 0.28,
    "puddle": 0.01,
    "river / stream": 0.11,
}


@lru_cache(maxsize=1)
def scene_taxonomy() -> Taxonomy:
    """The taxonomy whose classes the scenes show: ``ladi_v1``."""
    return load_taxonomy("ladi_v1")


def class_fractions(materials: Image.Image) -> dict[str, float]:
    """Part of a picture's pixels that shows each class; classes without a pixel are left out.

    Args:
        materials: Mode "L", values of :class:`Material`.
    """
    counts = materials.histogram()
    num_pixels = materials.width * materials.height
    pixels: dict[str, int] = {}
    for material, names in CLASSES_OF.items():
        for name in names if counts[material] else ():
            pixels[name] = pixels.get(name, 0) + counts[material]
    return {name: count / num_pixels for name, count in pixels.items()}


def peak_fractions(frames: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Largest fraction per class over the frames of a clip."""
    peaks: dict[str, float] = {}
    for fractions in frames:
        for name, fraction in fractions.items():
            peaks[name] = max(fraction, peaks.get(name, 0.0))
    return peaks


def visible_features(fractions: Mapping[str, float]) -> frozenset[str]:
    """The features whose fraction reaches :data:`MIN_FRACTION`."""
    return frozenset(name for name, part in fractions.items() if part >= MIN_FRACTION[name])


def with_none_classes(features: frozenset[str]) -> frozenset[str]:
    """Add the none-class of every category of which no feature is visible."""
    taxonomy = scene_taxonomy()
    seen = {c.category for c in taxonomy.classes if c.name in features}
    nones = {c.name for c in taxonomy.classes if c.is_none and c.category not in seen}
    return features | nones
