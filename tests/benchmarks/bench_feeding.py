"""How quickly training's step is fed, against the same step on pictures that lie in memory.

    python tests/benchmarks/bench_feeding.py

Images per second of the bare step on pictures that are decoded, augmented and in memory, and of the
same step fed in each way: from the decoded cache (what `dsdi train` does where they fit), by a
DataLoader's processes (what it does where they do not), and by Ray Data.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import torch
from training_inputs import add_options, make_set, recipe_of

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.learner import Learner
from dsdi_ray.distributed.network_environment import network_environment
from dsdi_ray.distributed.objectives import build_objective
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed.train_data import Feeder, epoch_batches, load_pictures, num_steps
from dsdi_ray.distributed.train_epoch import micro_batch
from dsdi_ray.distributed.train_loop import starting_network
from dsdi_ray.storage.prepared import IMAGE_FILES, PreparedSet
from dsdi_ray.vision.transforms import decode_square


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--passes", type=int, default=3, help="Over the images.")
    options = parser.parse_args()
    _be_a_worker(options)
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        make_set(options.folder / "prepared", num_images=options.images)
        compare_feeding(options)


def _be_a_worker(options: argparse.Namespace) -> None:
    """Go on in a process with the environment of a training worker."""
    variables = network_environment(use_gpu=options.gpu).get("env_vars", {})
    if not variables.items() <= os.environ.items():
        environment = {**os.environ, **variables}
        done = subprocess.run([sys.executable, *sys.argv], check=False, env=environment)
        sys.exit(done.returncode)


def compare_feeding(options: argparse.Namespace) -> None:
    """The same step, fed in different ways."""
    recipe = recipe_of(options, epochs=1)
    prepared = PreparedSet.open(options.folder / "prepared")
    cached, _ = load_pictures(prepared, recipe)
    files, _ = load_pictures(prepared, recipe, cache_bytes=0)
    device = torch.device("cuda" if options.gpu else "cpu")
    bare = recipe.model_copy(
        update={"augmentation": recipe.augmentation.model_copy(update=_NO_AUGMENTATION)}
    )
    learners = [
        Learner(
            of,
            starting_network(of, weights="none", num_classes=len(prepared.taxonomy)),
            build_objective(of.loss, prepared.taxonomy, cached.labels),
            device=device,
            steps_per_epoch=num_steps(len(cached), of.batch_size),
        )
        for of in (bare, recipe)
    ]
    batches = epoch_batches(len(cached), batch_size=recipe.batch_size, seed=0, epoch=0)
    held = [cached.batch(batch).to(device) for batch in batches]

    def seconds(learner: Learner, feed: object) -> float:
        started = time.perf_counter()
        for i, (batch, inputs) in enumerate(zip(batches, feed(batches), strict=True)):
            fed = micro_batch(cached, batch, inputs, seed=0, epoch=0)
            learner.step([fed], number=i, batch_size=len(batch))
        if options.gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    ways = {
        "bare step": (learners[0], lambda _: held),
        "+ augmentation": (learners[1], lambda _: held),
        "cache (default)": (learners[1], Feeder(cached)),
        "cache, no augmentation": (learners[0], Feeder(cached)),
        "decoded here": (learners[1], Feeder(files)),
        "2 processes": (learners[1], Feeder(files, num_processes=2)),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(options.passes + 1):  # by turns; the first is not counted
        for name, (learner, feed) in ways.items():
            spent = seconds(learner, feed)
            if i:
                took[name].append(spent)
    num_images = sum(len(batch) for batch in batches)
    bare_seconds = float(np.median(took["bare step"]))
    print(f"Feeding: {options.backbone} at {options.input_px} px, {num_images} images, {device}")
    for name, spent in took.items():
        middle = float(np.median(spent))
        rate = num_images / middle
        print(f"  {name:24} {rate:8.1f} images/s  {bare_seconds / middle:5.2f}", flush=True)
    rate = _ray_data_rate(prepared, recipe)
    print(f"  {'Ray Data, feeding alone':24} {rate:8.1f} images/s")


_NO_AUGMENTATION = dict.fromkeys(
    (
        "horizontal_flip", "vertical_flip", "rotation_degrees", "brightness", "contrast",
        "saturation", "hue",
    ),
    0.0,
)  # fmt: skip


def _ray_data_rate(prepared: PreparedSet, recipe: Recipe) -> float:
    """Images per second of Ray Data that reads, decodes and hands out, with no step at all."""
    side = recipe.input_px

    def decode(rows: pa.Table) -> dict[str, np.ndarray]:
        return {"picture": np.stack([decode_square(v.as_buffer(), side) for v in rows["jpeg"]])}

    with ray_session(has_state_api=False):
        ray.data.DataContext.get_current().use_datasource_v2 = False  # which starts 32 actors first
        files = [str(file) for file in prepared.path.glob(IMAGE_FILES)]
        rows = ray.data.read_parquet(files, columns=["jpeg"])
        dataset = rows.map_batches(decode, batch_size=recipe.batch_size, batch_format="pyarrow")
        num_images, started = 0, 0.0
        for _ in range(2):  # the first epoch starts the workers
            started, num_images = time.perf_counter(), 0
            for batch in dataset.iter_torch_batches(batch_size=recipe.batch_size):
                num_images += len(batch["picture"])
        return num_images / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
