"""How long a scoring job takes to find out what there is to do, and how much memory.

Makes a store as scoring jobs leave it behind (two passes: 8 members, then the others but the last)
of one million clips x 12 members, and compares a manifest with it: everything present, one member of
twelve missing, everything missing. Each case is a process of its own: the plan, the writer, the
outcomes of clips that need no decoding, and the summary, as `dsdi score` does them.

    python tests/benchmarks/bench_plan.py
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsdi_ray.storage.manifest import MANIFEST_SCHEMA
from dsdi_ray.storage.outcome_counts import count_outcomes
from dsdi_ray.storage.score_plan import plan_scoring
from dsdi_ray.storage.score_rows import OUTCOME_SCHEMA
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.score_writer import ScoreWriter
from dsdi_ray.taxonomy import load_taxonomy

LIMIT_SECONDS, LIMIT_GIB = 60.0, 4.0
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CASES = ("all present", "one of 12 missing", "all missing", "all present, archive moved")


def manifest_of(num_clips: int) -> pa.Table:
    rng = np.random.default_rng(0)
    digests = [rng.bytes(12).hex() for _ in range(num_clips)]
    columns = {
        "clip_id": [f"flight-{i // 400:05d}/clip-{i:07d}" for i in range(num_clips)],
        "uri": [
            f"s3://archive/2026/flight-{i // 400:05d}/clip-{i:07d}.mp4" for i in range(num_clips)
        ],
        "media": ["video"] * num_clips,
        "content_id": [f"{20_000_000 + i}-{digest}" for i, digest in enumerate(digests)],
        "duration_seconds": np.full(num_clips, 30.0),
    }
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(num_clips, f.type)
        for f in MANIFEST_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=MANIFEST_SCHEMA)


def write_pass(
    store: ScoreStore, manifest: pa.Table, members: list[str], *, num_files: int, started: datetime
) -> None:
    """Outcomes of one scoring job, in the order in which clips finish: about that of the manifest."""
    order = np.argsort(
        np.arange(len(manifest)) + np.random.default_rng(1).normal(0, 200, len(manifest))
    )
    for k, rows in enumerate(np.array_split(order, num_files)):
        clips = manifest.take(pa.array(rows))
        same = {
            "span": "all", "decode_id": "d" * 12, "member_ids": members, "status": "ok",
            "decoder": "decord", "frames_expected": 300, "frames_scored": 300, "attempts": 1,
            "seconds": 1.5, "finished_at": started + timedelta(seconds=5 * k),
        }  # fmt: skip
        arrays = [
            clips[f.name].combine_chunks()
            if f.name in clips.column_names
            else pa.array([same.get(f.name)] * len(rows), f.type)
            for f in OUTCOME_SCHEMA
        ]
        store.write_outcomes(pa.Table.from_arrays(arrays, schema=OUTCOME_SCHEMA))


def make_store(folder: Path, *, num_clips: int, num_files: int, members: list[str]) -> None:
    manifest = manifest_of(num_clips)
    pq.write_table(manifest, folder / "manifest.parquet")
    moved = manifest.set_column(
        1, "uri", pa.array([u.replace("archive", "moved") for u in manifest["uri"].to_pylist()])
    )
    pq.write_table(moved, folder / "moved.parquet")
    store = ScoreStore.open_or_create(str(folder / "store"), load_taxonomy())
    write_pass(store, manifest, members[:8], num_files=num_files // 2, started=NOON)
    later = NOON + timedelta(days=1)
    write_pass(store, manifest, members[8:], num_files=num_files // 2, started=later)
    ScoreStore.open_or_create(str(folder / "empty"), load_taxonomy())


def run_case(folder: Path, case: str, members: list[str]) -> None:
    """Do what a job does before and after scoring; print seconds, peak memory and counts."""
    uri = str(folder / ("empty" if case == "all missing" else "store"))
    if case == "one of 12 missing":
        members = [*members[:-1], "f" * 16]
    name = "moved" if case.endswith("moved") else "manifest"
    manifest = pq.read_table(folder / f"{name}.parquet")
    begun, cpu_begun = time.perf_counter(), time.process_time()
    store = ScoreStore.open(uri)
    plan = plan_scoring(manifest, store=store, member_ids=members, decode_id="d" * 12)
    planned = time.perf_counter()
    writer = ScoreWriter(store, plan, decode_id="d" * 12, fps=10.0)
    if not case.endswith("moved"):
        writer.record_without_decoding()
    clips = plan.manifest
    counts = store.read_outcomes(
        lambda d: count_outcomes(d, clips=clips, member_ids=members, decode_id="d" * 12)
    )
    ended, cpu_seconds = time.perf_counter(), time.process_time() - cpu_begun
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    verdict = "within" if ended - begun < LIMIT_SECONDS and peak_gib < LIMIT_GIB else "OVER"
    print(
        f"{case:<28} {planned - begun:>7.1f} {ended - begun:>7.1f} {cpu_seconds:>7.1f} {peak_gib:>9.2f}  {verdict}   "
        f"{plan.num_pairs_present:,} present, {plan.num_pairs_missing:,} missing, "
        f"{plan.num_work_items:,} to decode, {len(plan.known):,} known, {sum(counts.values()):,} told"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument(
        "--folder", type=Path, help="keep the store here, and use it if it is there"
    )
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    members = [f"{m:016x}" for m in range(12)]
    if options.case:
        run_case(options.folder, options.case, members)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "store").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make_store(folder, num_clips=options.clips, num_files=options.files, members=members)
        print(
            f"{'case':<28} {'plan s':>7} {'all s':>7} {'CPU s':>7} {'peak GiB':>9}  of {LIMIT_SECONDS:.0f} s, {LIMIT_GIB:.0f} GiB"
        )
        for case in CASES:
            command = [sys.executable, __file__, "--folder", str(folder), "--case", case]
            subprocess.run(command, check=True, env=os.environ)


if __name__ == "__main__":
    main()
