"""Steps of training of every model of the paper, at its input size: does its loss fall, and the cost.

    python tests/benchmarks/bench_backbones.py                    # all recipes of Table 2
    python tests/benchmarks/bench_backbones.py c12 d13 --steps 5

Each recipe in a process of its own, on the CPU: the real network from random weights, the recipe's
objective, optimiser and augmentation, one batch of noise again and again, at the recipe's peak
learning rate. `kept` is what `vision/network_facts.py` says that the backward pass needs. A recipe
for which memory does not suffice is left out. Needs psutil (the ``dev`` extra).
"""

import argparse
import json
import math
import resource
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from measure import run_measured

from dsdi_ray.config import Recipe, load_recipe
from dsdi_ray.distributed.learner import Learner, MicroBatch
from dsdi_ray.distributed.objectives import build_objective
from dsdi_ray.distributed.train_loop import starting_network
from dsdi_ray.taxonomy import load_taxonomy
from dsdi_ray.vision.network_facts import NetworkFacts, network_facts

_RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
_TAXONOMY = load_taxonomy("ladi_v1")
_PROCESS_MIB = 700  # torch and what it allocates beside tensors


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help="Names, such as c12; all of the paper's.")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        measured = train(load_recipe(options.run), steps=options.steps, batch=options.batch)
        print(json.dumps(measured))
        return
    print(f"batch {options.batch}, {options.steps} steps, {torch.get_num_threads()} threads")
    print("recipe backbone           px   loss before   after  s/step  peak MiB  kept MiB")
    failed = [
        path.stem
        for path in sorted(_RECIPES.glob("*.yaml"))
        if (not options.recipes or path.stem in options.recipes) and load_recipe(path).paper
        if not report(path, steps=options.steps, batch=options.batch)
    ]
    if failed:
        raise SystemExit(f"the loss did not fall: {', '.join(failed)}")


def report(path: Path, *, steps: int, batch: int) -> bool:
    """Print a recipe's line; returns False if its loss did not fall."""
    recipe = load_recipe(path)
    start = f"{recipe.name:6} {recipe.backbone.name:16} {recipe.input_px:4}"
    facts = network_facts(
        recipe.backbone.name,
        num_classes=len(_TAXONOMY),
        input_px=recipe.input_px,
        batch_size=batch,
    )
    needed, free = _needed_mib(facts), psutil.virtual_memory().available / 2**20
    if needed > free:
        print(f"{start}   left out: needs about {needed:.0f} MiB, {free:.0f} are free", flush=True)
        return True
    arguments = ["--run", str(path), "--steps", str(steps), "--batch", str(batch)]
    one = run_measured([__file__, *arguments]).result
    print(
        f"{start} {one['before']:13.3f} {one['after']:7.3f} {one['seconds']:7.1f} "
        f"{one['peak_mib']:9.0f} {facts.activation_bytes / 2**20:9.0f}",
        flush=True,
    )
    return bool(one["after"] < one["before"])


def _needed_mib(facts: NetworkFacts) -> float:
    """Weights, gradients, momentum and a copy on the way; activations; the process."""
    return _PROCESS_MIB + (4 * facts.weight_bytes + facts.activation_bytes) / 2**20


def train(recipe: Recipe, *, steps: int, batch: int) -> dict[str, float]:
    """Train on one batch; the losses are those of the objective before and after the steps."""
    rng = np.random.default_rng(recipe.seed)
    labels = (rng.random((batch, len(_TAXONOMY))) < 0.1).astype(np.float32)
    objective = build_objective(recipe.loss, _TAXONOMY, labels)
    learner = Learner(
        recipe,
        starting_network(recipe, weights="none", num_classes=len(_TAXONOMY)),
        objective,
        device=torch.device("cpu"),
        steps_per_epoch=steps + 1,
    )
    side = recipe.input_px
    pictures = rng.integers(0, 256, (batch, 3, side, side), dtype=np.uint8)
    same = MicroBatch(
        pictures=torch.from_numpy(pictures),
        labels=torch.from_numpy(labels),
        is_asked=None,
        seeds=[(recipe.seed, 0, i) for i in range(batch)],
    )
    warm = math.ceil(recipe.schedule.warmup_epochs) * (steps + 1)
    losses, seconds = [], []
    for i in range(steps + 1):  # a step says the loss before it
        started = time.perf_counter()
        losses.append(
            float(objective.mean_of_kept(learner.step([same], number=warm + i, batch_size=batch)))
        )
        seconds.append(time.perf_counter() - started)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {
        "before": losses[0],
        "after": losses[-1],
        "seconds": float(np.median(seconds)),
        "peak_mib": peak_mib,
    }


if __name__ == "__main__":
    main()
