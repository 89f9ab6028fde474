"""What a scene shall hold: sampled first, without a pixel, with the long tail of LADI."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# How often a biome, and a disaster in it, is flown over.
_BIOMES: Mapping[str, float] = {
    "suburb": 0.24,
    "farm": 0.19,
    "forest": 0.14,
    "dry": 0.10,
    "coast": 0.11,
    "industry": 0.08,
    "mountain": 0.08,
    "snow": 0.035,
    "volcanic": 0.025,
}
_DISASTERS: Mapping[str, Mapping[str, float]] = {
    "suburb": {"none": 0.34, "flood": 0.27, "storm": 0.29, "fire": 0.08, "washout": 0.02},
    "farm": {"none": 0.45, "flood": 0.34, "storm": 0.08, "fire": 0.05, "washout": 0.08},
    "forest": {"none": 0.46, "flood": 0.14, "storm": 0.08, "fire": 0.18, "washout": 0.14},
    "dry": {"none": 0.50, "flood": 0.12, "storm": 0.10, "fire": 0.13, "washout": 0.15},
    "coast": {"none": 0.42, "flood": 0.15, "storm": 0.35, "fire": 0.05, "washout": 0.03},
    "industry": {"none": 0.52, "flood": 0.20, "storm": 0.18, "fire": 0.10},
    "mountain": {"none": 0.30, "slide": 0.50, "fire": 0.10, "washout": 0.10},
    "snow": {"none": 0.85, "storm": 0.10, "slide": 0.05},
    "volcanic": {"none": 0.60, "fire": 0.40},
}
# Chance of each ingredient in a biome; what is not listed does not occur there.
_INGREDIENTS: Mapping[str, Mapping[str, float]] = {
    "suburb": {"streets": 0.72, "road": 0.55, "houses": 1.0, "halls": 0.22, "cars": 0.85,
               "trucks": 0.35, "poles": 0.40, "river": 0.14, "lake": 0.14, "water tower": 0.07,
               "radio tower": 0.06, "power line": 0.10, "railway": 0.04, "puddles": 0.06,
               "lone trees": 0.9},
    "farm": {"fields": 0.85, "road": 0.65, "dirt road": 0.45, "houses": 0.40, "cars": 0.40,
             "trucks": 0.22, "river": 0.28, "lake": 0.20, "power line": 0.24, "railway": 0.06,
             "pipes": 0.02, "puddles": 0.16, "levee": 0.04, "water tower": 0.03, "lone trees": 0.8},
    "forest": {"road": 0.40, "dirt road": 0.30, "houses": 0.16, "cars": 0.25, "trucks": 0.12,
               "river": 0.40, "lake": 0.24, "power line": 0.16, "pipes": 0.04, "dam": 0.05,
               "radio tower": 0.06, "railway": 0.04, "lone trees": 1.0},
    "dry": {"road": 0.45, "dirt road": 0.50, "houses": 0.30, "cars": 0.40, "trucks": 0.28,
            "power line": 0.20, "pipes": 0.09, "radio tower": 0.05, "puddles": 0.14,
            "runway": 0.05, "railway": 0.05, "lone trees": 0.35, "river": 0.10},
    "coast": {"coast road": 0.70, "houses": 0.62, "halls": 0.10, "cars": 0.60, "trucks": 0.18,
              "boats": 0.50, "poles": 0.20, "radio tower": 0.05, "water tower": 0.04,
              "lone trees": 0.7, "pier": 0.25},
    "industry": {"road": 0.80, "streets": 0.35, "halls": 1.0, "cars": 0.80, "trucks": 0.75,
                 "pipes": 0.16, "railway": 0.18, "radio tower": 0.10, "water tower": 0.14,
                 "power line": 0.26, "runway": 0.10, "puddles": 0.12, "lone trees": 0.5,
                 "river": 0.12},
    "mountain": {"road": 0.45, "river": 0.30, "dam": 0.16, "houses": 0.10, "cars": 0.25,
                 "trucks": 0.15, "power line": 0.14, "radio tower": 0.10, "lake": 0.10,
                 "lone trees": 0.8},
    "snow": {"road": 0.35, "houses": 0.30, "cars": 0.30, "river": 0.15, "power line": 0.12,
             "lone trees": 0.9, "trucks": 0.10},
    "volcanic": {"lava": 0.75, "road": 0.25, "houses": 0.12, "cars": 0.12, "lone trees": 0.3},
}  # fmt: skip
_DAMAGE: Mapping[str, Mapping[str, float]] = {
    "none": {"flying aircraft": 0.02},
    "flood": {"flood": 1.0, "boats": 0.18, "wreckage": 0.15, "washout": 0.12, "rubble": 0.06,
              "flying aircraft": 0.02},
    "storm": {"rubble": 0.80, "damaged houses": 0.90, "wreckage": 0.50, "puddles": 0.22,
              "flying aircraft": 0.03, "washout": 0.04},
    "fire": {"smoke": 1.0, "burnt": 0.4, "damaged houses": 0.3},
    "washout": {"washout": 1.0, "road": 1.0, "puddles": 0.25, "landslide": 0.12},
    "slide": {"landslide": 1.0, "washout": 0.15, "rubble": 0.10, "road": 0.6},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScenePlan:
    """The kind of place, what is in it, and how it is looked at.

    Attributes:
        biome: The kind of place.
        disaster: What befell it, "none" for most places.
        ingredients: What is put there, as far as it finds room.
        is_oblique: Seen at an angle through haze, not straight from above.
        view_metres: Ground that the frame's shorter side covers, at the frame's middle.
        sunlight: From 0 (overcast, no shadows) to 1 (hard shadows).
        warmth: Tint of the light, -1 (blue) to 1 (golden).
    """

    biome: str
    disaster: str
    ingredients: frozenset[str]
    is_oblique: bool
    view_metres: float
    sunlight: float
    warmth: float

    def has(self, ingredient: str) -> bool:
        """Whether an ingredient is asked for."""
        return ingredient in self.ingredients


def sample_plan(rng: np.random.Generator) -> ScenePlan:
    """Sample a plan: few biomes and disasters are common, most are rare."""
    biome = _draw(rng, _BIOMES)
    disaster = _draw(rng, _DISASTERS[biome])
    chances = {
        name: max(_INGREDIENTS[biome].get(name, 0.0), _DAMAGE[disaster].get(name, 0.0))
        for name in sorted({*_INGREDIENTS[biome], *_DAMAGE[disaster]})
    }
    ingredients = {name for name, chance in chances.items() if rng.random() < chance}
    if "dam" in ingredients:
        ingredients = ingredients - {"lake", "flood"} | {"river"}
    return ScenePlan(
        biome=biome,
        disaster=disaster,
        ingredients=frozenset(ingredients),
        is_oblique=bool(rng.random() < 0.6),
        view_metres=float(np.exp(rng.uniform(np.log(85), np.log(230)))),
        sunlight=float(np.clip(rng.normal(0.65, 0.35), 0.0, 1.0)),
        warmth=float(np.clip(rng.normal(0.1, 0.45), -1.0, 1.0)),
    )


def _draw(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    names = sorted(weights)
    parts = np.array([weights[name] for name in names])
    return names[int(rng.choice(len(names), p=parts / parts.sum()))]
