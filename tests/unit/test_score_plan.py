"""What a scoring job has to do: nothing that the store has, everything that it lacks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dsdi_ray.storage.manifest import manifest_table
from dsdi_ray.storage.score_plan import ScoringPlan, plan_scoring
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.score_writer import ScoreWriter
from dsdi_ray.taxonomy import taxonomy_from_dict

TWO = taxonomy_from_dict({"name": "two", "classes": ["flood", "fire"]})


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore.open_or_create(str(tmp_path / "store"), TWO)


def clips(*ids: str, **columns: object) -> pa.Table:
    return manifest_table(
        {
            "clip_id": i,
            "uri": f"/{i}.mp4",
            "media": "video",
            "content_id": f"content-{i}",
            "duration_seconds": 1800.0,
            **columns,
        }
        for i in ids
    )


def plan(manifest: pa.Table, store: ScoreStore, *members: str, **options: bool) -> ScoringPlan:
    return plan_scoring(manifest, store=store, member_ids=members, decode_id="d", **options)


def scored_rows(plan: ScoringPlan, work_id: int, *, status: str = "ok", num_frames: int = 3):
    """What the scoring actors send for one work item: a chunk per member, then the outcome."""
    members = plan.work["member_ids"][work_id].as_py()
    logits = np.arange(num_frames * 2, dtype=np.float32)
    outcome = {
        "status": status,
        "error": None if status == "ok" else "broken",
        "note": None,
        "decoder": "decord" if status == "ok" else None,
        "frames_expected": num_frames,
        "frames_scored": num_frames if status == "ok" else 0,
        "attempts": 1,
        "seconds": 0.1,
        "num_chunks": 1 if status == "ok" else 0,
    }
    chunks = [
        {
            "work_id": work_id,
            "chunk_index": 0,
            "member_id": m,
            "frame_indices": list(range(num_frames)),
            "times_seconds": [k / 10 for k in range(num_frames)],
            "logits": logits.tobytes(),
            "outcome": None,
        }
        for m in members
    ]
    last = {
        "work_id": work_id,
        "chunk_index": None,
        "member_id": None,
        "frame_indices": None,
        "times_seconds": None,
        "logits": None,
        "outcome": outcome,
    }
    return [*(chunks if status == "ok" else []), last]


def do(plan: ScoringPlan, store: ScoreStore, **status: str) -> ScoreWriter:
    writer = ScoreWriter(store, plan, decode_id="d", fps=10.0)
    writer.record_without_decoding()
    for work_id in range(plan.num_work_items):
        uri = plan.work["uri"][work_id].as_py()
        rows = scored_rows(plan, work_id, status=status.get(Path(uri).stem, "ok"))
        writer.add(pa.Table.from_pylist(rows))
    writer.flush()
    return writer


def test_an_empty_store_lacks_everything(store: ScoreStore) -> None:
    first = plan(clips("a", "b"), store, "m1", "m2")
    assert (first.num_pairs_missing, first.num_pairs_present, first.num_work_items) == (4, 0, 2)
    assert first.footage_hours == pytest.approx(1.0)


def test_what_is_scored_is_not_scored_again(store: ScoreStore) -> None:
    do(plan(clips("a", "b"), store, "m1"), store)
    again = plan(clips("a", "b"), store, "m1")
    assert (again.num_pairs_missing, again.num_pairs_present, again.num_work_items) == (0, 2, 0)
    assert not again.known
    assert not again.unreadable


def test_a_new_member_is_the_only_one_computed(store: ScoreStore) -> None:
    do(plan(clips("a", "b"), store, "m1"), store)
    more = plan(clips("a", "b", "c"), store, "m1", "m2")
    by_uri = dict(
        zip(more.work["uri"].to_pylist(), more.work["member_ids"].to_pylist(), strict=True)
    )
    assert by_uri == {"/a.mp4": ["m2"], "/b.mp4": ["m2"], "/c.mp4": ["m1", "m2"]}


def test_changed_content_is_new_work(store: ScoreStore) -> None:
    do(plan(clips("a"), store, "m1"), store)
    assert plan(clips("a", content_id="changed"), store, "m1").num_work_items == 1


def test_other_decode_settings_are_new_work(store: ScoreStore) -> None:
    do(plan(clips("a"), store, "m1"), store)
    other = plan_scoring(clips("a"), store=store, member_ids=["m1"], decode_id="e")
    assert other.num_work_items == 1


def test_copies_of_a_file_are_decoded_once_and_both_have_an_outcome(store: ScoreStore) -> None:
    same = pa.concat_tables([clips("a", content_id="x"), clips("b", content_id="x")])
    first = plan(same, store, "m1")
    assert first.num_work_items == 1
    do(first, store)
    assert store.latest_outcomes()["clip_id"].to_pylist() == ["a", "b"]


def test_a_copy_that_arrives_later_needs_no_decoding(store: ScoreStore) -> None:
    do(plan(clips("a"), store, "m1"), store)
    later = plan(clips("z", content_id="content-a"), store, "m1")
    assert later.num_work_items == 0
    do(later, store)
    outcomes = {o["clip_id"]: o for o in store.latest_outcomes().to_pylist()}
    assert outcomes["z"]["status"] == "ok"
    assert outcomes["z"]["uri"] == "/z.mp4"
    assert not plan(clips("z", content_id="content-a"), store, "m1").known


def test_failed_clips_are_tried_again_only_when_asked(store: ScoreStore) -> None:
    do(plan(clips("a", "bad"), store, "m1"), store, bad="failed")
    assert plan(clips("a", "bad"), store, "m1").num_work_items == 0
    retry = plan(clips("a", "bad"), store, "m1", retry_failed=True)
    assert retry.work["uri"].to_pylist() == ["/bad.mp4"]
    do(retry, store)
    assert store.latest_outcomes()["status"].to_pylist() == ["ok", "ok"]


def test_an_unreadable_file_is_an_outcome_and_written_once(store: ScoreStore) -> None:
    gone = clips("gone", content_id=None, probe_error="cannot be read: No such file")
    do(plan(gone, store, "m1"), store)
    (outcome,) = store.latest_outcomes().to_pylist()
    assert (outcome["status"], outcome["error"]) == ("failed", "cannot be read: No such file")
    assert not plan(gone, store, "m1").unreadable


def test_parts_of_a_file_are_work_of_their_own(store: ScoreStore) -> None:
    parts = pa.concat_tables(
        [
            clips("p1", content_id="x", start_seconds=0.0, end_seconds=5.0),
            clips("p2", content_id="x", start_seconds=5.0, end_seconds=10.0),
        ]
    )
    assert plan(parts, store, "m1").work["span"].to_pylist() == ["0-5", "5-10"]


def test_an_outcome_waits_for_all_logits_of_its_clip(store: ScoreStore) -> None:
    todo = plan(clips("a"), store, "m1", "m2")
    writer = ScoreWriter(store, todo, decode_id="d", fps=10.0)
    *chunks, last = scored_rows(todo, 0)
    assert writer.add(pa.Table.from_pylist([last, chunks[0]])) == 0
    writer.flush()
    assert len(store.outcomes()) == 0
    assert plan(clips("a"), store, "m1", "m2").num_pairs_missing == 2
    assert writer.add(pa.Table.from_pylist([chunks[1]])) == 1
    writer.flush()
    assert store.latest_outcomes()["member_ids"].to_pylist() == [["m1", "m2"]]


def test_a_chunk_that_arrives_twice_counts_once(store: ScoreStore) -> None:
    import pyarrow.parquet as pq

    todo = plan(clips("a"), store, "m1")
    writer = ScoreWriter(store, todo, decode_id="d", fps=10.0)
    chunk, last = scored_rows(todo, 0)
    assert writer.add(pa.Table.from_pylist([chunk, chunk, last])) == 1
    writer.flush()
    (file,) = store.logits_files("d", ["m1"])
    assert pq.read_table(file, partitioning=None)["frame_index"].to_pylist() == [0, 1, 2]
