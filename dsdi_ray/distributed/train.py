"""Train a member with Ray Train: drive the workers, show progress, write the bundles."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.run_owner import take_over
from dsdi_ray.distributed.train_bundles import Trained, write_bundles
from dsdi_ray.distributed.train_loop import CHECKPOINTS, HISTORY_FILE, starting_network
from dsdi_ray.distributed.train_progress import TENSORBOARD, follow, read_history
from dsdi_ray.distributed.train_run import run_workers
from dsdi_ray.distributed.train_workers import worker_shares
from dsdi_ray.errors import DataError
from dsdi_ray.progress import print_line
from dsdi_ray.storage.bundles import MEMBER_FILE, MemberSpec, check_place, read_member_spec
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.storage.train_checkpoints import TrainCheckpoints
from dsdi_ray.vision.backbones import preprocessing_of
from dsdi_ray.vision.network_facts import check_input_px


@dataclass(frozen=True, kw_only=True)
class SweepShare:
    """What a trial of a sweep shares with others.

    Attributes:
        gpus_per_worker: Up to 1, of each worker where GPUs are used.
        cpus_per_worker: Of Ray's, of each worker where none are; the trial itself needs some too.
        decoded: Folder of pictures that are decoded once for all trials.
        on_epoch: Told the metrics of each epoch as it ends; of a run that resumes, of the epochs
            before as well.
    """

    gpus_per_worker: float
    cpus_per_worker: float
    decoded: Path
    on_epoch: Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What training came to.

    Attributes:
        member_id: The member's id.
        out: Its bundle; see :mod:`dsdi_ray.distributed.train_bundles` for those in it.
        backbone: Its network.
        epochs: Epochs trained.
        best_epoch: The epoch whose weights it has: the one that the recipe selects.
        lrap: On the validation part, at that epoch.
        map: Mean average precision over features there.
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
    resume: bool = True,
    mlflow: str | None = None,
    in_sweep: SweepShare | None = None,
) -> TrainSummary:
    """Train a recipe on a prepared set and write member bundles.

    A run that was cut off goes on from its last epoch; a member that is complete is left as it is.

    Args:
        recipe: How.
        data: Prepared set.
        out: Folder of the bundle; checkpoints lie beside it until it is written.
        num_workers: Data-parallel workers that share each batch, each on a GPU where GPUs are used.
        use_gpu: None for GPUs where there are any.
        num_runs: Members that are trained at the same time on the same cluster, this one included.
        resume: False starts over, also where the member is complete.
        mlflow: A folder or tracking URI where MLflow keeps its runs; None: no MLflow.
        in_sweep: Where it is a trial: what it shares with the others.

    Raises:
        ConfigError: If the recipe does not fit the data or its network, or its loss diverges.
        DataError: If the set or a checkpoint cannot be read, or ``out`` holds something else.
        ResourceError: If the cluster has fewer GPUs or CPUs than asked for.
    """
    started = time.monotonic()
    data, out = data.resolve(), out.resolve()
    prepared = PreparedSet.open(data)
    resolved = recipe.model_dump(mode="json")
    run_id = _run_id(resolved, prepared)
    work = out.with_name(f"{out.name}.training") / run_id
    complete = _complete_member(out, resolved, prepared)
    if complete is not None and resume:
        shutil.rmtree(work.parent, ignore_errors=True)  # left by a kill at the very end
        return _summary(complete, out, started, reused=True)
    shares = worker_shares(num_workers, use_gpu, num_runs=num_runs)
    check_input_px(recipe.backbone.name, recipe.input_px)
    weights = starting_weights(recipe)
    # The network is built once here, so that a wrong name, a missing hub or file is an error now.
    network = starting_network(recipe, weights=weights, num_classes=len(prepared.taxonomy))
    checkpoints = TrainCheckpoints(work / CHECKPOINTS, run_id=run_id)
    _begin(recipe, checkpoints, work, resume=resume)
    config = {
        "recipe": resolved,
        "weights": weights,
        "data": str(data),
        "work": str(work),
        "run_id": run_id,
        "owner": take_over(work),
        "num_threads": shares.num_threads,
        "num_loaders": shares.num_loaders,
        "decoded": _decoded(in_sweep, work, num_workers=num_workers),
    }
    history = work / HISTORY_FILE
    with follow(recipe, history, mlflow=mlflow, on_epoch=in_sweep.on_epoch if in_sweep else None):
        if recipe.epochs not in checkpoints.epochs():
            run_workers(
                config,
                work,
                num_workers=num_workers,
                use_gpu=shares.use_gpu,
                resources_per_worker=_resources(in_sweep, use_gpu=shares.use_gpu),
            )
    trained = Trained(recipe=recipe, prepared=prepared, preprocessing=preprocessing_of(network))
    beside = [history, history.with_name(TENSORBOARD)]
    spec = write_bundles(out, trained, checkpoints, beside=beside)
    shutil.rmtree(work.parent)
    return _summary(spec, out, started, reused=False)


def epochs_done(recipe: Recipe, *, data: Path, out: Path) -> int:
    """How many epochs of a recipe are done at ``out``; nothing is changed.

    Raises:
        DataError: If the set cannot be read, or ``out`` holds something else.
    """
    prepared = PreparedSet.open(data.resolve())
    resolved = recipe.model_dump(mode="json")
    if _complete_member(out, resolved, prepared) is not None:
        return recipe.epochs
    work = out.with_name(f"{out.name}.training") / _run_id(resolved, prepared)
    return len(read_history(work / HISTORY_FILE))


def _run_id(resolved: Mapping[str, Any], prepared: PreparedSet) -> str:
    identity = json.dumps([resolved, prepared.prepared_id], sort_keys=True).encode()
    return hashlib.sha256(identity).hexdigest()[:12]


def _complete_member(
    out: Path, resolved: Mapping[str, Any], prepared: PreparedSet
) -> MemberSpec | None:
    check_place(out)
    if not (out / MEMBER_FILE).is_file():
        return None
    spec = read_member_spec(out)
    if spec.recipe != resolved or spec.training_data_id != prepared.prepared_id:
        raise DataError(
            f"{out} holds a member of another recipe or other data (id {spec.member_id}); "
            "choose another --out or remove it"
        )
    return spec


def _begin(recipe: Recipe, checkpoints: TrainCheckpoints, work: Path, *, resume: bool) -> None:
    """Say where the run begins, and remove what is not to be gone on from."""
    done = checkpoints.epochs()
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
        dropped = f"; {done[-1]} epochs of the earlier run are dropped" if done else ""
        print_line(f"{recipe.name}: starts over{dropped}")
    elif done:
        print_line(f"{recipe.name}: goes on after epoch {done[-1]} of {recipe.epochs}")
    checkpoints.clean()


def _decoded(in_sweep: SweepShare | None, work: Path, *, num_workers: int) -> str | None:
    """Folder of pictures that several read: the sweep's trials, or the workers of the run."""
    if in_sweep is not None:
        return str(in_sweep.decoded)
    return str(work / "decoded") if num_workers > 1 else None


def _resources(in_sweep: SweepShare | None, *, use_gpu: bool) -> dict[str, float]:
    if use_gpu:
        return {"GPU": in_sweep.gpus_per_worker if in_sweep else 1.0, "CPU": 0.0}
    return {"CPU": in_sweep.cpus_per_worker if in_sweep else 1.0}


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


def starting_weights(recipe: Recipe) -> str:
    """Where weights come from: hub, none, or a file by a path that holds in any folder."""
    weights = recipe.backbone.weights
    return weights if weights in ("hub", "none") else str(Path(weights).resolve())
