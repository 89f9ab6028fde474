"""Training against what one would write without this project, on the same images and network.

    python tests/benchmarks/bench_train.py                                  # a small network
    python tests/benchmarks/bench_train.py --backbone resnet18 --input-px 224 --epochs 2

Prints three things. **Feeding**: images per second of the bare step on pictures that are decoded,
augmented and in memory, and of the same step fed in each way: from the decoded cache (what `dsdi
train` does where they fit), by a DataLoader's processes (what it does where they do not), and by
Ray Data. **Whole runs**: `dsdi train` and a plain loop with a DataLoader, each in a process of its
own, start-up included, at --epochs and at twice as many; the difference is the steady state.
**Start-up** of `dsdi train`: when each part was done.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from dsdi_ray.config import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

_SIDE_PX = 512  # short side of a prepared set's images


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="test_byobnet")
    parser.add_argument("--input-px", type=int, default=128)
    parser.add_argument("--images", type=int, default=560, help="Of which a fifth validates.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--passes", type=int, default=3, help="Over the images, for feeding.")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--only", choices=["feeding", "runs"])
    parser.add_argument("--run", choices=["dsdi", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run = _run_dsdi if options.run == "dsdi" else _run_plain
        print(json.dumps(run(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        make_set(options.folder / "prepared", num_images=options.images)
        if options.only != "runs":
            compare_feeding(options)
        if options.only != "feeding":
            compare_runs(options)


def make_set(out: Path, *, num_images: int) -> None:
    """A prepared set of pictures of the size and detail of real ones."""
    from prepared_images import write_coloured_set

    write_coloured_set(out, num_images=num_images, side_px=_SIDE_PX)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The same for all ways."""
    return Recipe.model_validate(
        {
            "name": "bench",
            "backbone": {"name": options.backbone, "weights": "none"},
            "input_px": options.input_px,
            "epochs": options.epochs,
            "optimizer": {"name": "sgd", "lr": 0.001},
        }
    )


def compare_feeding(options: argparse.Namespace) -> None:
    """The same step, fed in different ways."""
    from dsdi_ray.distributed.train_workers import worker_environment

    os.environ.update(worker_environment(use_gpu=options.gpu).get("env_vars", {}))  # before torch
    import torch

    from dsdi_ray.distributed.learner import Learner
    from dsdi_ray.distributed.objectives import build_objective
    from dsdi_ray.distributed.train_data import Feeder, epoch_batches, load_pictures, num_steps
    from dsdi_ray.distributed.train_epoch import micro_batch
    from dsdi_ray.distributed.train_loop import starting_network
    from dsdi_ray.storage.prepared import PreparedSet

    recipe = recipe_of(options)
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
    rate = _ray_data_rate(options, prepared, recipe)
    print(f"  {'Ray Data, feeding alone':24} {rate:8.1f} images/s")


_NO_AUGMENTATION = dict.fromkeys(
    (
        "horizontal_flip", "vertical_flip", "rotation_degrees", "brightness", "contrast",
        "saturation", "hue",
    ),
    0.0,
)  # fmt: skip


def _ray_data_rate(options: argparse.Namespace, prepared: object, recipe: Recipe) -> float:
    """Images per second of Ray Data that reads, decodes and hands out, with no step at all."""
    import ray

    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.storage.prepared import IMAGE_FILES
    from dsdi_ray.vision.transforms import decode_square

    side = recipe.input_px

    def decode(rows: pa.Table) -> dict[str, np.ndarray]:
        return {"picture": np.stack([decode_square(v.as_buffer(), side) for v in rows["jpeg"]])}

    with ray_session():
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


def compare_runs(options: argparse.Namespace) -> None:
    """Whole runs, start-up included."""
    print(f"Whole runs: {options.backbone} at {options.input_px} px, {options.images} images")
    print("system  epochs  whole s   ratio  steady s/epoch  ratio")
    found = {}
    for epochs in (options.epochs, 2 * options.epochs):
        for system in ("plain", "dsdi"):
            arguments = [
                sys.executable, __file__, "--run", system, "--folder", str(options.folder),
                "--backbone", options.backbone, "--input-px", str(options.input_px),
                "--epochs", str(epochs), *(["--gpu"] if options.gpu else []),
            ]  # fmt: skip
            started = time.perf_counter()
            done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
            whole = time.perf_counter() - started
            found[system, epochs] = whole, json.loads(done.stdout.splitlines()[-1])
            steady = ""
            if (system, options.epochs) in found and epochs > options.epochs:
                few = found[system, options.epochs][0]
                by_system = (whole - few) / options.epochs
                plain_steady = (
                    found["plain", epochs][0] - found["plain", options.epochs][0]
                ) / options.epochs
                steady = f"{by_system:14.2f}  {by_system / plain_steady:5.2f}"
            ratio = whole / found["plain", epochs][0]
            print(f"{system:7} {epochs:6} {whole:8.1f} {ratio:7.2f}  {steady}", flush=True)
    print("Start-up of dsdi, seconds after the process began:")
    for name, seconds in found["dsdi", options.epochs][1]["times"].items():
        print(f"  {seconds:6.1f}  {name}")


def _run_dsdi(options: argparse.Namespace) -> dict[str, object]:
    import psutil

    began = psutil.Process().create_time()
    times = {"Python and this script": time.time() - began}
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.distributed.train import train_member

    times["imports"] = time.time() - began
    with ray_session():
        times["Ray is up"] = time.time() - began
        out = options.folder / f"member-{options.epochs}"
        summary = train_member(recipe_of(options), data=options.folder / "prepared", out=out)
        times["bundle is written"] = time.time() - began
    times["Ray is down"] = time.time() - began
    rows = [json.loads(row) for row in (summary.out / "history.jsonl").read_text().splitlines()]
    in_epochs = sum(row["seconds"] for row in rows)
    times["(of which epochs)"] = in_epochs
    return {"times": times}


def _run_plain(options: argparse.Namespace) -> dict[str, object]:
    """A loop by hand: decoded pictures in memory, augmented by the processes of a DataLoader."""
    import timm
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    from dsdi_ray.distributed.train_data import load_pictures
    from dsdi_ray.method.losses import focal_loss
    from dsdi_ray.method.metrics import lrap
    from dsdi_ray.storage.prepared import PreparedSet

    recipe = recipe_of(options)
    device = torch.device("cuda" if options.gpu else "cpu")
    parts = load_pictures(PreparedSet.open(options.folder / "prepared"), recipe)
    a = recipe.augmentation
    augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(a.horizontal_flip),
            v2.RandomVerticalFlip(a.vertical_flip),
            v2.RandomRotation(a.rotation_degrees, interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue),
        ]
    )
    scale = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])

    class Items(Dataset):
        def __init__(self, part: object, *, is_train: bool) -> None:
            self.part, self.is_train = part, is_train

        def __len__(self) -> int:
            return len(self.part)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
            picture = torch.from_numpy(self.part.cached[i]).permute(2, 0, 1)
            picture = augment(picture) if self.is_train else picture
            return scale(picture), torch.from_numpy(self.part.labels[i])

    num_processes = 8 if options.gpu else 2
    loaders = [
        DataLoader(
            Items(part, is_train=is_train),
            batch_size=recipe.batch_size if is_train else 64,
            shuffle=is_train,
            drop_last=is_train,
            num_workers=num_processes,
            persistent_workers=True,
            pin_memory=options.gpu,
        )
        for part, is_train in zip(parts, (True, False), strict=True)
    ]
    num_classes = parts[0].labels.shape[1]
    network = timm.create_model(options.backbone, num_classes=num_classes)
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, momentum=0.9, weight_decay=1e-4
    )
    steps = recipe.epochs * len(loaders[0])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(recipe.epochs):
        network.train()
        for pictures, labels in loaders[0]:
            inputs = pictures.to(device, memory_format=torch.channels_last, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=options.gpu):
                logits = network(inputs)
            loss = focal_loss(logits, labels.to(device)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.inference_mode():
            scores = [network(x.to(device)).float().cpu() for x, _ in loaders[1]]
        lrap(parts[1].labels, torch.cat(scores).numpy())
        torch.save([network.state_dict(), optimizer.state_dict()], options.folder / "plain.pt")
    return {}


if __name__ == "__main__":
    main()
