"""How many trials fit a cluster at the same time."""

import math
from dataclasses import dataclass

import ray

from dsdi_ray.distributed.session import resolve_use_gpu
from dsdi_ray.errors import ResourceError
from dsdi_ray.sweep_config import Resources

# Shares of a core: of a worker, and of the process that drives a trial (Ray Tune refuses 0). As many
# trials of one worker fit as there are cores, on a machine with one core too. Where nodes are lost,
# their trials' processes start again on what is left: a hundred of them leave a core to a worker.
WORKER_CPUS, TRIAL_CPUS = 0.9, 0.001


@dataclass(frozen=True, kw_only=True)
class SweepSlots:
    """What trials run on.

    Attributes:
        use_gpu: GPUs, or CPU cores.
        num_trials: At the same time.
    """

    use_gpu: bool
    num_trials: int


def sweep_slots(resources: Resources, *, use_gpu: bool | None) -> SweepSlots:
    """Count the trials that fit at the same time; Ray would wait without end for more.

    Args:
        resources: Of a trial.
        use_gpu: None for GPUs where there are any.

    Raises:
        ResourceError: If not one fits.
    """
    on_gpu = resolve_use_gpu(use_gpu)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if on_gpu:
        # Shares of a GPU are of one GPU each.
        workers_per_gpu = math.floor(1 / resources.gpus_per_worker + 1e-9)
        num_workers = sum(int(node.get("GPU", 0)) for node in nodes) * workers_per_gpu
    else:
        num_workers = sum(int(node.get("CPU", 0)) for node in nodes)
    num_trials = num_workers // resources.workers
    if on_gpu:
        num_cpus = sum(node.get("CPU", 0.0) for node in nodes)
        num_trials = min(num_trials, math.floor(num_cpus / TRIAL_CPUS + 1e-9))
    if num_trials < 1:
        wanted = f"{resources.gpus_per_worker:g} GPU" if on_gpu else "1 CPU"
        raise ResourceError(
            f"a trial needs {resources.workers} worker(s) of {wanted} each; the cluster has room for "
            f"{num_workers} (set resources.workers or resources.gpus_per_worker lower)"
        )
    if resources.max_concurrent is not None:
        num_trials = min(num_trials, resources.max_concurrent)
    return SweepSlots(use_gpu=on_gpu, num_trials=num_trials)


def num_at_full_speed(slots: SweepSlots, resources: Resources, *, num_gpus: float) -> float:
    """As how many trials count those at the same time: four that share a GPU get done what one does.

    On CPU cores each is taken to run on its share of them, and counts as one.

    Args:
        slots: For trials.
        resources: Of a trial.
        num_gpus: Of the cluster.
    """
    if not slots.use_gpu:
        return slots.num_trials
    return min(slots.num_trials, num_gpus / resources.workers)
