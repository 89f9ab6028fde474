"""What each training worker runs: epochs of a recipe over a prepared set.

An epoch's shuffling and augmentation depend on the recipe's seed and the epoch's number alone, so
a run that resumes after any epoch goes on as if it had never stopped.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dsdi_ray.config import Recipe
from dsdi_ray.method.losses import focal_loss
from dsdi_ray.method.metrics import average_precisions, lrap
from dsdi_ray.method.sampling import assign_splits
from dsdi_ray.method.schedules import learning_rate_factor
from dsdi_ray.storage.bundles import read_weights_file
from dsdi_ray.storage.prepared import PreparedSet, labels_matrix
from dsdi_ray.vision.backbones import build_backbone, load_pretrained, preprocessing_of
from dsdi_ray.vision.member import Normalize
from dsdi_ray.vision.transforms import augmentation, decode_square, to_channels_first

MODEL_FILE, BEST_FILE, STATE_FILE = "model.safetensors", "best.safetensors", "state.pt"
_CACHE_BYTES = 4 * 2**30
_VALIDATION_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images and soft labels of one part of a prepared set.

    Attributes:
        jpegs: The files' bytes.
        labels: Soft labels, ``[N, C]``.
        side_px: S.
        cached: Decoded pictures, ``[N, S, S, 3]``, where they fit in memory.
    """

    jpegs: list[bytes]
    labels: NDArray[np.float32]
    side_px: int
    cached: NDArray[np.uint8] | None

    def __len__(self) -> int:
        return len(self.jpegs)

    def picture(self, i: int) -> Tensor:
        """Picture i, uint8 ``[3, S, S]``."""
        if self.cached is not None:
            return to_channels_first(self.cached[i])
        return to_channels_first(decode_square(self.jpegs[i], self.side_px))

    def batch(self, indices: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """Pictures ``[B, 3, S, S]`` and labels ``[B, C]``."""
        pictures = torch.stack([self.picture(int(i)) for i in indices])
        return pictures, torch.from_numpy(self.labels[indices])


def train_loop(config: Mapping[str, Any]) -> None:
    """Train; reports metrics and a checkpoint per epoch, and appends metrics to a file.

    Args:
        config: ``recipe``, ``data``, ``history`` (file), ``num_threads`` (None: torch's choice).
    """
    recipe = Recipe.model_validate(config["recipe"])
    if config["num_threads"]:
        torch.set_num_threads(config["num_threads"])
    prepared = PreparedSet.open(Path(config["data"]))
    train, validation = load_pictures(prepared, recipe)
    context = ray.train.get_context()
    rank, num_workers = context.get_world_rank(), context.get_world_size()
    run = _Run(recipe, num_classes=len(prepared.taxonomy), num_images=len(train), world=num_workers)
    first_epoch = run.resume()
    for epoch in range(first_epoch, recipe.epochs):
        started = time.monotonic()
        loss = run.train_epoch(train, epoch=epoch, rank=rank)
        metrics: dict[str, Any] = {"epoch": epoch + 1, "train_loss": loss}
        if rank == 0:
            metrics |= run.validate(validation) if len(validation) else {}
            metrics["seconds"] = time.monotonic() - started
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if rank == 0:
                run.save(Path(folder), metrics, epoch=epoch)
                checkpoint = ray.train.Checkpoint.from_directory(folder)
                with Path(config["history"]).open("a") as history:
                    history.write(json.dumps(metrics) + "\n")
            ray.train.report(metrics, checkpoint=checkpoint)


def load_pictures(prepared: PreparedSet, recipe: Recipe) -> tuple[Pictures, Pictures]:
    """The training and validation parts, split by the recipe's seed or as the set was prepared."""
    table = prepared.read(["image_id", "jpeg", "soft_label", "split"])
    labels = labels_matrix(table, "soft_label")
    jpegs = table["jpeg"].to_pylist()
    if recipe.split_seed is None:
        is_validation = np.array(table["split"].to_pylist()) == "validation"
    else:
        is_validation = assign_splits(table["image_id"].to_pylist(), seed=recipe.split_seed)
    return _part(jpegs, labels, ~is_validation, recipe), _part(jpegs, labels, is_validation, recipe)


def _part(
    jpegs: list[bytes], labels: NDArray[np.float32], mask: NDArray[np.bool_], recipe: Recipe
) -> Pictures:
    side = recipe.input_px
    chosen = [jpegs[i] for i in np.flatnonzero(mask)]
    cached = None
    if 0 < len(chosen) * side * side * 3 <= _CACHE_BYTES:
        cached = np.stack([decode_square(jpeg, side) for jpeg in chosen])
    return Pictures(jpegs=chosen, labels=labels[mask], side_px=side, cached=cached)


class _Run:
    """The state of a training run on one worker."""

    def __init__(self, recipe: Recipe, *, num_classes: int, num_images: int, world: int) -> None:
        torch.manual_seed(recipe.seed)
        weights = recipe.backbone.weights
        network = build_backbone(
            recipe.backbone.name, num_classes=num_classes, from_hub=weights == "hub"
        )
        if weights not in ("hub", "none"):
            load_pretrained(network, read_weights_file(Path(weights)), source=weights)
        preprocessing = preprocessing_of(network)
        self._recipe = recipe
        self._device = ray.train.torch.get_device()
        self._normalize = Normalize(preprocessing.mean, preprocessing.std).to(self._device)
        self._network = network.to(self._device)
        self._model = ray.train.torch.prepare_model(network) if world > 1 else self._network
        self._optimizer = _optimizer(recipe, self._network)
        self._augment = augmentation(**recipe.augmentation.model_dump())
        self._world = world
        self._batches_per_epoch = max(1, num_images // (recipe.batch_size * world))
        self._best: dict[str, Tensor] = {}
        self._best_metrics: dict[str, Any] = {}

    def resume(self) -> int:
        """Load the last checkpoint if there is one; returns the epoch to go on with."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return 0
        with checkpoint.as_directory() as folder:
            path = Path(folder)
            self._network.load_state_dict(load_file(path / MODEL_FILE))
            self._best = load_file(path / BEST_FILE)
            state = torch.load(path / STATE_FILE, map_location=self._device, weights_only=True)
        self._optimizer.load_state_dict(state["optimizer"])
        self._best_metrics = state["best_metrics"]
        return int(state["epochs_done"])

    def save(self, folder: Path, metrics: Mapping[str, Any], *, epoch: int) -> None:
        """Write a checkpoint; the epoch with the best LRAP so far is kept in it as well."""
        weights = {k: t.detach().cpu().clone() for k, t in self._network.state_dict().items()}
        if metrics.get("lrap", 0.0) >= self._best_metrics.get("lrap", 0.0):
            self._best, self._best_metrics = weights, dict(metrics)
        save_file(weights, folder / MODEL_FILE)
        save_file(self._best, folder / BEST_FILE)
        state = {
            "optimizer": self._optimizer.state_dict(),
            "best_metrics": self._best_metrics,
            "epochs_done": epoch + 1,
        }
        torch.save(state, folder / STATE_FILE)

    def train_epoch(self, pictures: Pictures, *, epoch: int, rank: int) -> float:
        """One pass over the training part; returns the mean loss per image (Eq. 1)."""
        self._model.train()
        total, num_seen = 0.0, 0
        for i, indices in enumerate(self._batches(len(pictures), epoch=epoch, rank=rank)):
            self._set_learning_rate(epoch * self._batches_per_epoch + i)
            raw, targets = pictures.batch(indices)
            augmented = torch.stack([self._augment(picture) for picture in raw])
            loss = self._loss(augmented, targets).sum(dim=-1).mean()
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            total += float(loss.detach()) * len(indices)
            num_seen += len(indices)
        return total / num_seen

    @torch.inference_mode()
    def validate(self, pictures: Pictures) -> dict[str, float]:
        """LRAP, mAP over classes with a positive, and the loss, on the validation part."""
        self._network.eval()
        logits = []
        for start in range(0, len(pictures), _VALIDATION_BATCH):
            raw, _ = pictures.batch(np.arange(start, min(start + _VALIDATION_BATCH, len(pictures))))
            logits.append(self._network(self._normalize(raw.to(self._device))).float().cpu())
        scores, labels = torch.cat(logits), torch.from_numpy(pictures.labels)
        loss = focal_loss(scores, labels, gamma=self._recipe.loss.gamma).sum(dim=-1).mean()
        per_class = average_precisions(pictures.labels, scores.numpy())
        return {
            "validation_loss": float(loss),
            "lrap": lrap(pictures.labels, scores.numpy()),
            "map": float(np.nanmean(per_class)) if not np.isnan(per_class).all() else 0.0,
        }

    def _loss(self, pictures: Tensor, targets: Tensor) -> Tensor:
        is_mixed = self._recipe.mixed_precision and self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_mixed):
            logits = self._model(self._normalize(pictures.to(self._device, non_blocking=True)))
        return focal_loss(logits, targets.to(self._device), gamma=self._recipe.loss.gamma)

    def _batches(self, num_images: int, *, epoch: int, rank: int) -> Iterator[NDArray[np.integer]]:
        """This worker's batches of an epoch; a last incomplete one is left out."""
        seed = [self._recipe.seed, epoch]
        order = np.random.default_rng(seed).permutation(num_images)
        torch.manual_seed(hash((*seed, rank)))
        size = min(self._recipe.batch_size, num_images)
        for i in range(self._batches_per_epoch):
            first = ((i * self._world) + rank) * size
            yield order.take(range(first, first + size), mode="wrap")

    def _set_learning_rate(self, step: int) -> None:
        schedule = self._recipe.schedule
        factor = learning_rate_factor(
            step,
            num_steps=self._recipe.epochs * self._batches_per_epoch,
            num_warmup_steps=round(schedule.warmup_epochs * self._batches_per_epoch),
            schedule=schedule.name,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = factor * self._recipe.learning_rate


def _optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    settings = recipe.optimizer
    if settings.name == "adamw":
        return torch.optim.AdamW(
            network.parameters(), recipe.learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(),
        recipe.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
