"""What each training worker runs: epochs of a recipe over a prepared set.

An epoch's shuffling, augmentation and dropout depend on the recipe's seed and the epoch's number
alone, so a run that resumes after any epoch goes on as if it had never stopped.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from numpy.typing import NDArray
from torch import nn

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.learner import Learner
from dsdi_ray.distributed.loss_watch import DivergedError
from dsdi_ray.distributed.network_libraries import skip_last_collection
from dsdi_ray.distributed.objectives import build_objective
from dsdi_ray.distributed.optimizers import learning_rate
from dsdi_ray.distributed.run_owner import OwnerError, check_owner_together, owner_watch
from dsdi_ray.distributed.train_data import Feeder, load_pictures, num_steps
from dsdi_ray.distributed.train_epoch import Worker, check_shares, train_epoch
from dsdi_ray.distributed.validation import validation_logits, validation_metrics
from dsdi_ray.errors import ResourceError, UserError
from dsdi_ray.method.epoch_selection import selected_epoch
from dsdi_ray.method.snapshots import cycle_ends
from dsdi_ray.storage.member_weights import read_weights_file
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.storage.train_checkpoints import TrainCheckpoint, TrainCheckpoints
from dsdi_ray.vision.backbones import build_backbone, load_pretrained

CHECKPOINTS, HISTORY_FILE = "checkpoints", "history.jsonl"


def train_loop(config: Mapping[str, Any]) -> UserError | None:
    """Train; writes a checkpoint and the history after each epoch, and reports metrics to Ray.

    Args:
        config: ``recipe``, ``weights`` (hub, none, or an absolute path), ``data``, ``work`` (folder
            of the run), ``run_id``, ``owner`` (of the folder, see
            :mod:`dsdi_ray.distributed.run_owner`), ``num_threads`` (None: torch's choice),
            ``num_loaders``, ``decoded`` (folder of pictures that are shared, or None).

    Returns:
        A mistake that was come upon, see :func:`mistake_of`.
    """
    skip_last_collection()
    if config["num_threads"]:
        torch.set_num_threads(config["num_threads"])
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        num_workers=context.get_world_size(),
        device=_device(),
        num_loaders=config["num_loaders"],
    )
    recipe = Recipe.model_validate(config["recipe"])
    return mistake_of(
        lambda: _train(recipe, worker, config), name=recipe.name, num_workers=worker.num_workers
    )


def mistake_of(train: Callable[[], None], *, name: str, num_workers: int) -> UserError | None:
    """Train, and return the mistake that it came upon: Ray would do again what is raised.

    Args:
        train: One worker's part.
        name: Of the recipe.
        num_workers: Where there are others, what they may not have come upon is raised: they wait.

    Returns:
        None where the training came to its end.
    """
    mistake: UserError
    try:
        train()
    except torch.OutOfMemoryError as error:
        mistake = ResourceError(
            f"recipe {name}: the GPU's memory does not do for its batches; "
            "set accumulate above 1, or batch_size or input_px lower"
        )
        if num_workers > 1:
            raise mistake from error
    except (DivergedError, OwnerError) as error:
        mistake = error
    except UserError as error:
        if num_workers > 1:
            raise
        mistake = error
    else:
        return None
    return mistake


def _device() -> torch.device:
    """The worker's; a CPU where a GPU is but a number of Ray's."""
    return ray.train.torch.get_device() if torch.cuda.is_available() else torch.device("cpu")


def starting_network(recipe: Recipe, *, weights: str, num_classes: int) -> nn.Module:
    """The network before training: the same for the same recipe, wherever it is built.

    Args:
        recipe: Its backbone and seed.
        weights: ``hub``, ``none``, or a file.
        num_classes: C.

    Raises:
        ConfigError: If there is no such network, or the hub cannot be reached.
        DataError: If the file cannot be read or is of another network.
    """
    torch.manual_seed(recipe.seed)
    network = build_backbone(
        recipe.backbone.name, num_classes=num_classes, from_hub=weights == "hub"
    )
    if weights not in ("hub", "none"):
        load_pretrained(network, read_weights_file(Path(weights)), source=weights)
    return network


def _train(recipe: Recipe, worker: Worker, config: Mapping[str, Any]) -> None:
    work = Path(config["work"])
    check_owner_together(work, config["owner"], num_workers=worker.num_workers)
    prepared = PreparedSet.open(Path(config["data"]))
    shared = Path(config["decoded"]) if config["decoded"] else None
    train, validation = load_pictures(prepared, recipe, shared=shared)
    check_shares(recipe, len(train), worker.num_workers)
    objective = build_objective(recipe.loss, prepared.taxonomy, train.labels)
    steps_per_epoch = num_steps(len(train), recipe.batch_size)
    learner = Learner(
        recipe,
        starting_network(recipe, weights=config["weights"], num_classes=len(prepared.taxonomy)),
        objective,
        device=worker.device,
        steps_per_epoch=steps_per_epoch,
        num_workers=worker.num_workers,
    )
    feeder, validation_feeder = (
        Feeder(part, num_processes=worker.num_loaders, pin_memory=worker.device.type == "cuda")
        for part in (train, validation)
    )
    checkpoints = TrainCheckpoints(work / CHECKPOINTS, run_id=config["run_id"])
    history = resume(learner, checkpoints)
    # Several workers wait for each other in a step, so there it is seen between epochs alone.
    on_step = owner_watch(work, config["owner"]) if worker.num_workers == 1 else None
    for epoch in range(len(history), recipe.epochs):
        started = time.monotonic()
        loss = train_epoch(
            learner, train, feeder, recipe, epoch=epoch, worker=worker, on_step=on_step
        )
        seconds = time.monotonic() - started
        last_step = (epoch + 1) * steps_per_epoch - 1
        metrics: dict[str, Any] = {
            "epoch": epoch + 1,
            "learning_rate": learning_rate(recipe, last_step, steps_per_epoch=steps_per_epoch),
            "train_loss": loss,
            "images_per_second": steps_per_epoch * min(recipe.batch_size, len(train)) / seconds,
        }
        logits = None
        if len(validation):
            logits = validation_logits(
                learner,
                validation,
                validation_feeder,
                rank=worker.rank,
                num_workers=worker.num_workers,
            )
            metrics |= validation_metrics(
                logits, validation, objective=objective, taxonomy=prepared.taxonomy
            )
        metrics["seconds"] = time.monotonic() - started
        history.append(metrics)
        check_owner_together(work, config["owner"], num_workers=worker.num_workers)
        if worker.rank == 0:
            save(learner, checkpoints, history, recipe, logits)
            write_history(work / HISTORY_FILE, history)
        ray.train.report({k: v for k, v in metrics.items() if not isinstance(v, dict)})


def resume(learner: Learner, checkpoints: TrainCheckpoints) -> list[Mapping[str, Any]]:
    """Load the newest checkpoint if there is one; returns the history so far."""
    checkpoint = checkpoints.latest()
    if checkpoint is None:
        return []
    learner.load(checkpoint.weights, checkpoint.average, checkpoint.optimizer)
    return list(checkpoint.history)


def save(
    learner: Learner,
    checkpoints: TrainCheckpoints,
    history: list[Mapping[str, Any]],
    recipe: Recipe,
    logits: NDArray[np.float32] | None,
) -> None:
    """Write a checkpoint; those that may become members are kept, and the one before."""
    epoch = len(history)
    cycles = recipe.schedule.cycles
    snapshots = cycle_ends(recipe.epochs, cycles) if cycles else ()
    checkpoints.write(
        TrainCheckpoint(
            epoch=epoch,
            history=history,
            weights=learner.weights(),
            average=learner.average_weights(),
            optimizer=learner.optimizer_state(),
            validation=None if logits is None else torch.from_numpy(logits),
        ),
        keep={epoch - 1, selected_epoch(history, recipe.selection), *snapshots},
    )


def write_history(path: Path, history: list[Mapping[str, Any]]) -> None:
    """Write the metrics of all epochs so far, in place of the file that may be there."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(f"{json.dumps(row)}\n" for row in history), "utf-8")
    temporary.replace(path)
