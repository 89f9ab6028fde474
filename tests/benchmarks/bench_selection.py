"""What choosing an ensemble's members is worth, on synthetic pictures: a Markdown table.

    python tests/benchmarks/bench_selection.py                          # 3 seeds of 8 members
    python tests/benchmarks/bench_selection.py --seeds 5 --folder /tmp/pictures

For each seed the pictures are divided anew: three fifths train a library of small networks, each of
another recipe; the rest is divided in a half that members are chosen on, by mAP of what the crowd
said, and a half that is held back. Every system is shown on both, and on the half held back also by
what is truly visible. The change is to the best single member of the same seed, on the half held
back; deviations are over the seeds.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench_techniques import make_pictures, validate_cycles
from numpy.typing import NDArray

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.train_data import Pictures, load_pictures
from dsdi_ray.method.fusion import sigmoid
from dsdi_ray.method.quick_metrics import mean_average_precision
from dsdi_ray.method.sampling import assign_splits
from dsdi_ray.method.selection import divide_images, first_best, select_members, value_of
from dsdi_ray.storage.prepared import PreparedSet

_HELD_BACK = 0.4
_BASE = {
    "backbone": {"name": "test_byobnet", "weights": "none"},
    "input_px": 64,
    "train_on": "all",  # divided here, into larger parts than a recipe's
    "augmentation": dict.fromkeys(
        ("vertical_flip", "rotation_degrees", "brightness", "contrast", "saturation", "hue"), 0
    ),
    "optimizer": {"name": "adamw", "lr": 0.005, "weight_decay": 0.05},
    "batch_size": 14,
}
LIBRARY: Mapping[str, Mapping[str, object]] = {
    "focal": {},
    "bce": {"loss": {"family": "bce"}},
    "balanced": {
        "loss": {"family": "class_balanced", "class_counts": "counted", "beta": 0.99},
    },
    "lovasz": {"loss": {"lovasz": {"weight": 1.0}}},
    "flips": {"augmentation": {"rotation_degrees": 5}},
    "resnet": {"backbone": {"name": "test_resnet", "weights": "none"}},
    "efficientnet": {"backbone": {"name": "test_efficientnet", "weights": "none"}},
    "convnext": {"backbone": {"name": "test_convnext", "weights": "none"}},
}
_EQUAL_SIZE, _FREE_SIZE, _BAGS = 4, 8, 20
_SYSTEMS = (
    "best single member",
    "equal mean of all 8",
    f"selected, {_EQUAL_SIZE} of equal weight",
    f"selected, free weights, {_FREE_SIZE} steps",
    f"selected, free weights, {_BAGS} bags",
)
_COLUMNS = ("mAP, chosen on", "mAP, held back", "mAP by the truth, held back")


def main() -> None:
    """Train, choose and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=920)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="Keep the pictures here for the next time.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        prepared, truth = make_pictures(folder.resolve(), num_images=options.images)
        found = []
        for seed in range(options.seeds):
            started = time.monotonic()
            validation, logits = train_library(prepared, seed=seed, epochs=options.epochs)
            shown = np.stack([truth[Path(name).name] for name in validation.image_ids])
            found.append(compare(prepared, validation, shown > 0, logits, seed=seed))
            print(f"seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
    print_table(np.array(found))


def train_library(
    prepared: PreparedSet, *, seed: int, epochs: int
) -> tuple[Pictures, NDArray[np.float32]]:
    """The pictures that are not trained on, and what each network says of them, ``[M, N, C]``."""
    recipes = {
        name: Recipe.model_validate(
            {**_BASE, **changes, "name": name, "epochs": epochs, "seed": 100 * seed + place}
        )
        for place, (name, changes) in enumerate(LIBRARY.items())
    }
    everything, _ = load_pictures(prepared, recipes["focal"])
    is_held = assign_splits(everything.image_ids, validation_fraction=_HELD_BACK, seed=seed)
    train, validation = (part_of(everything, mask) for mask in (~is_held, is_held))
    logits = []
    for name, recipe in recipes.items():
        started = time.monotonic()
        logits.append(validate_cycles(recipe, prepared, train, validation)[-1])
        print(f"seed {seed} {name}: {time.monotonic() - started:.0f} s", flush=True)
    return validation, np.stack(logits)


def part_of(pictures: Pictures, mask: NDArray[np.bool_]) -> Pictures:
    """Some of the pictures, which are decoded."""
    assert pictures.cached is not None
    return replace(
        pictures,
        image_ids=[pictures.image_ids[i] for i in np.flatnonzero(mask)],
        labels=pictures.labels[mask],
        cached=pictures.cached[mask],
    )


def compare(
    prepared: PreparedSet,
    validation: Pictures,
    shown: NDArray[np.bool_],
    logits: NDArray[np.float32],
    *,
    seed: int,
) -> NDArray[np.float64]:
    """The metrics of each system, ``[systems, columns]``."""
    none_indices = prepared.taxonomy.none_indices
    features = [c for c in range(len(prepared.taxonomy)) if c not in none_indices]
    held_back, _ = divide_images(validation.image_ids, [None] * len(validation), seed=1000 + seed)
    said, probs = validation.labels >= 0.5, sigmoid(logits)
    halves = [
        (probs[:, ~held_back], mean_average_precision(said[~held_back], features)),
        (probs[:, held_back], mean_average_precision(said[held_back], features)),
        (probs[:, held_back], mean_average_precision(shown[held_back], features)),
    ]
    (own, judge), num_members = halves[0], len(logits)
    equal = select_members(own, judge, size=_EQUAL_SIZE)
    free = select_members(own, judge, size=_FREE_SIZE, weights="free")
    bagged = select_members(own, judge, size=_FREE_SIZE, weights="free", bags=_BAGS, seed=seed)
    single = (np.arange(num_members) == first_best(equal.singles)).astype(np.int64)
    systems = [single, np.ones(num_members, np.int64), equal.counts, free.counts, bagged.counts]
    for name, counts in zip(_SYSTEMS, systems, strict=True):
        weights = dict(zip(LIBRARY, counts.tolist(), strict=True))
        print(f"seed {seed} {name}: { ({k: v for k, v in weights.items() if v}) }")
    return np.array([[value_of(p, j, counts) for p, j in halves] for counts in systems])


def print_table(found: NDArray[np.float64]) -> None:
    """One row per system: mean and deviation of each metric, ``[seeds, systems, columns]``."""
    mean, deviation = found.mean(axis=0), found.std(axis=0, ddof=min(1, len(found) - 1))
    change = found - found[:, :1]
    print(f"\n| system | {_COLUMNS[0]} | {_COLUMNS[1]} | change | {_COLUMNS[2]} |\n|-|-|-|-|-|")
    for row, name in enumerate(_SYSTEMS):
        cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(mean[row], deviation[row], strict=True)]
        own = change[:, row, 1]
        spread = own.std(ddof=min(1, len(own) - 1))
        cells.insert(2, f"{own.mean():+.3f} ± {spread:.3f}" if row else "")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
