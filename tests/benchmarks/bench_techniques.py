"""What each of the paper's techniques does, on synthetic pictures whose true labels are known.

    python tests/benchmarks/bench_techniques.py                       # all, 3 seeds; a Markdown table
    python tests/benchmarks/bench_techniques.py --seeds 5 --only bce lovasz --folder /tmp/pictures

Each technique trains the same small network from scratch on the same crowd-labelled pictures, once
per seed; a seed decides the split, the first weights and the order. Networks learn from what the
crowd said and are judged by what is truly visible on the validation part: LRAP over all classes,
and mAP over the features that at least, and less than, one picture in twenty shows. Deviations are
over the seeds; the change beside LRAP is the mean of the differences to the baseline of the same
seed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.demo_archive import make_archive
from dsdi_ray.distributed.learner import Learner
from dsdi_ray.distributed.objectives import build_objective
from dsdi_ray.distributed.prepare import prepare_set
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed.train_data import Feeder, Pictures, load_pictures, num_steps
from dsdi_ray.distributed.train_epoch import Worker, train_epoch
from dsdi_ray.distributed.train_loop import starting_network
from dsdi_ray.distributed.validation import validation_logits
from dsdi_ray.method.fusion import sigmoid
from dsdi_ray.method.metrics import average_precisions, lrap
from dsdi_ray.method.snapshots import cycle_ends
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.taxonomy import Taxonomy, load_taxonomy

_RARE = 0.05
_OUTLIERS = 0.05
RECIPE = {
    "backbone": {"name": "test_byobnet", "weights": "none"},
    "input_px": 96,
    "augmentation": dict.fromkeys(
        ("vertical_flip", "rotation_degrees", "brightness", "contrast", "saturation", "hue"), 0
    ),
    "optimizer": {"name": "adamw", "lr": 0.005, "weight_decay": 0.05},
    "batch_size": 14,
    "epochs": 18,
}
_COUNTED = {"family": "class_balanced", "class_counts": "counted"}
_CYCLES = 3


@dataclass(frozen=True)
class Technique:
    """What is changed.

    Attributes:
        title: In the table.
        changes: Of the recipe.
        outliers: Part of the training pictures whose labels are those of another picture.
        averages_cycles: Whether the networks at the ends of all cycles are averaged.
    """

    title: str
    changes: Mapping[str, object]
    outliers: float = 0.0
    averages_cycles: bool = False


_CYCLIC = {"schedule": {"name": "cyclic", "cycles": _CYCLES}}
TECHNIQUES = {
    "focal": Technique("focal, gamma 2, soft labels (the baseline)", {}),
    "majority": Technique("majority labels", {"labels": {"encoding": "majority"}}),
    "per_category": Technique("soft labels per category", {"labels": {"encoding": "per_category"}}),
    "masked": Technique("categories not asked are masked", {"labels": {"masked": True}}),
    "bce": Technique("binary cross-entropy", {"loss": {"family": "bce"}}),
    "balanced_99": Technique("class-balanced, beta 0.99", {"loss": {**_COUNTED, "beta": 0.99}}),
    "balanced_999": Technique("class-balanced, beta 0.999", {"loss": {**_COUNTED, "beta": 0.999}}),
    "reduced": Technique("reduced, th 0.5, as printed", {"loss": {"family": "reduced"}}),
    "reduced_original": Technique(
        "reduced, th 0.5, original", {"loss": {"family": "reduced", "variant": "original"}}
    ),
    "none_01": Technique("none-classes x 0.1", {"loss": {"none_weight": 0.1}}),
    "none_001": Technique("none-classes x 0.01", {"loss": {"none_weight": 0.01}}),
    "outliers": Technique("5 % outliers planted", {}, outliers=_OUTLIERS),
    "outliers_removed": Technique(
        "5 % outliers planted, removal of 1 of 14",
        {"loss": {"remove_outliers": 1}},
        outliers=_OUTLIERS,
    ),
    "removal": Technique("removal of 1 of 14, none planted", {"loss": {"remove_outliers": 1}}),
    "lovasz": Technique("with Lovasz, square root", {"loss": {"lovasz": {"weight": 1.0}}}),
    "cyclic": Technique("cyclic, 3 cycles, the last", _CYCLIC),
    "snapshots": Technique("cyclic, 3 cycles, their mean", _CYCLIC, averages_cycles=True),
}
Truth = NDArray[np.float32]


def main() -> None:
    """Train, judge and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TECHNIQUES, default=list(TECHNIQUES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="Keep the pictures here for the next time.")
    options = parser.parse_args()
    names = list(dict.fromkeys(["focal", *options.only]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        prepared, truth = make_pictures(folder.resolve(), num_images=options.images)
        found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
        for seed in range(options.seeds):
            for name in names:
                started = time.monotonic()
                found[name].append(judge(TECHNIQUES[name], prepared, truth, seed=seed))
                shown = ", ".join(f"{value:.3f}" for value in found[name][-1])
                print(f"seed {seed} {name}: {shown} ({time.monotonic() - started:.0f} s)")
    print_table({name: np.array(rows) for name, rows in found.items()})


def make_pictures(folder: Path, *, num_images: int) -> tuple[PreparedSet, Mapping[str, Truth]]:
    """A prepared set of synthetic pictures, and the classes that each truly shows, ``[C]``."""
    taxonomy = load_taxonomy("ladi_v1")
    with ray_session():
        archive = make_archive(folder / "archive", num_images=num_images, num_clips=1, seed=0)
        summary = prepare_set(
            archive.answers_tsv,
            images=[archive.images_dir],
            out=folder / "prepared",
            taxonomy=taxonomy,
        )
    told = json.loads((archive.root / "truth.json").read_text("utf-8"))["images"]
    place = {name: i for i, name in enumerate(taxonomy.class_names)}
    truth = {}
    for name, facts in told.items():
        shown = np.zeros(len(taxonomy), np.float32)
        shown[[place[c] for c in facts["classes"]]] = 1
        truth[name] = shown
    return PreparedSet.open(summary.out), truth


def judge(
    technique: Technique, prepared: PreparedSet, truth: Mapping[str, Truth], *, seed: int
) -> NDArray[np.float64]:
    """Train once; LRAP, mAP of common and of rare features by the truth."""
    recipe = Recipe.model_validate(
        {**RECIPE, "name": "one", "seed": seed, "split_seed": seed, **technique.changes}
    )
    train, validation = load_pictures(prepared, recipe)
    if technique.outliers:
        train = with_outliers(train, technique.outliers, seed=seed)
    logits = validate_cycles(recipe, prepared, train, validation)
    chosen = logits if technique.averages_cycles else logits[-1:]
    scores = np.mean([sigmoid(part) for part in chosen], axis=0)
    return quality(scores, validation, prepared.taxonomy, truth)


def quality(
    scores: NDArray[np.floating], pictures: Pictures, taxonomy: Taxonomy, truth: Mapping[str, Truth]
) -> NDArray[np.float64]:
    """LRAP, mAP of common and of rare features, of scores ``[N, C]`` by what pictures truly show."""
    shown = np.stack([truth[Path(name).name] for name in pictures.image_ids])
    share = np.mean(list(truth.values()), axis=0)
    per_class = average_precisions(shown, scores)
    is_feature = np.ones(len(share), bool)
    is_feature[list(taxonomy.none_indices)] = False
    is_common = share >= _RARE
    maps = [np.nanmean(per_class[is_feature & part]) for part in (is_common, ~is_common)]
    return np.array([lrap(shown, scores), *maps])


def with_outliers(pictures: Pictures, part: float, *, seed: int) -> Pictures:
    """Give some pictures the labels of others."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(pictures), round(part * len(pictures)), replace=False)
    labels = pictures.labels.copy()
    labels[chosen] = labels[np.roll(chosen, 1)]
    return replace(pictures, labels=labels)


def validate_cycles(
    recipe: Recipe, prepared: PreparedSet, train: Pictures, validation: Pictures
) -> Sequence[NDArray[np.float32]]:
    """Logits of the validation part at the end of each cycle, or of the training, ``[N, C]``."""
    worker = Worker(rank=0, num_workers=1, device=torch.device("cpu"), num_loaders=0)
    learner = Learner(
        recipe,
        starting_network(recipe, weights="none", num_classes=len(prepared.taxonomy)),
        build_objective(recipe.loss, prepared.taxonomy, train.labels),
        device=worker.device,
        steps_per_epoch=num_steps(len(train), recipe.batch_size),
    )
    feeder, validation_feeder = Feeder(train), Feeder(validation)
    ends = cycle_ends(recipe.epochs, recipe.schedule.cycles or 1)
    logits = []
    for epoch in range(recipe.epochs):
        train_epoch(learner, train, feeder, recipe, epoch=epoch, worker=worker)
        if epoch + 1 in ends:
            logits.append(
                validation_logits(learner, validation, validation_feeder, rank=0, num_workers=1)
            )
    return logits


def print_table(found: Mapping[str, NDArray[np.float64]]) -> None:
    """One row per technique: mean and deviation of each metric, ``[seeds, metrics]`` each."""
    baseline = found["focal"]
    print("\n| technique | LRAP | change | mAP, common | mAP, rare |\n|-|-|-|-|-|")
    for name, values in found.items():
        mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1))
        cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(mean, deviation, strict=True)]
        change = (values - baseline)[:, 0].mean()
        cells.insert(1, f"{change:+.3f}" if name != "focal" else "")
        print(f"| {TECHNIQUES[name].title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
