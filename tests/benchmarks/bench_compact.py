"""What compaction does to a member's logits as scoring jobs leave them: files, size, time, memory.

Writes the frames of clips in parts of 16 MiB, one part in ten twice; compacts them in a process of its own; then looks one clip up before and after.

    python tests/benchmarks/bench_compact.py
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as pads

from dsdi_ray.storage.score_rows import frame_rows
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.store_compact import compact_store
from dsdi_ray.taxonomy import load_taxonomy

FRAMES_PER_CLIP = 300
CLIPS_PER_PART = 350  # 16 MiB of 37 float32


def fill(store: ScoreStore, num_clips: int) -> str:
    """Write the clips; returns the content_id of one."""
    rng = np.random.default_rng(0)
    ids = [f"{rng.integers(10**7, 10**8)}-{rng.bytes(12).hex()}" for _ in range(num_clips)]
    frames = np.arange(FRAMES_PER_CLIP, dtype=np.int32)
    for start in range(0, num_clips, CLIPS_PER_PART):
        part = ids[start : start + CLIPS_PER_PART]
        rows = frame_rows(
            content_ids=part,
            spans=["all"] * len(part),
            frame_indices=[frames] * len(part),
            times_seconds=[frames / 10] * len(part),
            logits=[rng.normal(-4, 3, (FRAMES_PER_CLIP, 37)).astype(np.float32) for _ in part],
        )
        for _ in range(2 if start // CLIPS_PER_PART % 10 == 0 else 1):
            store.write_logits("d", "m", rows)
    return ids[num_clips // 2]


def lookup_seconds(store: ScoreStore, content_id: str) -> float:
    """Median time to read the frames of one clip."""
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        files = store.logits_files("d", ["m"])
        rows = pads.dataset(files, partitioning=None).to_table(
            filter=pc.field("content_id") == content_id
        )
        assert len(rows) in {FRAMES_PER_CLIP, 2 * FRAMES_PER_CLIP}
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))


def compact(uri: str) -> None:
    begun, cpu_begun = time.perf_counter(), time.process_time()
    summary = compact_store(ScoreStore.open(uri))
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
    mib = summary.bytes_before / 2**20
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{seconds:.1f} s ({cpu_seconds:.1f} of CPU), {mib / seconds:.0f} MiB/s, peak {peak_gib:.2f} GiB, "
          f"{summary.num_rows_dropped:,} rows were there twice")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--compact", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compact:
        compact(options.compact)
        return
    with tempfile.TemporaryDirectory() as folder:
        store = ScoreStore.open_or_create(str(Path(folder) / "store"), load_taxonomy())
        clip = fill(store, options.clips)
        before = lookup_seconds(store, clip)
        report(store, "before", before)
        subprocess.run([sys.executable, __file__, "--compact", store.uri], check=True)
        after = lookup_seconds(store, clip)
        report(store, "after", after)
        print(f"one clip is read {before / after:.1f} x faster")


def report(store: ScoreStore, when: str, seconds: float) -> None:
    parts = store.files.parts("logits/decode_id=d/member_id=m")
    mib = sum(part.size for part in parts) / 2**20
    print(
        f"{when:<7} {len(parts):>5} files {mib:>8,.0f} MiB, one clip read in {seconds * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()
