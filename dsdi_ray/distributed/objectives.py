"""From a recipe's loss to the objective that training minimises."""

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.config import Loss
from dsdi_ray.errors import ConfigError
from dsdi_ray.method.objective import Objective
from dsdi_ray.method.soft_labels import count_labels
from dsdi_ray.taxonomy import Taxonomy


def build_objective(loss: Loss, taxonomy: Taxonomy, labels: NDArray[np.float32]) -> Objective:
    """The objective of a recipe.

    Args:
        loss: The recipe's.
        taxonomy: Of the labels.
        labels: Of the whole training part, ``[N, C]``: every worker must count the same.

    Raises:
        ConfigError: If the taxonomy has no class counts and the recipe wants them.
    """
    settings = loss.family_settings
    if settings.get("class_counts") == "counted":
        settings["class_counts"] = tuple(count_labels(labels).tolist())
    elif "class_counts" in settings:
        if taxonomy.class_counts is None:
            raise ConfigError(
                f"loss.class_counts: taxonomy {taxonomy.name} has no count of each class; "
                "set loss.class_counts=counted"
            )
        settings["class_counts"] = taxonomy.class_counts
    return Objective(
        family=loss.family,
        settings=settings,
        none_indices=taxonomy.none_indices,
        none_weight=loss.none_weight,
        remove_outliers=loss.remove_outliers,
        lovasz_weight=loss.lovasz.weight,
        lovasz_scaling=loss.lovasz.scaling,
    )
