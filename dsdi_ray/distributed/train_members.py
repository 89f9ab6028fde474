"""Train several members side by side, as many at once as the cluster has GPUs, or CPU cores."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.session import cluster_resources, resolve_use_gpu
from dsdi_ray.distributed.train import TrainSummary, train_member
from dsdi_ray.errors import ConfigError
from dsdi_ray.progress import print_line


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """What became of a recipe.

    Attributes:
        recipe: Its name.
        summary: Of the member, None if it failed.
        error: Why it failed, None if it did not.
    """

    recipe: str
    summary: TrainSummary | None = None
    error: Exception | None = None


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
        DsdiError: That of the first recipe that failed, when all others are through.
    """
    summaries = []
    for outcome in train_each(recipes, data=data, out=out, use_gpu=use_gpu):
        if outcome.error is not None:
            raise outcome.error
        if outcome.summary is not None:
            summaries.append(outcome.summary)
    return summaries


def train_each(
    recipes: Sequence[Recipe], *, data: Path, out: Path, use_gpu: bool | None = None
) -> list[TrainOutcome]:
    """As :func:`train_members`, but a recipe that fails is an outcome.

    Raises:
        ConfigError: If two recipes have the same name.
    """
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two recipes are named {twice}; their members would be one folder")
    resources = cluster_resources()
    slots = resources.num_gpus if resolve_use_gpu(use_gpu) else resources.num_cpus
    num_runs = max(1, min(len(recipes), int(slots)))

    def train(recipe: Recipe) -> TrainOutcome:
        try:
            summary = train_member(
                recipe, data=data, out=out / recipe.name, use_gpu=use_gpu, num_runs=num_runs
            )
        except Exception as error:
            print_line(f"{recipe.name}: failed: {str(error).splitlines()[0]}")
            return TrainOutcome(recipe=recipe.name, error=error)
        return TrainOutcome(recipe=recipe.name, summary=summary)

    threads = ThreadPoolExecutor(num_runs, thread_name_prefix="train")
    try:
        return list(threads.map(train, recipes))
    finally:
        # Not waited for: Ctrl-C ends the block, the end of Ray then ends what is still running.
        threads.shutdown(wait=False, cancel_futures=True)
