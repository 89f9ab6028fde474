"""Tiny variants of recipes: the same method on a small network, to try a whole job in minutes."""

from collections.abc import Mapping

from dsdi_ray.config import Recipe
from dsdi_ray.errors import ConfigError

# timm's networks for tests that stand in for those of the paper's Table 2, each of another family.
TINY_BACKBONES: Mapping[str, str] = {
    "regnety_064": "test_byobnet",
    "regnetx_064": "test_byobnet",
    "hrnet_w18": "test_convnext",
    "resnest50d": "test_resnet",
    "se_ibn_resnet50": "test_efficientnet",  # it has squeeze-and-excitation too
}
_SHRINK, _SIZE_STEP_PX = 5, 16
_TINY_CYCLES = 2


def tiny_variant(recipe: Recipe, *, epochs: int) -> Recipe:
    """A recipe of the same name, loss, labels, augmentation, schedule and technique, made tiny.

    Backbone, input, batch, epochs and optimiser are others: the network learns from scratch, in so
    few steps that the recipe's own optimiser would hardly move it.

    Args:
        recipe: Of one of :data:`TINY_BACKBONES`.
        epochs: How many; with a cyclic schedule, in each of two cycles.

    Raises:
        ConfigError: If no tiny network stands in for the recipe's.
    """
    backbone = TINY_BACKBONES.get(recipe.backbone.name)
    if backbone is None:
        known = ", ".join(TINY_BACKBONES)
        raise ConfigError(
            f"recipe {recipe.name}: no tiny network stands in for {recipe.backbone.name!r}, only "
            f"for {known}"
        )
    cycles = None if recipe.schedule.cycles is None else _TINY_CYCLES
    sections = recipe.model_dump(mode="json")
    return Recipe.model_validate(
        sections
        | {
            "backbone": {"name": backbone, "weights": "none"},
            "input_px": tiny_px(recipe.input_px),
            "optimizer": {"name": "adamw", "lr": 0.003, "weight_decay": 0.05},
            "schedule": sections["schedule"] | {"cycles": cycles},
            "batch_size": 14,
            "accumulate": 1,
            "epochs": epochs * (cycles or 1),
        }
    )


def tiny_px(input_px: int) -> int:
    """The side of a tiny network's input, in about the recipe's proportion to the others."""
    return max(2, round(input_px / _SHRINK / _SIZE_STEP_PX)) * _SIZE_STEP_PX
