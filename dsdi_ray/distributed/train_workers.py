"""What each worker of a training run gets of the cluster."""

from dataclasses import dataclass

from dsdi_ray.distributed.session import cluster_resources, resolve_use_gpu
from dsdi_ray.errors import ResourceError

_MAX_LOADERS = 8  # per GPU


@dataclass(frozen=True, kw_only=True)
class WorkerShares:
    """What each worker gets.

    Attributes:
        use_gpu: A GPU, or a CPU.
        num_threads: Of torch; None: its own choice.
        num_loaders: Processes that decode for it.
    """

    use_gpu: bool
    num_threads: int | None
    num_loaders: int


def worker_shares(num_workers: int, use_gpu: bool | None, *, num_runs: int) -> WorkerShares:
    """What each worker gets of the cluster.

    Args:
        num_workers: Of a run.
        use_gpu: None for GPUs where there are any.
        num_runs: At the same time.

    Raises:
        ResourceError: If the cluster has fewer GPUs or CPUs; Ray would wait without end.
    """
    on_gpu = resolve_use_gpu(use_gpu)
    resources = cluster_resources()
    available = resources.num_gpus if on_gpu else resources.num_cpus
    if num_workers < 1 or num_workers > available:
        kind = "GPU" if on_gpu else "CPU"
        raise ResourceError(
            f"--workers must be from 1 to {available:g} here ({kind}s), got {num_workers}"
        )
    nodes = resources.nodes_with("GPU" if on_gpu else "CPU")
    cpus_per_node = sum(node.get("CPU", 0.0) for node in nodes) / len(nodes)
    workers_per_node = -(-num_workers * num_runs // len(nodes))
    cpus = max(1, int(cpus_per_node // workers_per_node))
    if on_gpu:
        num_loaders = min(_MAX_LOADERS, cpus - 1)
        return WorkerShares(use_gpu=True, num_threads=None, num_loaders=num_loaders)
    # On CPUs the network itself takes all cores.
    return WorkerShares(use_gpu=False, num_threads=cpus, num_loaders=0)
