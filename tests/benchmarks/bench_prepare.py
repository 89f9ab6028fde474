"""Shrinking 24-megapixel JPEGs, against opening and resizing them whole, and the whole job.

    python tests/benchmarks/bench_prepare.py [--images 512]

The pictures are rendered scenes, enlarged, with a sensor's noise, at three sizes of file: LADI's own
24-megapixel images are of 11.3 MB (median of 696; 4.8 to 17 MB). Reading a JPEG's Huffman codes
takes as long whatever the size it is decoded at, so what is gained falls with the file's size. The
job is timed on the largest ones; 512 of them take 6 GB of disk.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from dsdi_ray.distributed.prepare import prepare_set
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.synthetic.scenes import render_scene
from dsdi_ray.taxonomy import load_taxonomy
from dsdi_ray.vision.shrink import decode_at, shrink_to_jpeg

_SIZE, _SHORT_SIDE_PX = (6000, 4000), 512
_SMALL = (768, 512)
_RENDERED = (1500, 1000)
_KINDS = {
    "fine": (94, 7.5),
    "normal": (86, 6.0),
    "basic": (78, 4.0),
}  # JPEG quality, noise in grey levels
_REPEATS = 5
_PLAIN_IMAGES = 24


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="Of the whole job.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for kind, (quality, noise) in _KINDS.items():
            print(f"{kind}: ", end="", flush=True)
            _compare([photograph(seed, quality=quality, noise=noise) for seed in range(4)])
        _run_job(Path(folder), num_images=options.images)


def photograph(seed: int, *, quality: int, noise: float) -> bytes:
    """A 24-megapixel JPEG of a rendered scene."""
    rng = np.random.default_rng(seed)
    scene = Image.fromarray(render_scene(rng, _RENDERED)[0]).resize(_SIZE, Image.Resampling.BICUBIC)
    texture = rng.normal(0, 2 * noise, (_SIZE[1] // 2, _SIZE[0] // 2)).astype(np.float32)
    grain = np.asarray(Image.fromarray(texture).resize(_SIZE, Image.Resampling.BILINEAR))
    grain = grain + rng.standard_normal((_SIZE[1], _SIZE[0]), dtype=np.float32) * noise
    pixels = np.clip(np.asarray(scene) + grain[..., None], 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def plainly(content: bytes) -> Image.Image:
    """Open a picture whole and resize it."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return picture.resize(_SMALL, Image.Resampling.LANCZOS)


def quickly(content: bytes) -> Image.Image:
    """Decode a picture at a fraction of its size and resize it."""
    return decode_at(Image.open(io.BytesIO(content)), _SMALL)


def to_jpeg(content: bytes) -> None:
    """All that a task does with an image."""
    shrink_to_jpeg(content, short_side_px=_SHORT_SIDE_PX)


def _compare(contents: list[bytes]) -> None:
    seconds: dict[Callable[[bytes], object], list[float]] = {}
    for _ in range(_REPEATS):  # by turns, and the best counts: a busy machine is slow by chance
        for way in (plainly, quickly, to_jpeg):
            started = time.process_time()
            for content in contents:
                way(content)
            seconds.setdefault(way, []).append((time.process_time() - started) / len(contents))
    plain, quick, stored = (min(times) for times in seconds.values())
    pairs = [(np.asarray(plainly(c), float), np.asarray(quickly(c), float)) for c in contents]
    error = max(((a - b) ** 2).mean() for a, b in pairs)
    print(
        f"{np.mean([len(c) for c in contents]) / 1e6:.1f} MB; on one core: open and resize "
        f"{1 / plain:.1f} images/s, at a fraction {1 / quick:.1f} images/s, {plain / quick:.2f} "
        f"times; as stored JPEG {1 / stored:.1f} images/s; PSNR {10 * np.log10(255**2 / error):.1f} dB"
    )


def _run_job(folder: Path, *, num_images: int) -> None:
    """Prepare files with ``dsdi prepare``'s own function, and open and resize some plainly."""
    quality, noise = _KINDS["fine"]
    content = photograph(0, quality=quality, noise=noise)
    files = [folder / f"{i:04d}.jpg" for i in range(num_images)]
    for i, file in enumerate(files):
        file.write_bytes(content + i.to_bytes(2))  # the same picture in files that all differ
    answers = [f"{file.name}\tW1\t['damage:flood/water']" for file in files]
    (folder / "answers.tsv").write_text("\n".join(["url\tWorkerId\tAnswer", *answers]))
    plain_files = files[:_PLAIN_IMAGES]
    started = time.monotonic()
    for file in plain_files:
        _open_plainly(file)
    alone = len(plain_files) / (time.monotonic() - started)
    with ray_session() as resources:
        started = time.monotonic()
        prepare_set(
            folder / "answers.tsv",
            images=[folder],
            out=folder / "prepared",
            taxonomy=load_taxonomy("ladi_v1"),
        )
        rate = num_images / (time.monotonic() - started)
    cores = int(resources.num_cpus)
    with ProcessPoolExecutor(cores) as processes:
        started = time.monotonic()
        list(processes.map(_open_plainly, plain_files * cores))
        beside = len(plain_files) * cores / (time.monotonic() - started)
    print(
        f"whole job: {rate:.1f} images/s of {len(content) / 1e6:.1f} MB on {cores} cores; opening "
        f"and resizing {alone:.1f} images/s in a loop, {beside:.1f} in {cores} processes: "
        f"{rate / alone:.2f} and {rate / beside:.2f} times; 40,000 images would take "
        f"{40_000 / rate / 3600:.1f} h"
    )


def _open_plainly(file: Path) -> None:
    plainly(file.read_bytes())


if __name__ == "__main__":
    main()
