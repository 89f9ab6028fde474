"""Watches the losses of a run: their mean, and whether they diverge."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from dsdi_ray.config import Recipe
from dsdi_ray.errors import ConfigError

_STEPS_BETWEEN_LOOKS = 50
_DIVERGED = 1e6  # nats per image: logits of some 10,000
_NAMED_IMAGES = 8


class DivergedError(ConfigError):
    """The loss of a run is not a number any more, or beyond all measure."""


class LossWatch:
    """Collects the losses of an epoch's steps on one worker.

    Looking at a loss waits for the GPU, so it is done for many steps at once; on every worker at
    the same steps, since they look together.

    Args:
        recipe: For the message.
        epoch: From 0.
        num_workers: Workers that train together.
    """

    def __init__(self, recipe: Recipe, *, epoch: int, num_workers: int) -> None:
        self._recipe = recipe
        self._epoch = epoch
        self._num_workers = num_workers
        self._losses: list[Tensor] = []
        self._images: list[Sequence[str]] = []
        self._num_steps_seen = 0
        self._sum = 0.0
        self._num_images = 0

    def add(self, losses: Tensor, image_ids: Sequence[str]) -> None:
        """Take the losses of a step.

        Args:
            losses: Of each image of this worker's share, ``[B]``.
            image_ids: Whose they are, ``[B]``.

        Raises:
            DivergedError: On every worker, if one of these or of those before is no number.
        """
        self._losses.append(losses)
        self._images.append(image_ids)
        if len(self._losses) == _STEPS_BETWEEN_LOOKS:
            self._look()

    def mean(self) -> float:
        """The mean loss of all images so far, over all workers.

        Raises:
            DivergedError: As :meth:`add`.
        """
        self._look()
        totals = torch.tensor([self._sum, float(self._num_images)], dtype=torch.float64)
        if self._num_workers > 1:
            gathered: list[Tensor] = [torch.empty(0)] * self._num_workers
            dist.all_gather_object(gathered, totals)
            totals = torch.stack(gathered).sum(dim=0)
        return float(totals[0] / totals[1])

    def _look(self) -> None:
        if not self._losses:
            return
        losses = torch.stack(self._losses)
        is_bad = ~(losses <= _DIVERGED)
        bad_steps = is_bad.any(dim=1).to(torch.int32)
        if self._num_workers > 1:
            dist.all_reduce(bad_steps, op=dist.ReduceOp.MAX)
        # The one place where the device is waited for.
        found = torch.cat([bad_steps.double(), losses.double().sum()[None]]).cpu()
        if bool(found[:-1].any()):
            self._raise(int(found[:-1].argmax()), losses.cpu(), is_bad.cpu())
        self._sum += float(found[-1])
        self._num_images += losses.numel()
        self._num_steps_seen += len(self._losses)
        self._losses.clear()
        self._images.clear()

    def _raise(self, step: int, losses: Tensor, is_bad: Tensor) -> None:
        own = [
            (image_id, float(loss))
            for image_id, loss, bad in zip(
                self._images[step], losses[step], is_bad[step], strict=True
            )
            if bad
        ]
        by_worker = [own]
        if self._num_workers > 1:
            by_worker = [[] for _ in range(self._num_workers)]
            dist.all_gather_object(by_worker, own)
        bad_images = [pair for images in by_worker for pair in images]
        named = ", ".join(
            f"{image_id} ({loss:.3g})" for image_id, loss in bad_images[:_NAMED_IMAGES]
        )
        more = len(bad_images) - _NAMED_IMAGES
        raise DivergedError(
            f"recipe {self._recipe.name}: the loss diverged in epoch {self._epoch + 1}, step "
            f"{self._num_steps_seen + step + 1}, on {named}{f' and {more} more' if more > 0 else ''}; "
            f"set optimizer.lr below {self._recipe.learning_rate:g} or schedule.warmup_epochs above "
            f"{self._recipe.schedule.warmup_epochs:g}; where it is always the same image, look at it"
        )
