"""Images of one's own with a CSV of 0/1 columns: `dsdi train` against a loop written by hand.

    python tests/benchmarks/bench_own_data.py --images 2100 --epochs 20 --seeds 3

Rendered tiles of 256 px as TIFF files, 17 classes and a taxonomy file; `dsdi prepare`, then once per
seed the same network from scratch with cross-entropy and AdamW for the same epochs by both, each a
process of its own. Shown: mAP of the last epoch on the validation part, and the wall clock of all.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import yaml
from PIL import Image

from dsdi_ray.distributed.demo_archive import make_archive
from dsdi_ray.distributed.session import ray_session

_TILE_PX = 256
_NUM_CLASSES = 17
_VALIDATION = 0.2
_PLAIN = Path(__file__).with_name("plain_training.py")
_BATCH_SIZE, _WEIGHT_DECAY = 28, 0.05


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2100)
    parser.add_argument("--backbone", default="test_byobnet")
    parser.add_argument("--input-px", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Keep the tiles here for the next time.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tiles = (options.folder or Path(scratch)).resolve()
        options.work = Path(scratch).resolve()
        make_tiles(tiles, num_images=options.images)
        compare(tiles, options)


def make_tiles(folder: Path, *, num_images: int) -> None:
    """Tiles, ``labels.csv`` of the classes that they truly show, ``taxonomy.yaml``."""
    if (folder / "labels.csv").exists():
        return
    with ray_session():
        archive = make_archive(folder / "archive", num_images=num_images, num_clips=1, seed=0)
    told = json.loads((archive.root / "truth.json").read_text("utf-8"))["images"]
    shown = {name: set(facts["classes"]) for name, facts in told.items()}
    found = [c for classes in shown.values() for c in classes if not c.endswith("none")]
    names, counts = np.unique(found, return_counts=True)
    chosen = names[np.argsort(-counts, kind="stable")][:_NUM_CLASSES].tolist()
    classes = [{"name": name, "category": "tile"} for name in chosen]
    taxonomy = {"name": "tiles", "classes": classes}
    (folder / "taxonomy.yaml").write_text(yaml.safe_dump(taxonomy), "utf-8")
    (folder / "tiles").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "split", *chosen])
        for name, present in shown.items():
            tile = Path(name).with_suffix(".tif").name
            with Image.open(archive.images_dir / name) as image:
                image.resize((_TILE_PX, _TILE_PX)).save(folder / "tiles" / tile)
            split = "validation" if rng.random() < _VALIDATION else "train"
            writer.writerow([tile, split, *(int(c in present) for c in chosen)])


def compare(tiles: Path, options: argparse.Namespace) -> None:
    """Train with both, once per seed."""
    prepared = options.work / "prepared"
    inputs = ["--images", tiles / "tiles", "--taxonomy", tiles / "taxonomy.yaml"]
    seconds, _ = _run([*_dsdi("prepare"), tiles / "labels.csv", *inputs, "--out", prepared])
    print(f"dsdi prepare: {seconds:.1f} s, once")
    print("seed    plain s     mAP     dsdi s     mAP   time")
    rows = []
    for seed in range(options.seeds):
        plain_seconds, plain = _train_plain(tiles, options, seed)
        dsdi_seconds, dsdi = _train_dsdi(prepared, options, seed)
        rows.append((plain, dsdi, dsdi_seconds / plain_seconds))
        print(
            f"{seed:4} {plain_seconds:10.1f} {plain:7.3f} {dsdi_seconds:10.1f} {dsdi:7.3f} "
            f"{rows[-1][2]:6.2f}",
            flush=True,
        )
    changes = [dsdi - plain for plain, dsdi, _ in rows]
    spread = f" ± {stdev(changes):.3f}" if len(changes) > 1 else ""
    print(f"mean change of mAP {mean(changes):+.3f}{spread}, time {mean(r[2] for r in rows):.2f} x")


def _train_plain(tiles: Path, options: argparse.Namespace, seed: int) -> tuple[float, float]:
    settings = {
        "labels": tiles / "labels.csv",
        "tiles": tiles / "tiles",
        "backbone": options.backbone,
        "input-px": options.input_px,
        "epochs": options.epochs,
        "batch-size": _BATCH_SIZE,
        "lr": options.lr,
        "weight-decay": _WEIGHT_DECAY,
        "seed": seed,
    }
    given = [part for name, value in settings.items() for part in (f"--{name}", value)]
    seconds, output = _run([sys.executable, _PLAIN, *given])
    return seconds, json.loads(output.splitlines()[-1])["map"]


def _train_dsdi(prepared: Path, options: argparse.Namespace, seed: int) -> tuple[float, float]:
    recipe = {
        "name": f"tiles-{seed}",
        "backbone": {"name": options.backbone, "weights": "none"},
        "input_px": options.input_px,
        "epochs": options.epochs,
        "batch_size": _BATCH_SIZE,
        "loss": {"family": "bce"},
        "optimizer": {"name": "adamw", "lr": options.lr, "weight_decay": _WEIGHT_DECAY},
        "seed": seed,
    }
    path, out = options.work / f"{seed}.yaml", options.work / f"member-{seed}"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    seconds, _ = _run([*_dsdi("train"), path, "--data", prepared, "--out", out])
    last = json.loads((out / "history.jsonl").read_text().splitlines()[-1])
    return seconds, last["map"]


def _dsdi(command: str) -> list[str]:
    return [sys.executable, "-m", "dsdi_ray", command]


def _run(command: list[object]) -> tuple[float, str]:
    """Wall clock, and standard output."""
    started = time.perf_counter()
    done = subprocess.run(
        list(map(str, command)), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main()
