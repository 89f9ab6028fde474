"""What pseudo-labels of unlabelled pictures give a student, on synthetic pictures.

    python tests/benchmarks/bench_pseudo_labels.py
    python tests/benchmarks/bench_pseudo_labels.py --images 2000 --labelled 0.2 --seeds 5

A quarter of the training pictures have answers, the others none. A teacher learns from the former
and labels the latter; a student of the same network learns from both, from scratch and for as many
steps as the rows that it is compared with. All are judged by what the pictures truly show.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench_techniques import RECIPE, Truth, make_pictures, quality, validate_cycles
from numpy.typing import NDArray

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.train_data import Pictures, load_pictures
from dsdi_ray.method.fusion import sigmoid
from dsdi_ray.method.pseudo_labels import pseudo_labels
from dsdi_ray.storage.prepared import PreparedSet

_ROWS = {
    "teacher": "those with answers",
    "longer": "those with answers, as many steps as the student",
    "student": "with pseudo-labels of the others",
    "all": "all have answers",
}


def main() -> None:
    """Train, judge and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--labelled", type=float, default=0.25, help="Part that has answers.")
    parser.add_argument("--confident", type=float, default=0.6)
    parser.add_argument("--reject", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Keep the pictures here for the next time.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        prepared, truth = make_pictures(folder, num_images=options.images)
        found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _ROWS}
        for seed in range(options.seeds):
            for name, values in judge_all(prepared, truth, options, seed=seed).items():
                found[name].append(values)
    print("\n| learns from | LRAP | mAP, common | mAP, rare |\n|-|-|-|-|")
    for name, rows in found.items():
        values = np.array(rows)
        mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(rows) - 1))
        cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(mean, deviation, strict=True)]
        print(f"| {_ROWS[name]} | {' | '.join(cells)} |")


def judge_all(
    prepared: PreparedSet, truth: Mapping[str, Truth], options: argparse.Namespace, *, seed: int
) -> dict[str, NDArray[np.float64]]:
    """LRAP, mAP of common and of rare features, of each row."""
    recipe = Recipe.model_validate({**RECIPE, "name": "one", "seed": seed, "split_seed": seed})
    train, validation = load_pictures(prepared, recipe)
    in_turn = np.random.default_rng(seed).permutation(len(train))
    labelled, others = np.split(in_turn, [round(options.labelled * len(train))])
    few, unlabelled = _some(train, labelled), _some(train, others)

    def trained(pictures: Pictures, judged: Pictures, epochs: int) -> NDArray[np.float32]:
        longer = recipe.model_copy(update={"epochs": epochs})
        return validate_cycles(longer, prepared, pictures, judged)[-1]

    told = sigmoid(trained(few, unlabelled, recipe.epochs))
    labels = pseudo_labels(told, confident=options.confident, reject=options.reject)
    is_told = np.concatenate([np.ones_like(few.labels, bool), labels.is_told[labels.is_kept]])
    both = replace(
        _some(train, np.concatenate([labelled, others[labels.is_kept]])),
        labels=np.concatenate([few.labels, labels.soft_labels[labels.is_kept]]),
        is_asked=is_told,
    )
    num_steps = recipe.epochs * len(both)
    logits = {
        "teacher": trained(few, validation, recipe.epochs),
        "longer": trained(few, validation, round(num_steps / len(few))),
        "student": trained(both, validation, recipe.epochs),
        "all": trained(train, validation, round(num_steps / len(train))),
    }
    judged = {
        name: quality(found, validation, prepared.taxonomy, truth) for name, found in logits.items()
    }
    print(f"seed {seed}: {len(few)} with answers, {len(both) - len(few)} pseudo-labelled")
    return judged


def _some(pictures: Pictures, places: NDArray[np.intp]) -> Pictures:
    """A part of pictures that are cached."""
    return replace(
        pictures,
        image_ids=[pictures.image_ids[i] for i in places],
        labels=pictures.labels[places],
        places=places if pictures.places is None else pictures.places[places],
    )


if __name__ == "__main__":
    main()
