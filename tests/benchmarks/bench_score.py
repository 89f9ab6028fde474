"""Scoring against what one would write without this project, on the same 1080p clips and member.

    python tests/benchmarks/bench_score.py                          # a member that costs little
    python tests/benchmarks/bench_score.py --backbone resnest50d --input-px 360 --seconds 4

Systems: ``dsdi`` (this project: one job of Ray Data), ``loop`` (by hand: a process with decord,
another with the network), ``paper`` (ffmpeg -r 10 to JPEG files, then a DataLoader), and the
same job with ``ray.data.read_videos`` and with Daft's reader. Each runs twice, on few and on many
clips: the difference per clip is the steady state, the rest start-up. Needs the ``bench`` extra
(psutil, daft) and ffmpeg; a system that is not installed is passed over and named.
"""

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from footage_1080p import make_clips
from measure import run_measured
from scoring_systems import SYSTEMS, make_random_member

_NEEDS = {"paper": ("program", "ffmpeg"), "daft": ("module", "daft")}


def main() -> None:
    """Measure the systems and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--input-px", type=int, default=128)
    parser.add_argument("--clips", type=int, nargs=2, default=[4, 16], metavar=("FEW", "MANY"))
    parser.add_argument("--seconds", type=float, default=20.0, help="Length of a clip.")
    parser.add_argument("--folder", type=Path, help="Keep the clips here for the next time.")
    parser.add_argument("--run", choices=list(SYSTEMS), help=argparse.SUPPRESS)
    parser.add_argument("--member", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        clips_folder = options.folder or work / "clips"
        if options.run:
            clips = make_clips(clips_folder, num_clips=options.clips[0], seconds=options.seconds)
            seconds, scores = SYSTEMS[options.run](clips, options.member, work)
            print(json.dumps({"seconds": seconds, "scores": scores}))
            return
        compare(options, clips_folder, work)


def compare(options: argparse.Namespace, clips_folder: Path, work: Path) -> None:
    """Run each system in a process of its own, on few clips and on many."""
    few, many = options.clips
    make_clips(clips_folder, num_clips=many, seconds=options.seconds)
    member = make_random_member(work / "member", options.backbone, options.input_px)
    rows, first_scores = [], None
    for system in options.systems:
        if _is_missing(system):
            print(f"{system}: not measured, {_NEEDS[system][1]} is not installed", file=sys.stderr)
            continue
        measured = []
        for number in (few, many):
            arguments = [
                __file__, "--run", system, "--clips", str(number), "0",
                "--seconds", str(options.seconds), "--folder", str(clips_folder),
                "--member", str(member),
            ]  # fmt: skip
            measured.append(run_measured(arguments))
        small, large = measured
        scores = np.array([large.result["scores"][c] for c in sorted(large.result["scores"])])
        first_scores = scores if first_scores is None else first_scores
        steady = (large.result["seconds"] - small.result["seconds"]) / (many - few)
        start_up = large.result["seconds"] - many * steady
        difference = float(np.abs(scores - first_scores).mean())
        rows.append((system, steady, start_up, large.result["seconds"], large.peak_mib, difference))
        print(f"{system}: {steady:.2f} s/clip", file=sys.stderr)
    print(
        f"{many} clips of {options.seconds:g} s, 1080p30, {options.backbone} at "
        f"{options.input_px} px"
    )
    print("system        s/clip  ratio  start-up s  whole s  peak MiB  mean |score difference|")
    for system, steady, start_up, whole, peak, difference in rows:
        print(
            f"{system:12} {steady:7.2f} {steady / rows[0][1]:6.2f} {start_up:11.1f} {whole:8.1f} "
            f"{peak:9.0f}  {difference:.4f}"
        )


def _is_missing(system: str) -> bool:
    kind, name = _NEEDS.get(system, ("", ""))
    if kind == "program":
        return shutil.which(name) is None
    return kind == "module" and importlib.util.find_spec(name) is None


if __name__ == "__main__":
    main()
