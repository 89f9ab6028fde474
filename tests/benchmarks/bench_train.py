"""Training against the loop that one would write by hand, on the same images and network.

    python tests/benchmarks/bench_train.py                                  # a small network
    python tests/benchmarks/bench_train.py --backbone resnet18 --input-px 224 --epochs 4

`dsdi train` and a plain loop with a DataLoader, each in a process of its own, start-up included, by
turns; ratios are taken within a turn, since a machine's clock may drift by more than the two differ.
Also printed: when each part of the start-up of `dsdi train` was done.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from training_inputs import add_options, make_set, recipe_of

from dsdi_ray.config import Recipe


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--run", choices=_SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(_SYSTEMS[options.run](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        make_set(options.folder / "prepared", num_images=options.images)
        compare_runs(options)


def compare_runs(options: argparse.Namespace) -> None:
    """Whole runs, start-up included."""
    print(f"{options.backbone} at {options.input_px} px, {options.images} images")
    print("turn    plain s  s/epoch     dsdi s  s/epoch   whole  epochs")
    whole, steady = [], []
    for turn in range(options.turns):
        plain, dsdi = (_run(system, options) for system in ("plain", "dsdi"))
        whole.append(dsdi["whole"] / plain["whole"])
        steady.append(dsdi["epoch"] / plain["epoch"])
        print(
            f"{turn + 1:4} {plain['whole']:10.1f} {plain['epoch']:8.2f} {dsdi['whole']:10.1f} "
            f"{dsdi['epoch']:8.2f} {whole[-1]:7.2f} {steady[-1]:7.2f}",
            flush=True,
        )
    print(f"median {median(whole):44.2f} {median(steady):7.2f}")
    print("Start-up of dsdi, seconds after the process began:")
    for name, seconds in dsdi["times"].items():
        print(f"  {seconds:6.1f}  {name}")


def _run(system: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a system says of its run, and how long its process took."""
    arguments = [
        sys.executable, __file__, "--run", system, "--folder", str(options.folder),
        "--backbone", options.backbone, "--input-px", str(options.input_px),
        "--epochs", str(options.epochs), *(["--gpu"] if options.gpu else []),
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    whole = time.perf_counter() - started
    return {"whole": whole, **json.loads(done.stdout.splitlines()[-1])}


def _run_dsdi(options: argparse.Namespace) -> dict[str, Any]:
    import psutil

    began = psutil.Process().create_time()
    times = {"Python and this script": time.time() - began}
    from dsdi_ray.distributed.network_libraries import load_meanwhile, skip_last_collection
    from dsdi_ray.distributed.session import ray_session

    skip_last_collection()
    load_meanwhile()
    with ray_session(has_state_api=False):
        times["Ray is up"] = time.time() - began
        from dsdi_ray.distributed.train import train_member

        times["imports"] = time.time() - began
        recipe = recipe_of(options, epochs=options.epochs)
        out = Path(tempfile.mkdtemp(dir=options.folder)) / "member"
        train_member(recipe, data=options.folder / "prepared", out=out)
        times["bundle is written"] = time.time() - began
    times["Ray is down"] = time.time() - began
    rows = [json.loads(row) for row in (out / "history.jsonl").read_text().splitlines()]
    seconds = [row["seconds"] for row in rows]
    times["(of which epochs)"] = sum(seconds)
    return {"times": times, "epoch": median(seconds)}


def _run_plain(options: argparse.Namespace) -> dict[str, Any]:
    """A loop by hand: decoded pictures in memory, augmented by the processes of a DataLoader."""
    import timm
    import torch

    from dsdi_ray.distributed.train_data import load_pictures
    from dsdi_ray.method.losses import focal_loss
    from dsdi_ray.method.metrics import lrap
    from dsdi_ray.storage.prepared import PreparedSet

    recipe = recipe_of(options, epochs=options.epochs)
    device = torch.device("cuda" if options.gpu else "cpu")
    parts = load_pictures(PreparedSet.open(options.folder / "prepared"), recipe)
    loaders = _plain_loaders(parts, recipe, options)
    num_classes = parts[0].labels.shape[1]
    network = timm.create_model(options.backbone, num_classes=num_classes)
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, momentum=0.9, weight_decay=1e-4
    )
    steps = recipe.epochs * len(loaders[0])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    seconds = []
    for _ in range(recipe.epochs):
        started = time.perf_counter()
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
        seconds.append(time.perf_counter() - started)
        torch.save([network.state_dict(), optimizer.state_dict()], options.folder / "plain.pt")
    return {"epoch": median(seconds)}


def _plain_loaders(parts: Any, recipe: Recipe, options: argparse.Namespace) -> list[Any]:
    """DataLoaders of the training and the validation part."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

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
    return [
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


_SYSTEMS = {"dsdi": _run_dsdi, "plain": _run_plain}

if __name__ == "__main__":
    main()
