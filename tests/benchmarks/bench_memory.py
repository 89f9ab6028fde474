"""Peak memory and time per clip of a whole scoring job as the archive, or one clip, grows.

    python tests/benchmarks/bench_memory.py              # 10, 100, 1,000 clips; 10 s, 1 min, 1 h
    python tests/benchmarks/bench_memory.py --clips 10 100 --minutes 10
    python tests/benchmarks/bench_memory.py --clips --backbone resnest50d --input-px 360 --long-fps 2

Memory is that of all processes of the job, Ray's included. Each line is a job of its own. Needs psutil
(the ``dev`` extra).
"""

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from measure import run_measured

_CLIP_SECONDS = 4.0
_FPS = 25
_SIZE = (320, 180)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--minutes", type=float, default=60.0, help="Length of the long clip.")
    parser.add_argument(
        "--long-fps",
        type=float,
        help="Frames a second of the long clip that are scored, where all would take hours.",
    )
    parser.add_argument("--backbone", default="test_resnet", help="Network, with random weights.")
    parser.add_argument("--input-px", type=int, default=160)
    parser.add_argument("--folder", type=Path, help="Keep the clips here for the next time.")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        folder, member, fps = options.run
        print(json.dumps(score(Path(folder), Path(member), fps=float(fps))))
        return
    # Not at the top: the process that is measured loads what `dsdi score` loads.
    from scoring_systems import make_random_member

    from dsdi_ray.vision.decode import DecodeSettings

    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        clips = options.folder or work / "clips"
        member = make_random_member(work / "member", options.backbone, options.input_px)
        print("archive                 peak MiB  ratio  scoring s  s/clip  spilled MiB")
        fps = DecodeSettings().fps
        many = [(n, _CLIP_SECONDS, fps) for n in options.clips]
        long = (1, 60 * options.minutes, options.long_fps or fps)
        for archives in (many, [(1, 10.0, fps), (1, 60.0, fps), long]):
            report(archives, clips, member)


def report(archives: list[tuple[int, float, float]], clips: Path, member: Path) -> None:
    """Print a line per archive: number of clips, seconds of each, frames a second; ratios to the first."""
    first = None
    for num_clips, seconds, fps in archives:
        name = f"{num_clips} clip{'s' if num_clips > 1 else ''} of {seconds:g} s"
        kept = f"{num_clips}-clips" if seconds == _CLIP_SECONDS else f"{seconds:g}-s"
        folder = make_archive(clips / kept, num_clips=num_clips, seconds=seconds)
        measured = run_measured([__file__, "--run", str(folder), str(member), str(fps)])
        first = first or measured.peak_mib
        facts = measured.result
        print(
            f"{name:22} {measured.peak_mib:9.0f} {measured.peak_mib / first:6.2f} "
            f"{facts['seconds']:10.1f} {facts['seconds'] / facts['num_clips']:7.2f} "
            f"{facts['spilled_mib']:12.0f}",
            flush=True,
        )


def make_archive(folder: Path, *, num_clips: int, seconds: float) -> Path:
    """Write clips of drifting noise, each different; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num_clips):
        path = folder / f"clip{i:05d}.mp4"
        if not path.exists():
            _encode(path, seed=i, num_pictures=round(seconds * _FPS))
    return folder


def _encode(path: Path, *, seed: int, num_pictures: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = _SIZE
    cells = rng.integers(0, 255, (height // 20, width // 20, 3), dtype=np.uint8)
    ground = np.ascontiguousarray(cells.repeat(20, 0).repeat(20, 1))
    temporary = path.with_suffix(".tmp.mp4")
    with av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for i in range(num_pictures):
            picture = np.ascontiguousarray(np.roll(ground, 2 * i, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    temporary.rename(path)


def score(folder: Path, member: Path, *, fps: float) -> dict[str, float]:
    """Index and score a folder in a Ray of its own; only the scoring is timed."""
    import ray
    import ray._private.internal_api as ray_internals

    from dsdi_ray.distributed.index import load_archive
    from dsdi_ray.distributed.score import score_archive
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.storage.bundles import read_ensemble, write_ensemble
    from dsdi_ray.vision.decode import DecodeSettings

    with tempfile.TemporaryDirectory() as scratch, ray_session():
        work = Path(scratch)
        write_ensemble([(member, 1.0)], work / "ensemble")
        manifest = load_archive(str(folder))
        started = time.monotonic()
        summary = score_archive(
            manifest,
            ensemble=read_ensemble(work / "ensemble"),
            store_uri=str(work / "scores"),
            settings=DecodeSettings(fps=fps),
        )
        seconds = time.monotonic() - started
        assert summary.num_ok == len(manifest)
        here = ray.get_runtime_context().gcs_address  # others may run beside this Ray
        told = ray_internals.memory_summary(here, stats_only=True)
        spilled = re.search(r"Spilled (\d+) MiB", told)
        return {
            "seconds": seconds,
            "num_clips": len(manifest),
            "spilled_mib": float(spilled[1]) if spilled else 0.0,
        }


if __name__ == "__main__":
    main()
