"""Ray Train's part of a training: its controller, its workers, and what they end with."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from dsdi_ray.distributed.network_environment import network_environment
from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.distributed.train_loop import train_loop
from dsdi_ray.errors import UserError

_MAX_FAILURES = 3  # workers that die; mistakes are not tried again
# How often Ray's controller looks after the workers. Ray's own 2 s are waited for at the end of a
# run, and of each epoch that is shorter.
_POLLS = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.3")
# One process less to start per run; on one machine nobody takes a node away with a warning.
_NO_WATCHER = ("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


def run_workers(
    config: Mapping[str, object],
    work: Path,
    *,
    num_workers: int,
    use_gpu: bool,
    resources_per_worker: dict[str, float],
) -> None:
    """Run the training loop on its workers to the end; those that die start again.

    Checkpoints are the run's own and not Ray's, which may be torn by a kill; so each start is a new
    run to Ray, in a folder that goes with the others.

    Args:
        config: What the loop is told, see :func:`dsdi_ray.distributed.train_loop.train_loop`.
        work: Folder of the run.
        num_workers: How many.
        use_gpu: Whether each has a GPU.
        resources_per_worker: Of Ray's.

    Raises:
        UserError: If the loop comes upon a mistake.
        WorkerGroupError: If workers die again and again.
    """
    os.environ.setdefault(*_POLLS)
    if len(cluster_resources().nodes) == 1:
        os.environ.setdefault(*_NO_WATCHER)
    trainer = TorchTrainer(
        train_loop,
        train_loop_config=dict(config),
        # One worker has nobody to talk to, and NCCL would not begin where a GPU is but a number.
        torch_config=TorchConfig(backend="gloo") if num_workers == 1 else None,
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker=resources_per_worker,
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=str(work / "ray"),
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            worker_runtime_env=network_environment(use_gpu=use_gpu),
        ),
    )
    with _plain_errors():
        mistake = trainer.fit().return_value
    if mistake is not None:
        raise mistake


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
