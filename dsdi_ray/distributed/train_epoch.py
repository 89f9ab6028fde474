"""One pass of a worker over the training part."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.learner import Learner, MicroBatch
from dsdi_ray.distributed.loss_watch import LossWatch
from dsdi_ray.distributed.train_data import (
    Feeder,
    Indices,
    Pictures,
    epoch_batches,
    micro_batches,
)
from dsdi_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Which worker this is.

    Attributes:
        rank: From 0.
        num_workers: That train together.
        device: Where it computes.
        num_loaders: Processes that decode for it.
    """

    rank: int
    num_workers: int
    device: torch.device
    num_loaders: int


def train_epoch(
    learner: Learner,
    pictures: Pictures,
    feeder: Feeder,
    recipe: Recipe,
    *,
    epoch: int,
    worker: Worker,
    on_step: Callable[[], None] | None = None,
) -> float:
    """One pass over the training part; returns the mean loss per image, outliers included.

    Before each step ``on_step`` is called, which may end it with an error.

    Raises:
        DivergedError: If the loss does.
    """
    batches = epoch_batches(
        len(pictures), batch_size=recipe.batch_size, seed=recipe.seed, epoch=epoch
    )
    shares = [
        micro_batches(
            batch, rank=worker.rank, num_workers=worker.num_workers, accumulate=recipe.accumulate
        )
        for batch in batches
    ]
    inputs = feeder([indices for share in shares for indices in share])
    watch = LossWatch(recipe, epoch=epoch, num_workers=worker.num_workers)
    torch.manual_seed(_seed_of(recipe.seed, epoch, worker.rank))  # for dropout in the network
    for i, (batch, share) in enumerate(zip(batches, shares, strict=True)):
        if on_step is not None:
            on_step()
        losses = learner.step(
            [
                micro_batch(pictures, indices, next(inputs), seed=recipe.seed, epoch=epoch)
                for indices in share
            ],
            number=epoch * len(batches) + i,
            batch_size=len(batch),
        )
        watch.add(losses, [pictures.image_ids[j] for j in np.concatenate(share)])
    return watch.mean()


def micro_batch(
    pictures: Pictures, indices: Indices, inputs: Tensor, *, seed: int, epoch: int
) -> MicroBatch:
    """The pictures of some indices with their labels and the seeds of their augmentation."""
    is_asked = pictures.is_asked
    return MicroBatch(
        pictures=inputs,
        labels=torch.from_numpy(pictures.labels[indices]),
        is_asked=None if is_asked is None else torch.from_numpy(is_asked[indices]),
        seeds=[(seed, epoch, int(i)) for i in indices],
    )


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def check_shares(recipe: Recipe, num_images: int, num_workers: int) -> None:
    parts = num_workers * recipe.accumulate
    smallest = min(recipe.batch_size, num_images) // parts
    needed = max(2, recipe.loss.remove_outliers + 1)
    if smallest < needed:
        raise ConfigError(
            f"recipe {recipe.name}: {min(recipe.batch_size, num_images)} images of a batch on "
            f"{num_workers} workers in {recipe.accumulate} micro-batches are {smallest} in each, "
            f"needs at least {needed}; set batch_size or take fewer workers"
        )
