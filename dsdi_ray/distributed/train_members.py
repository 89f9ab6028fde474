"""Train several members side by side, as many at once as the cluster has GPUs, or CPU cores."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.session import cluster_resources, resolve_use_gpu
from dsdi_ray.distributed.train import TrainSummary, train_member


def train_members(
    recipes: Sequence[Recipe], *, data: Path, out: Path, use_gpu: bool | None = None
) -> list[TrainSummary]:
    """Train each recipe on one GPU or a share of the cores; members that are complete are kept.

    Args:
        recipes: What to train; their names are those of the bundles.
        data: Prepared set.
        out: Folder of the bundles.
        use_gpu: None for GPUs where there are any.

    Returns:
        One summary per recipe, in order.

    Raises:
        DataError: As :func:`dsdi_ray.distributed.train.train_member`; the first one that fails
            ends those that have not begun.
    """
    resources = cluster_resources()
    slots = resources.num_gpus if resolve_use_gpu(use_gpu) else resources.num_cpus
    num_runs = max(1, min(len(recipes), int(slots)))
    threads = ThreadPoolExecutor(num_runs, thread_name_prefix="train")
    try:
        runs = [
            threads.submit(
                train_member,
                recipe,
                data=data,
                out=out / recipe.name,
                use_gpu=use_gpu,
                num_runs=num_runs,
            )
            for recipe in recipes
        ]
        return [run.result() for run in runs]
    finally:
        # Not waited for: Ctrl-C ends the block, the end of Ray then ends what is still running.
        threads.shutdown(wait=False, cancel_futures=True)
