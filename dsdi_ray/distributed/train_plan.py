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
from torch import nn

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.learner import Learner
from dsdi_ray.distributed.network_environment import network_environment
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
from dsdi_ray.distributed.train_workers import worker_shares
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.vision.network_facts import network_facts
from dsdi_ray.vision.precision import has_bfloat16

_TIMED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a run would come to.

    Attributes:
        num_train: Images.
        num_validation: Images.
        num_enlarged: Images of the set whose short side is below the input's.
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
        pictures_mib: In memory: the decoded pictures, or the files if they do not fit.
        pictures_are_shared: By the workers of a node; else each holds them.
        seconds_per_step: Of the trial steps, one worker's share.
        estimated_seconds: Of the whole run, without start-up; workers' exchange is not in it.
    """

    num_train: int
    num_validation: int
    num_enlarged: int
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
    pictures_are_shared: bool
    seconds_per_step: float
    estimated_seconds: float


def plan_training(
    recipe: Recipe,
    *,
    data: Path,
    num_workers: int = 1,
    use_gpu: bool | None = None,
    num_runs: int = 1,
) -> TrainPlan:
    """Plan a run; nothing is written.

    A few real steps run on one worker of the cluster, with the first images.

    Args:
        recipe: How.
        data: Prepared set.
        num_workers: Data-parallel workers.
        use_gpu: None for GPUs where there are any.
        num_runs: At the same time, whose share of the cores it gets.

    Raises:
        UserError: As :func:`dsdi_ray.distributed.train.train_member`.
    """
    shares = worker_shares(num_workers, use_gpu, num_runs=num_runs)
    PreparedSet.open(data.resolve())
    trial = ray.remote(
        num_cpus=0 if shares.use_gpu else 1,
        num_gpus=1 if shares.use_gpu else 0,
        runtime_env=network_environment(use_gpu=shares.use_gpu),
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
    batch = np.arange(min(recipe.batch_size, len(train)))
    share = micro_batches(batch, rank=0, num_workers=num_workers, accumulate=recipe.accumulate)
    facts = network_facts(
        recipe.backbone.name,
        num_classes=len(prepared.taxonomy),
        input_px=recipe.input_px,
        batch_size=len(share[0]),
        mixed_precision=recipe.mixed_precision and has_bfloat16(device),
    )
    steps = num_steps(len(train), recipe.batch_size)
    network = starting_network(recipe, weights=weights, num_classes=len(prepared.taxonomy))
    learner = Learner(
        recipe,
        network,
        build_objective(recipe.loss, prepared.taxonomy, train.labels),
        device=device,
        steps_per_epoch=steps,
    )
    trial = _Trial(learner, train, share, batch_size=len(batch))
    is_cached = max(len(train), len(validation)) * recipe.input_px**2 * 3 <= CACHE_BYTES
    files = [len(jpeg) for part in (train, validation) for jpeg in part.jpegs]
    pictures_bytes = len(files) * recipe.input_px**2 * 3 if is_cached else sum(files)
    # What fits in memory is decoded once.
    decoding = trial.decode_seconds * len(files) * (1 if is_cached else recipe.epochs)
    validating = len(validation) / num_workers * trial.forward_seconds
    computing = recipe.epochs * (steps * trial.step_seconds + validating)
    return TrainPlan(
        num_train=len(train),
        num_validation=len(validation),
        num_enlarged=prepared.num_smaller(recipe.input_px),
        micro_batch=(len(share[0]), 3, recipe.input_px, recipe.input_px),
        num_parameters=facts.num_parameters,
        gigaflops=facts.forward_gflops,
        steps_per_epoch=steps,
        num_steps=steps * recipe.epochs,
        epochs=recipe.epochs,
        num_workers=num_workers,
        device=device.type,
        weights_mib=_weights_bytes(learner, network) / 2**20,
        activations_mib=facts.activation_bytes / 2**20,
        peak_mib=torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
        pictures_mib=pictures_bytes / 2**20,
        pictures_are_shared=is_cached and num_workers > 1,
        seconds_per_step=trial.step_seconds,
        estimated_seconds=decoding / max(1, num_loaders) + computing,
    )


def _weights_bytes(learner: Learner, network: nn.Module) -> int:
    """Of weights, gradients, the optimiser's state and the moving average."""
    gradients = [p for p in network.parameters() if p.requires_grad]
    average = learner.average_weights() or {}
    held = [learner.weights().values(), gradients, learner.optimizer_state().values()]
    return sum(t.numel() * t.element_size() for part in (*held, average.values()) for t in part)


class _Trial:
    """A few real steps, and what they took.

    Attributes:
        decode_seconds: Of a picture.
        step_seconds: Of a step; the median.
        forward_seconds: Of a picture that is validated.
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
        learner.step(batches, number=0, batch_size=batch_size)  # the first is slower
        self.step_seconds = median(
            _seconds(lambda: learner.step(batches, number=0, batch_size=batch_size))
            for _ in range(_TIMED_STEPS)
        )
        self.forward_seconds = _seconds(lambda: learner.logits(inputs[0])) / len(inputs[0])


def _seconds(run: Any) -> float:
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
