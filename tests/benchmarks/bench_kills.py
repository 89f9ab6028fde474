"""Kill processes of a scoring job at random, many times, and compare what it comes to.

    python tests/benchmarks/bench_kills.py                # 20 kills over 60 clips of 1080p
    python tests/benchmarks/bench_kills.py --kills 5 --clips 20 --seed 7

Victims are the decoding child, the decode actor, the scoring actor and the driver itself, each with
the same chance, some seconds after the kill before. A driver that was killed is started again with
the same command; a clip that was given up because its worker died under it each time is tried again
at the end, as a user would with ``--retry-failed``. The logits must be those of an undisturbed job
to the bit, or the script fails. Needs psutil (the ``dev`` extra).
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from footage_1080p import make_clips
from scoring_systems import make_random_member

from dsdi_ray.storage.bundles import write_ensemble
from dsdi_ray.storage.score_store import ScoreStore

_MARKS = {  # of the command line, by kind of victim
    "decode child": "dsdi_ray.vision.decode_child",
    "decode actor": "DecodeClips",
    "scoring actor": "ScoreFrames",
    "driver": "",
}
_PAUSE_SECONDS = (2.0, 8.0)
_LONGEST_RUN_SECONDS = 3600.0


def main() -> None:
    """Score undisturbed, score under fire, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=10.0, help="Length of a clip.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Keep the clips here for the next time.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        clips = make_clips(
            options.folder or work / "clips", num_clips=options.clips, seconds=options.seconds
        )
        member = make_random_member(work / "member", "test_resnet", 160)
        write_ensemble([(member, 1.0)], work / "ensemble")
        sources = [*map(str, clips), "-o", str(work / "manifest.parquet")]
        subprocess.run([*_DSDI, "index", *sources], check=True)
        _finish(_start(work, "undisturbed"))
        expected = _logits(work / "undisturbed")
        killed, num_starts = _score_under_fire(work, options.kills, random.Random(options.seed))
        got = _logits(work / "fire")
        outcomes = ScoreStore.open(str(work / "fire")).outcomes()["content_id"].to_pylist()
    print(f"killed {sum(killed.values())}: {dict(killed)}; the job was started {num_starts} times")
    print(f"clips recorded more than once: {sum(n > 1 for n in Counter(outcomes).values())}")
    if got != expected:
        sys.exit(f"the logits differ: {len(expected)} frames undisturbed, {len(got)} under fire")
    print(f"logits of {len(got)} frames are equal to the bit")


_DSDI = [sys.executable, "-m", "dsdi_ray"]


def _score_under_fire(
    work: Path, num_kills: int, chance: random.Random
) -> tuple[Counter[str], int]:
    killed: Counter[str] = Counter()
    num_starts = 0
    while True:
        job = _start(work, "fire", "--retry-failed")
        num_starts += 1
        while job.poll() is None and killed.total() < num_kills:
            time.sleep(chance.uniform(*_PAUSE_SECONDS))
            kind = chance.choice(list(_MARKS))
            victims = _victims(job, kind)
            if victims and job.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    chance.choice(victims).kill()
                    killed[kind] += 1
        if job.wait(_LONGEST_RUN_SECONDS) == 0:
            _finish(_start(work, "fire", "--retry-failed"))  # what the last run gave up
            return killed, num_starts
        if num_starts > killed["driver"]:
            sys.exit("the job failed though its driver was not killed")


def _start(work: Path, store: str, *more: str) -> subprocess.Popen[str]:
    sources = [str(work / "manifest.parquet"), "-e", str(work / "ensemble")]
    return subprocess.Popen(
        [*_DSDI, "score", *sources, "-s", str(work / store), *more, "--json"],
        stdout=subprocess.DEVNULL,
        text=True,
    )


def _finish(job: subprocess.Popen[str]) -> None:
    if job.wait(_LONGEST_RUN_SECONDS):
        sys.exit("the job failed though nothing was killed")


def _victims(job: subprocess.Popen[str], kind: str) -> Sequence[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        driver = psutil.Process(job.pid)
        if kind == "driver":
            return [driver]
        below = driver.children(recursive=True)
        return [p for p in below if _MARKS[kind] in " ".join(_command(p))]
    return []


def _command(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _logits(store: Path) -> dict[tuple[str, int], bytes]:
    found: dict[tuple[str, int], bytes] = {}
    for file in store.glob("logits/*/*/part-*.parquet"):
        for row in pq.read_table(file, partitioning=None).to_pylist():
            key = (row["content_id"], row["frame_index"])
            bits = np.array(row["logits"], np.float32).tobytes()
            if found.setdefault(key, bits) != bits:
                sys.exit(f"{key}: two rows that differ")
    return found


if __name__ == "__main__":
    main()
