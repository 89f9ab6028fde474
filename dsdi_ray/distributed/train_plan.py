"""What a run would come to: sizes from the recipe and the set, time from a few real steps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
import torch
from torch.utils.flop_counter import FlopCounterMode

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.learner import Learner
from dsdi_ray.distributed.objectives import build_objective
from dsdi_ray.distributed.train import starting_weights
from dsdi_ray.distributed.train_data import (
    CACHE_BYTES,
    Pictures,
    load_pictures,
    micro_batches,
    num_steps,
)
from dsdi_ray.distributed.train_epoch import check_shares, micro_batch
from dsdi_ray.distributed.train_loop import starting_network
from dsdi_ray.distributed.train_workers import worker_environment, worker_shares
from dsdi_ray.storage.prepared import PreparedSet

_TIMED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a run would come to.

    Attributes:
        num_train: Images.
        num_validation: Images.
        micro_batch: Shape of what a worker computes at once.
        num_parameters: Of the network.
        gigaflops: Of a picture's forward pass; a multiplication and an addition are two.
        steps_per_epoch: Optimiser steps.
        num_steps: In all epochs.
        epochs: Epochs.
        num_workers: That share each step.
        device: Where the trial steps ran, ``cuda`` or ``cpu``.
        weights_mib: On each device: weights, gradients, the optimiser's state, the moving average.
        activations_mib: On each device: what the forward pass keeps for the backward pass.
        peak_mib: Most that a GPU held in the trial steps, None on a CPU.
        pictures_mib: In each worker's memory: the decoded pictures, or the files if they do not fit.
        seconds_per_step: Of the trial steps, one worker's share.
        estimated_seconds: Of the whole run, without start-up; workers' exchange is not in it.
    """

    num_train: int
    num_validation: int
    micro_batch: tuple[int, ...]
    num_parameters: int
    gigaflops: float
    steps_per_epoch: int
    num_steps: int
    epochs: int
    num_workers: int
    device: str
    weights_mib: float
    activations_mib: float
    peak_mib: float | None
    pictures_mib: float
    seconds_per_step: float
    estimated_seconds: float


def plan_training(
    recipe: Recipe, *, data: Path, num_workers: int = 1, use_gpu: bool | None = None
) -> TrainPlan:
    """Plan a run; nothing is written.

    A few real steps run on one worker of the cluster, with the first images.

    Args:
        recipe: How.
        data: Prepared set.
        num_workers: Data-parallel workers.
        use_gpu: None for GPUs where there are any.

    Raises:
        UserError: As :func:`dsdi_ray.distributed.train.train_member`.
    """
    shares = worker_shares(num_workers, use_gpu, num_runs=1)
    PreparedSet.open(data.resolve())
    trial = ray.remote(
        num_cpus=0 if shares.use_gpu else 1,
        num_gpus=1 if shares.use_gpu else 0,
        runtime_env=worker_environment(use_gpu=shares.use_gpu),
    )(_plan)
    plan: TrainPlan = ray.get(
        trial.remote(
            recipe.model_dump(mode="json"),
            starting_weights(recipe),
            str(data.resolve()),
            num_workers,
            shares.num_threads,
            shares.num_loaders,
        )
    )
    return plan


def _plan(
    resolved: dict[str, Any],
    weights: str,
    data: str,
    num_workers: int,
    num_threads: int | None,
    num_loaders: int,
) -> TrainPlan:
    if num_threads:
        torch.set_num_threads(num_threads)
    recipe, prepared = Recipe.model_validate(resolved), PreparedSet.open(Path(data))
    train, validation = load_pictures(prepared, recipe, cache_bytes=0)
    check_shares(recipe, len(train), num_workers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = starting_network(recipe, weights=weights, num_classes=len(prepared.taxonomy))
    learner = Learner(
        recipe,
        network,
        build_objective(recipe.loss, prepared.taxonomy, train.labels),
        device=device,
        steps_per_epoch=num_steps(len(train), recipe.batch_size),
    )
    batch = np.arange(min(recipe.batch_size, len(train)))
    share = micro_batches(batch, rank=0, num_workers=num_workers, accumulate=recipe.accumulate)
    trial = _Trial(learner, train, share, batch_size=len(batch))
    steps = num_steps(len(train), recipe.batch_size)
    is_cached = 0 < len(train) * recipe.input_px**2 * 3 <= CACHE_BYTES
    num_shown = recipe.epochs if not is_cached else 1
    decoding = trial.decode_seconds * len(train) * num_shown / max(1, num_loaders)
    computing = recipe.epochs * (
        steps * trial.step_seconds + len(validation) / num_workers * trial.forward_seconds
    )
    parameters = list(network.parameters())
    copies = 2 + len(learner.optimizer_state()) / max(1, len(parameters))
    copies += recipe.ema_decay is not None
    size = sum(p.numel() * p.element_size() for p in parameters)
    pictures = len(train) + len(validation)
    return TrainPlan(
        num_train=len(train),
        num_validation=len(validation),
        micro_batch=(len(share[0]), 3, recipe.input_px, recipe.input_px),
        num_parameters=sum(p.numel() for p in parameters),
        gigaflops=trial.gigaflops,
        steps_per_epoch=steps,
        num_steps=steps * recipe.epochs,
        epochs=recipe.epochs,
        num_workers=num_workers,
        device=device.type,
        weights_mib=copies * size / 2**20,
        activations_mib=trial.activation_bytes / 2**20,
        peak_mib=torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
        pictures_mib=(
            pictures * recipe.input_px**2 * 3
            if is_cached
            else sum(len(jpeg) for part in (train, validation) for jpeg in part.jpegs)
        )
        / 2**20,
        seconds_per_step=trial.step_seconds,
        estimated_seconds=decoding + computing,
    )


class _Trial:
    """A few real steps, and what they took.

    Attributes:
        decode_seconds: Of a picture.
        step_seconds: Of a step; the median.
        forward_seconds: Of a picture that is validated.
        gigaflops: Of a picture's forward pass.
        activation_bytes: That are kept for the backward pass.
    """

    def __init__(
        self, learner: Learner, pictures: Pictures, share: Sequence[Any], *, batch_size: int
    ) -> None:
        started = time.perf_counter()
        inputs = [pictures.batch(indices) for indices in share]
        num_images = sum(len(indices) for indices in share)
        self.decode_seconds = (time.perf_counter() - started) / num_images
        batches = [
            micro_batch(pictures, indices, own, seed=0, epoch=0)
            for indices, own in zip(share, inputs, strict=True)
        ]
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            learner.step(batches[:1], number=0, batch_size=batch_size)
        own_weights = {t.untyped_storage().data_ptr() for t in learner.weights().values()}
        self.activation_bytes = sum(
            size for pointer, size in kept.items() if pointer not in own_weights
        )
        self.step_seconds = median(
            _seconds(lambda: learner.step(batches, number=0, batch_size=batch_size))
            for _ in range(_TIMED_STEPS)
        )
        with FlopCounterMode(display=False) as counter:
            learner.logits(inputs[0])
        self.gigaflops = counter.get_total_flops() / len(inputs[0]) / 1e9
        self.forward_seconds = _seconds(lambda: learner.logits(inputs[0])) / len(inputs[0])


def _seconds(run: Any) -> float:
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
