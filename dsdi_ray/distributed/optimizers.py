"""From a recipe to its optimiser and the learning rate of each step."""

from collections.abc import Iterable

import torch
from torch import nn

from dsdi_ray.config import Recipe
from dsdi_ray.method.schedules import learning_rate_factor


def build_optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum as the paper's, or AdamW."""
    settings = recipe.optimizer
    if settings.name == "adamw":
        return torch.optim.AdamW(
            parameters, recipe.learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        parameters,
        recipe.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def learning_rate(recipe: Recipe, step: int, *, steps_per_epoch: int) -> float:
    """The learning rate of an optimiser step, counted from 0 over all epochs."""
    schedule = recipe.schedule
    factor = learning_rate_factor(
        step,
        num_steps=recipe.epochs * steps_per_epoch,
        num_warmup_steps=round(schedule.warmup_epochs * steps_per_epoch),
        schedule=schedule.name,
        num_cycles=schedule.cycles or 1,
    )
    return factor * recipe.learning_rate
