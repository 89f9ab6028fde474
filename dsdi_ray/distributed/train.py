"""Train a member with Ray Train: drive the workers, show progress, write the bundle."""

import contextlib
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer
from safetensors.torch import load_file

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.session import cluster_resources, resolve_use_gpu
from dsdi_ray.distributed.train_loop import BEST_FILE, STATE_FILE, starting_network, train_loop
from dsdi_ray.errors import DataError, ResourceError, UserError
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.bundles import MEMBER_FILE, MemberSpec, read_member_spec, write_member
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.vision.backbones import preprocessing_of
from dsdi_ray.vision.network_facts import check_input_px

_POLL_SECONDS = 0.5
_MAX_LOADERS = 8  # per GPU


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What training came to.

    Attributes:
        member_id: The member's id.
        out: Its bundle.
        backbone: Its network.
        epochs: Epochs trained.
        best_epoch: The epoch whose weights it has: the one of the best LRAP.
        lrap: On the validation part, at that epoch.
        map: Mean average precision over classes there.
        seconds: Wall clock.
        reused: True if the member was complete already.
    """

    member_id: str
    out: Path
    backbone: str
    epochs: int
    best_epoch: int
    lrap: float | None
    map: float | None
    seconds: float
    reused: bool


def train_member(
    recipe: Recipe,
    *,
    data: Path,
    out: Path,
    num_workers: int = 1,
    use_gpu: bool | None = None,
    num_runs: int = 1,
) -> TrainSummary:
    """Train a recipe on a prepared set and write a member bundle.

    A run that was cut off goes on from its last epoch; a member that is complete is left as it is.

    Args:
        recipe: How.
        data: Prepared set.
        out: Folder of the bundle; checkpoints lie beside it until it is written.
        num_workers: Data-parallel workers, each on a GPU where GPUs are used.
        use_gpu: None for GPUs where there are any.
        num_runs: Members that are trained at the same time on the same cluster, this one included.

    Raises:
        ConfigError: If there is no such network, or it cannot take the recipe's pictures.
        DataError: If the set cannot be read or ``out`` holds another member.
        ResourceError: If the cluster has fewer GPUs or CPUs than asked for.
    """
    started = time.monotonic()
    data, out = data.resolve(), out.resolve()
    prepared = PreparedSet.open(data)
    resolved = recipe.model_dump(mode="json")
    if (out / MEMBER_FILE).is_file():
        return _reuse(out, resolved, prepared.prepared_id, started)
    scaling, num_threads, num_loaders = _scaling(num_workers, use_gpu, num_runs)
    identity = json.dumps([resolved, prepared.prepared_id], sort_keys=True).encode()
    work = out.with_name(f"{out.name}.training") / hashlib.sha256(identity).hexdigest()[:12]
    work.mkdir(parents=True, exist_ok=True)
    history = work / "history.jsonl"
    weights = recipe.backbone.weights
    if weights not in ("hub", "none"):
        weights = str(Path(weights).resolve())  # workers run in another directory
    check_input_px(recipe.backbone.name, recipe.input_px)
    # The network is built once here, so that a wrong name, a missing hub or file is an error now.
    network = starting_network(recipe, weights=weights, num_classes=len(prepared.taxonomy))
    preprocessing = preprocessing_of(network)
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={
            "recipe": resolved,
            "weights": weights,
            "data": str(data),
            "history": str(history),
            "num_threads": num_threads,
            "num_loaders": num_loaders,
        },
        scaling_config=scaling,
        run_config=RunConfig(
            name="run",
            storage_path=str(work),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=2),
        ),
    )
    with _progress(recipe, history), _plain_errors():
        result = trainer.fit()
    assert result.checkpoint is not None
    with result.checkpoint.as_directory() as folder:
        tensors = load_file(Path(folder) / BEST_FILE)
        best = torch.load(Path(folder) / STATE_FILE, weights_only=True)["best_metrics"]
    metrics = {k: v for k, v in best.items() if k != "seconds"}
    spec = write_member(
        out,
        MemberSpec(
            backbone=recipe.backbone.name,
            input_px=recipe.input_px,
            mean=preprocessing.mean,
            std=preprocessing.std,
            taxonomy=prepared.taxonomy,
            recipe=resolved,
            metrics=metrics,
            training_data_id=prepared.prepared_id,
        ),
        tensors,
    )
    by_epoch = {json.loads(line)["epoch"]: line for line in _lines(history)}
    (out / "history.jsonl").write_text("".join(f"{line}\n" for line in by_epoch.values()))
    shutil.rmtree(work.parent)
    return _summary(spec, out, started, reused=False)


def _reuse(
    out: Path, resolved: Mapping[str, Any], prepared_id: str, started: float
) -> TrainSummary:
    spec = read_member_spec(out)
    if spec.recipe != resolved or spec.training_data_id != prepared_id:
        raise DataError(
            f"{out} holds a member of another recipe or other data (id {spec.member_id}); choose "
            "another --out or remove it"
        )
    return _summary(spec, out, started, reused=True)


def _summary(spec: MemberSpec, out: Path, started: float, *, reused: bool) -> TrainSummary:
    metrics = spec.metrics or {}
    return TrainSummary(
        member_id=spec.member_id,
        out=out,
        backbone=spec.backbone,
        epochs=(spec.recipe or {})["epochs"],
        best_epoch=int(metrics["epoch"]),
        lrap=metrics.get("lrap"),
        map=metrics.get("map"),
        seconds=time.monotonic() - started,
        reused=reused,
    )


def _scaling(
    num_workers: int, use_gpu: bool | None, num_runs: int
) -> tuple[ScalingConfig, int | None, int]:
    """Workers that fit the cluster, their threads and loading processes.

    Ray would wait without end for more workers.
    """
    on_gpu = resolve_use_gpu(use_gpu)
    resources = cluster_resources()
    available = resources.num_gpus if on_gpu else resources.num_cpus
    if num_workers < 1 or num_workers > available:
        kind = "GPU" if on_gpu else "CPU"
        raise ResourceError(
            f"--workers must be from 1 to {available:g} here ({kind}s), got {num_workers}"
        )
    per_worker = {"GPU": 1.0, "CPU": 0.0} if on_gpu else {"CPU": 1.0}
    scaling = ScalingConfig(
        num_workers=num_workers, use_gpu=on_gpu, resources_per_worker=per_worker
    )
    per_node = max(1.0, resources.num_cpus / resources.num_nodes)
    workers_per_node = -(-num_workers * num_runs // resources.num_nodes)
    cpus = max(1, int(per_node // workers_per_node))
    if on_gpu:
        return scaling, None, min(_MAX_LOADERS, cpus - 1)
    # On CPUs the network itself takes all cores.
    return scaling, cpus, 0


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise the user's mistake that a worker came upon, not Ray's account of it."""
    try:
        yield
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, UserError):
                raise failure from error
        raise


@contextlib.contextmanager
def _progress(recipe: Recipe, history: Path) -> Iterator[None]:
    """Follow the workers' history file and show epochs as they end."""
    is_over = threading.Event()

    def follow() -> None:
        num_lines = len(_lines(history))
        with progress_bar(
            total=recipe.epochs,
            description=f"Training {recipe.name}",
            unit="epoch",
            initial=json.loads(_lines(history)[-1])["epoch"] if num_lines else 0,
        ) as bar:
            while True:
                leaving = is_over.wait(_POLL_SECONDS)
                for line in _lines(history)[num_lines:]:
                    num_lines += 1
                    metrics = json.loads(line)
                    shown = ("train_loss", "validation_loss", "lrap", "map")
                    facts = [f"{name} {metrics[name]:.3f}" for name in shown if name in metrics]
                    bar.set_postfix_str(", ".join(facts), refresh=False)
                    bar.update(max(0, metrics["epoch"] - bar.n))  # an epoch may be done again
                if leaving:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _lines(path: Path) -> list[str]:
    text = path.read_text() if path.is_file() else ""
    return text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
