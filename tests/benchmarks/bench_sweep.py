"""A sweep against its trials run by hand: the same recipes on the same cores, none stopped early.

    python tests/benchmarks/bench_sweep.py                   # 8 trials of 12 epochs
    python tests/benchmarks/bench_sweep.py --trials 16 --epochs 30

By hand is `jobs/train_members.py` with the trials' recipes: one Ray, as many runs at the same time.
Each way is a process of its own, start-up included.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import yaml
from measure import run_measured

_RECIPE = {
    "name": "tiny",
    "backbone": {"name": "test_byobnet", "weights": "none"},
    "input_px": 96,
    "optimizer": {"name": "adamw", "lr": 0.003},
    "batch_size": 14,
}


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        way, folder = options.run
        started = time.monotonic()
        {"sweep": sweep, "by hand": by_hand}[way](Path(folder))
        print(json.dumps({"seconds": time.monotonic() - started}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        prepare(work, options)
        seconds = {}
        for way in ("by hand", "sweep"):
            seconds[way] = run_measured([__file__, "--run", way, scratch]).result["seconds"]
        print(f"{options.trials} trials of {options.epochs} epochs over {options.images} images")
        for way, taken in seconds.items():
            print(f"{way:8} {taken:7.1f} s  {taken / seconds['by hand']:.2f}")


def prepare(work: Path, options: argparse.Namespace) -> None:
    """Write the pictures, the recipe and the sweep."""
    from dsdi_ray.distributed.demo_archive import make_archive
    from dsdi_ray.distributed.prepare import prepare_set
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.taxonomy import load_taxonomy

    with ray_session():
        archive = make_archive(work / "archive", num_images=options.images, num_clips=1, seed=0)
        prepare_set(
            archive.answers_tsv,
            images=[archive.images_dir],
            out=work / "prepared",
            taxonomy=load_taxonomy("ladi_v1"),
        )
    (work / "tiny.yaml").write_text(yaml.safe_dump(_RECIPE | {"epochs": options.epochs}))
    rates = [0.001 * (i + 1) for i in range(options.trials)]
    sweep_keys = {
        "name": "rates",
        "recipe": "tiny.yaml",
        "space": {"optimizer.lr": rates},
        "early_stopping": None,
    }
    (work / "rates.yaml").write_text(yaml.safe_dump(sweep_keys))


def sweep(work: Path) -> None:
    """`dsdi sweep`."""
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.distributed.sweep import run_sweep
    from dsdi_ray.sweep_config import load_sweep

    with ray_session():
        summary = run_sweep(
            load_sweep(work / "rates.yaml"), data=work / "prepared", out=work / "sweep"
        )
    assert set(summary.counts) == {"finished"}


def by_hand(work: Path) -> None:
    """`jobs/train_members.py` with the same recipes."""
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.distributed.train_members import train_each
    from dsdi_ray.sweep_config import base_recipe, load_sweep, points, trial_recipe

    loaded = load_sweep(work / "rates.yaml")
    base = base_recipe(loaded)
    recipes = [
        trial_recipe(loaded, base, point, seed=0).model_copy(update={"name": f"trial-{i}"})
        for i, point in enumerate(points(loaded, base))
    ]
    with ray_session():
        outcomes = train_each(recipes, data=work / "prepared", out=work / "members")
    assert all(outcome.error is None for outcome in outcomes)


if __name__ == "__main__":
    main()
