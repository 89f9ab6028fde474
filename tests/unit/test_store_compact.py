"""Compaction: few sorted files, each row once, nothing lost whatever happens meanwhile."""

import json
import multiprocessing
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdi_ray.errors import StoreError
from dsdi_ray.storage import store_merge
from dsdi_ray.storage.score_rows import OUTCOME_SCHEMA, frame_rows
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.sorted_rows import logits_keys, merge_sorted, sorted_once
from dsdi_ray.storage.store_claim import sole_maintenance
from dsdi_ray.storage.store_compact import compact_store
from dsdi_ray.taxonomy import taxonomy_from_dict

THREE = taxonomy_from_dict({"name": "three", "classes": ["flood", "fire", "road"]})
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore.open_or_create(str(tmp_path / "s"), THREE)


def frames(content_id: str, first: int, num_frames: int) -> pa.Table:
    """Frames whose logits follow from their keys, so that copies of a row are the same row."""
    indices = np.arange(first, first + num_frames, dtype=np.int32)
    return frame_rows(
        content_ids=[content_id],
        spans=["all"],
        frame_indices=[indices],
        times_seconds=[indices / 10],
        logits=[np.stack([indices, indices * 2, np.full_like(indices, len(content_id))], 1)],
    )


def outcome(clip_id: str, seconds: int = 0, **changes: object) -> dict[str, object]:
    return {
        "clip_id": clip_id,
        "uri": f"/{clip_id}.mp4",
        "content_id": f"content-{clip_id}",
        "span": "all",
        "decode_id": "d",
        "member_ids": ["m"],
        "status": "ok",
        "finished_at": NOON + timedelta(seconds=seconds),
        **changes,
    }


def parts(store: ScoreStore, folder: str = "logits/decode_id=d/member_id=m") -> list[str]:
    return [info.path for info in store.files.parts(folder)]


def logits_in(store: ScoreStore) -> dict[tuple[str, str, int], tuple[float, ...]]:
    rows = [r for f in parts(store) for r in pq.read_table(f, partitioning=None).to_pylist()]
    return {(r["content_id"], r["span"], r["frame_index"]): tuple(r["logits"]) for r in rows}


def outcomes_in(store: ScoreStore) -> set[str]:
    return {json.dumps(row, default=str) for row in store.outcomes().to_pylist()}


def fill(store: ScoreStore, names: str = "baca") -> None:
    """Several small files, unsorted, with rows that are there twice."""
    for name in names:
        store.write_logits("d", "m", frames(name, 0, 40))
        store.write_logits("d", "m", frames(name, 30, 20))
        store.write_outcomes([outcome(name), outcome(name, 1, status="partial")])


def test_small_files_become_one_sorted_file_with_each_row_once(store: ScoreStore) -> None:
    fill(store)
    logits, outcomes = logits_in(store), outcomes_in(store)
    summary = compact_store(store)
    (path,) = parts(store)
    rows = pq.read_table(path, partitioning=None)
    keys = list(zip(rows["content_id"].to_pylist(), rows["frame_index"].to_pylist(), strict=True))
    assert keys == sorted({(c, k) for c in "abc" for k in range(50)})
    assert logits_in(store) == logits
    assert outcomes_in(store) == outcomes
    assert len(store.outcomes()) == 6
    assert (summary.num_parts_before, summary.num_parts_merged, summary.num_parts_after) == (
        12,
        12,
        2,
    )
    assert summary.num_rows_dropped == 4 * 60 - 150 + 2


def test_a_compacted_store_is_left_alone(store: ScoreStore) -> None:
    fill(store)
    compact_store(store)
    before = parts(store), parts(store, "outcomes")
    assert compact_store(store).num_parts_merged == 0
    assert (parts(store), parts(store, "outcomes")) == before


def test_a_dry_run_says_what_would_be_merged_and_changes_nothing(store: ScoreStore) -> None:
    fill(store)
    before = parts(store)
    summary = compact_store(store, dry_run=True)
    assert (summary.num_parts_merged, summary.num_parts_after, summary.dry_run) == (12, None, True)
    assert parts(store) == before


def test_outcomes_of_before_a_column_are_merged_with_those_after(store: ScoreStore) -> None:
    old = pa.Table.from_pylist([outcome("a")], schema=pa.schema(list(OUTCOME_SCHEMA)[:15]))
    store.files.write_part("outcomes", old)
    store.write_outcomes([outcome("b", seconds_covered=2.5)])
    compact_store(store)
    rows = {r["clip_id"]: r["seconds_covered"] for r in store.outcomes().to_pylist()}
    assert rows == {"a": None, "b": 2.5}


def test_row_groups_hold_ranges_of_clips_so_that_a_reader_can_skip(
    store: ScoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_merge, "ROWS_PER_GROUP", 40)
    for name in "dbca":
        store.write_logits("d", "m", frames(name, 0, 40))
    compact_store(store)
    (path,) = parts(store)
    metadata = pq.read_metadata(path)
    ranges = [metadata.row_group(i).column(0).statistics for i in range(metadata.num_row_groups)]
    assert [(r.min, r.max) for r in ranges] == [(c, c) for c in "abcd"]


def test_more_rows_than_memory_holds_are_merged_from_runs_on_disk(
    store: ScoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_merge, "_RUN_BYTES", 3000)
    monkeypatch.setattr(store_merge, "_MAX_RUNS", 3)
    monkeypatch.setattr(store_merge, "ROWS_PER_GROUP", 16)
    monkeypatch.setattr(store_merge, "PART_BYTES", 8000)
    rng = np.random.default_rng(0)
    for clip in rng.integers(0, 30, 60):
        store.write_logits("d", "m", frames(f"clip-{clip:02d}", int(rng.integers(0, 40)), 50))
    before = logits_in(store)
    compact_store(store)
    files = [pq.read_table(path, partitioning=None) for path in parts(store)]
    assert len(files) > 2
    assert logits_in(store) == before
    assert sum(map(len, files)) == len(before)
    contents = [set(f["content_id"].to_pylist()) for f in files]
    assert sum(map(len, contents)) == len(set.union(*contents)), "a clip is in one file"
    assert not store.files.temporaries()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcå"), st.integers(0, 9)), min_size=1, max_size=30),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 7),
)
def test_merging_sorted_runs_is_sorting_them_together(runs: list, portion: int) -> None:
    tables = [pa.concat_tables([frames(c, k, 1) for c, k in run]) for run in runs]
    in_order = [sorted_once(table, logits_keys) for table in tables]
    portions = [[t.slice(i, portion) for i in range(0, len(t), portion)] for t in in_order]
    merged = pa.concat_tables(merge_sorted(portions, logits_keys))
    keys = list(
        zip(merged["content_id"].to_pylist(), merged["frame_index"].to_pylist(), strict=True)
    )
    assert keys == sorted({key for run in runs for key in run})


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=8),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.integers(0, 7), max_size=3),
)
def test_content_is_the_same_after_any_duplicates_and_any_number_of_compactions(
    tmp_path_factory: pytest.TempPathFactory, writes: list, compact_after: list[int]
) -> None:
    store = ScoreStore.open_or_create(str(tmp_path_factory.mktemp("s")), THREE)
    expected_logits, expected_outcomes = {}, set()
    for i, write in enumerate(writes):
        for name, number in write:
            store.write_logits("d", "m", frames(name, number, 2))
        rows = [outcome(name, number) for name, number in write]
        nothing = outcome(
            "gone", number, content_id=None, span="all", member_ids=[], status="failed"
        )
        store.write_outcomes([*rows, nothing])
        if i in compact_after:
            compact_store(store)
    expected_logits, expected_outcomes = logits_in(store), outcomes_in(store)
    compact_store(store)
    assert logits_in(store) == expected_logits
    assert outcomes_in(store) == expected_outcomes
    assert len(store.outcomes()) == len(expected_outcomes)


def append_many(uri: str, num_clips: int, started: "multiprocessing.synchronize.Event") -> None:
    store = ScoreStore.open(uri)
    for i in range(num_clips):
        store.write_logits("d", "m", frames(f"clip-{i}", 0, 20))
        store.write_outcomes([outcome(f"clip-{i}")])
        started.set()


def test_nothing_that_is_appended_or_read_during_compactions_is_lost(store: ScoreStore) -> None:
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    appender = context.Process(target=append_many, args=(store.uri, 60, started))
    appender.start()
    assert started.wait(120)
    num_seen = 0
    while appender.is_alive():
        compact_store(store)
        seen = set(store.outcomes(["clip_id"])["clip_id"].to_pylist())
        assert len(seen) >= num_seen
        num_seen = len(seen)
    appender.join()
    assert appender.exitcode == 0
    compact_store(store)
    assert len(outcomes_in(store)) == len(store.outcomes()) == 60
    assert len(logits_in(store)) == 60 * 20


def test_a_reader_never_misses_a_row_while_files_are_merged(store: ScoreStore) -> None:
    fill(store)
    expected = outcomes_in(store)
    is_over = threading.Event()

    def churn() -> None:
        for _ in range(30):
            store.write_outcomes([outcome("a")])
            compact_store(store)
        is_over.set()

    merger = threading.Thread(target=churn)
    merger.start()
    while not is_over.is_set():
        assert outcomes_in(store) == expected
    merger.join()


KILLED_AT_EACH_STEP = """
import os, shutil, sys
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.store_compact import compact_store
from dsdi_ray.storage.store_files import StoreFiles

os.fsync = lambda descriptor: None  # what is killed is a process, not the machine

def compact_until(step, copy):
    num_steps = 0

    def count(event, args):
        nonlocal num_steps
        is_write = event == "open" and "_writing-part" in str(args[0])
        if (is_write or event in ("os.rename", "os.remove")) and copy in str(args[0]):
            num_steps += 1
            if num_steps == step:
                os._exit(9)

    def delete_one_by_one(self, paths, delete=StoreFiles.delete):
        for path in paths:  # Arrow's own deletions raise no audit event
            count("os.remove", (path,))
            delete(self, [path])

    StoreFiles.delete = delete_one_by_one
    sys.addaudithook(count)
    compact_store(ScoreStore.open(copy))
    os._exit(0)

source, copies = sys.argv[1:]
for step in range(1, 100):
    copy = f"{copies}/{step}"
    shutil.copytree(source, copy)
    child = os.fork()  # before Arrow has any thread
    if child == 0:
        compact_until(step, copy)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
"""


def test_a_kill_at_any_step_loses_nothing_and_the_next_compaction_mends_it(
    store: ScoreStore, tmp_path: Path
) -> None:
    store.write_logits("d", "m", frames("z", 0, 5))
    compact_store(store)
    fill(store, "ba")
    logits, outcomes = logits_in(store), outcomes_in(store)
    command = [sys.executable, "-c", KILLED_AT_EACH_STEP, store.uri, str(tmp_path / "copies")]
    subprocess.run(command, check=True)
    copies = [ScoreStore.open(str(copy)) for copy in (tmp_path / "copies").iterdir()]
    num_left = set()
    for copy in copies:
        num_left.add(len(parts(copy)))
        assert logits_in(copy) == logits
        assert outcomes_in(copy) == outcomes
        compact_store(copy)
        assert logits_in(copy) == logits
        assert outcomes_in(copy) == outcomes
        assert len(parts(copy)) == len(parts(copy, "outcomes")) == 1
        assert len(copy.outcomes()) == len(outcomes)
    assert num_left == set(range(1, 7)), "killed before, between and after all deletions"


def test_one_maintenance_command_at_a_time(store: ScoreStore) -> None:
    fill(store)
    with (
        sole_maintenance(store.files, "dsdi store gc"),
        pytest.raises(StoreError, match="runs on it"),
    ):
        compact_store(store)
    compact_store(store)


def test_the_claim_of_a_process_that_is_gone_is_passed_over(store: ScoreStore) -> None:
    import socket

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    claim = {"command": "c", "host": socket.gethostname(), "pid": gone.pid, "started_at": "then"}
    store.files.write_bytes("_maintenance-1.json", json.dumps(claim).encode())
    compact_store(store)
    assert not list(Path(store.uri).glob("_maintenance-*"))


def test_a_source_that_vanished_ends_the_merge_before_anything_is_deleted(
    store: ScoreStore,
) -> None:
    fill(store)
    folder = store_merge.folders_of(store)[1]
    listed = store.files.parts(folder.path)
    Path(listed[3].path).unlink()
    before = parts(store)
    with pytest.raises(StoreError, match="cannot be merged"):
        store_merge.merge_parts(store.files, folder, listed)
    assert parts(store) == before
    assert not store.files.temporaries()


def test_a_damaged_file_ends_the_merge_and_is_named(store: ScoreStore) -> None:
    fill(store)
    damaged = Path(parts(store)[0])
    damaged.write_bytes(damaged.read_bytes()[:-20])
    before = parts(store)
    with pytest.raises(StoreError, match=f"{damaged.name}: cannot be read"):
        compact_store(store)
    assert parts(store) == before
