"""A network in training on one worker: steps of the optimiser, and the state that is saved."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.optimizers import build_optimizer, learning_rate
from dsdi_ray.method.objective import Objective
from dsdi_ray.vision.augmentation import Augmentation
from dsdi_ray.vision.backbones import prefers_channels_last, preprocessing_of
from dsdi_ray.vision.cpu_threads import LoneThreads
from dsdi_ray.vision.member import Normalize
from dsdi_ray.vision.precision import autocast

_PART = 16  # pictures of a forward pass of one thread: the same whatever the number of threads


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward and backward pass sees.

    Attributes:
        pictures: uint8 ``[B, 3, S, S]``.
        labels: ``[B, C]``.
        is_asked: Classes that count, ``[B, C]``; None: all.
        seeds: Of each picture's augmentation, ``[B]``.
    """

    pictures: Tensor
    labels: Tensor
    is_asked: Tensor | None
    seeds: Sequence[Sequence[int]]


class Learner:
    """A network, its optimiser and its moving average.

    Args:
        recipe: How.
        network: Where from.
        objective: What is minimised.
        device: Where.
        steps_per_epoch: Optimiser steps of an epoch.
        num_workers: Workers that share each batch; with more than one, a process group is joined.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        objective: Objective,
        *,
        device: torch.device,
        steps_per_epoch: int,
        num_workers: int = 1,
    ) -> None:
        is_last = prefers_channels_last(recipe.backbone.name)
        layout = torch.channels_last if is_last else torch.contiguous_format
        preprocessing = preprocessing_of(network)
        normalize = Normalize(preprocessing.mean, preprocessing.std, channels_last=is_last)
        self._recipe = recipe
        self._objective = objective
        self._device = device
        self._steps_per_epoch = steps_per_epoch
        self._num_workers = num_workers
        self._normalize = normalize.to(device)
        self._network = network.to(device).to(memory_format=layout)
        self._model = self._network
        self._average: ModelEmaV3 | None = None
        if recipe.ema_decay is not None:
            # At first it decays sooner, so that the start is soon forgotten.
            self._average = ModelEmaV3(self._network, decay=recipe.ema_decay, use_warmup=True)
        if num_workers > 1:
            self._model = DistributedDataParallel(self._network)
        self._optimizer = build_optimizer(recipe, self._network.parameters())
        self._augmentation = Augmentation(**recipe.augmentation.scaled)
        self._pool = LoneThreads(torch.get_num_threads()) if device.type == "cpu" else None

    @property
    def member_network(self) -> nn.Module:
        """What would become the member: the moving average where there is one."""
        return self._network if self._average is None else self._average.module

    def step(self, micro_batches: Sequence[MicroBatch], *, number: int, batch_size: int) -> Tensor:
        """One step of the optimiser; a GPU is not waited for.

        Args:
            micro_batches: This worker's share of the batch.
            number: Of the step, from 0 over all epochs.
            batch_size: Images of the batch, over all workers.

        Returns:
            The loss of each image of the share.
        """
        rate = learning_rate(self._recipe, number, steps_per_epoch=self._steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._model.train()
        self._optimizer.zero_grad(set_to_none=True)
        losses = []
        for i, micro_batch in enumerate(micro_batches):
            with self._gradients_stay_here(until_later=i < len(micro_batches) - 1):
                per_image = self._losses(micro_batch)
                # The workers' gradients are averaged, so that this is the mean over the batch.
                share = len(per_image) * self._num_workers / batch_size
                torch.autograd.backward(self._objective.mean_of_kept(per_image) * share)
            losses.append(per_image.detach())
        self._optimizer.step()
        if self._average is not None:
            self._average.update(self._network, step=number + 1)
        return torch.cat(losses)

    def logits(self, pictures: Tensor) -> Tensor:
        """Logits of the network that would become the member, float32 ``[B, C]``.

        Args:
            pictures: uint8 ``[B, 3, S, S]``.
        """
        self.member_network.eval()
        if self._pool is None:
            return self._logits(pictures)
        return torch.cat(list(self._pool.map(self._logits, torch.split(pictures, _PART))))

    @torch.inference_mode()
    def _logits(self, pictures: Tensor) -> Tensor:
        with self._precision():
            inputs = self._normalize(pictures.to(self._device, non_blocking=True))
            logits: Tensor = self.member_network(inputs)
        return logits.float()

    def weights(self) -> dict[str, Tensor]:
        """The network's."""
        return dict(self._network.state_dict())

    def average_weights(self) -> dict[str, Tensor] | None:
        """The moving average's."""
        return None if self._average is None else dict(self._average.module.state_dict())

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimiser's, by the place of the parameter and the name of the state."""
        states = self._optimizer.state_dict()["state"]
        return {
            f"{place}.{name}": value
            for place, state in states.items()
            for name, value in state.items()
            if isinstance(value, Tensor)
        }

    def load(
        self,
        weights: Mapping[str, Tensor],
        average: Mapping[str, Tensor] | None,
        optimizer: Mapping[str, Tensor],
    ) -> None:
        """Go on from a state that was saved."""
        self._network.load_state_dict(dict(weights))
        if self._average is not None and average is not None:
            self._average.module.load_state_dict(dict(average))
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in optimizer.items():
            place, _, name = key.partition(".")
            states.setdefault(int(place), {})[name] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": states, "param_groups": groups})

    def _losses(self, micro_batch: MicroBatch) -> Tensor:
        """Of each image, ``[B]``; the loss of auxiliary logits is added."""
        pictures = micro_batch.pictures.to(self._device, non_blocking=True)
        labels = micro_batch.labels.to(self._device, non_blocking=True)
        is_asked = micro_batch.is_asked
        is_asked = None if is_asked is None else is_asked.to(self._device, non_blocking=True)
        changes = self._augmentation.draw(micro_batch.seeds)
        inputs = self._normalize(self._augmentation.apply(pictures, changes, pool=self._pool))
        with self._precision():
            output = self._model(inputs)
        outputs = output if isinstance(output, tuple) else (output,)
        losses = [self._objective.per_image(logits, labels, is_asked) for logits in outputs]
        return torch.stack(losses).sum(dim=0)

    def _precision(self) -> torch.autocast:
        return autocast(self._device, is_wanted=self._recipe.mixed_precision)

    def _gradients_stay_here(self, *, until_later: bool) -> AbstractContextManager[None]:
        if until_later and isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return nullcontext()
