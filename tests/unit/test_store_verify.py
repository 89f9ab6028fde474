"""Verification: a sound store has no problem, and what is wrong is named."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsdi_ray.storage import frame_count
from dsdi_ray.storage.score_rows import frame_rows, logits_schema
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.store_compact import compact_store
from dsdi_ray.storage.store_verify import verify_store
from dsdi_ray.taxonomy import taxonomy_from_dict

TWO = taxonomy_from_dict({"name": "two", "classes": ["flood", "fire"]})
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def frames(content_id: str, num_frames: int, value: float = 0.0) -> pa.Table:
    return frame_rows(
        content_ids=[content_id],
        spans=["all"],
        frame_indices=[np.arange(num_frames, dtype=np.int32)],
        times_seconds=[np.arange(num_frames) / 10],
        logits=[np.full((num_frames, 2), value, np.float32)],
    )


def outcome(clip_id: str, num_frames: int, **changes: object) -> dict[str, object]:
    return {
        "clip_id": clip_id,
        "uri": f"/{clip_id}.mp4",
        "content_id": clip_id,
        "span": "all",
        "decode_id": "d",
        "member_ids": ["m1", "m2"],
        "status": "ok",
        "frames_scored": num_frames,
        "finished_at": NOON,
        **changes,
    }


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    """Two clips, two members."""
    store = ScoreStore.open_or_create(str(tmp_path / "s"), TWO)
    for clip, num_frames in (("a", 5), ("b", 7)):
        for member in ("m1", "m2"):
            store.write_logits("d", member, frames(clip, num_frames))
        store.write_outcomes([outcome(clip, num_frames)])
    return store


def test_a_sound_store_has_no_problem(store: ScoreStore) -> None:
    store.write_outcomes(
        [
            outcome("bad", 0, status="failed"),
            outcome("gone", 0, status="failed", content_id=None, member_ids=[]),
        ]
    )
    found = verify_store(store)
    assert found.num_problems == 0
    assert (found.num_parts, found.num_outcomes, found.num_pairs, found.num_logits_rows) == (
        7, 4, 4, 24,
    )  # fmt: skip
    assert verify_store(ScoreStore.open(store.uri)) == found


def test_duplicates_and_orphans_are_counted_and_harmless(store: ScoreStore) -> None:
    store.write_logits("d", "m1", frames("a", 4))
    store.write_logits("d", "m2", frames("cut off", 3))
    store.write_logits("d", "m3", frames("a", 2))
    Path(store.uri, "outcomes/_writing-1.parquet").write_bytes(b"torn")
    found = verify_store(store)
    assert found.num_problems == 0
    assert (found.num_duplicate_rows, found.num_orphan_rows, found.num_temporaries) == (4, 5, 1)
    assert found.orphans == [
        "logits/decode_id=d/member_id=m2: cut off all",
        "logits/decode_id=d/member_id=m3: a all",
    ]
    compact_store(store)
    assert verify_store(store).num_duplicate_rows == 0


def test_logits_that_an_outcome_claims_and_the_store_lacks_are_named(store: ScoreStore) -> None:
    (file, *_) = [
        path
        for path in store.logits_files("d", ["m2"])
        if pq.read_table(path, partitioning=None)["content_id"][0].as_py() == "b"
    ]
    Path(file).unlink()
    store.write_outcomes([outcome("c", 9, member_ids=["m9"])])
    first, second = verify_store(store).problems
    assert (first.kind, first.where) == ("frames", "b (b all)")
    assert first.message == (
        "member m2 under settings d: the outcome says 7 frames, the store has 0"
    )
    assert second.where == "c (c all)"


def test_frames_are_counted_the_same_in_several_passes(
    store: ScoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_outcomes([outcome("c", 9)])
    store.write_logits("d", "m1", frames("a", 3))
    whole = verify_store(store)
    monkeypatch.setattr(frame_count, "_ROWS_PER_PASS", 5)
    monkeypatch.setattr(frame_count, "_ROWS_PER_LOOKUP", 2)
    assert verify_store(store) == whole
    assert whole.num_problems == 2


def test_damaged_files_are_named_and_the_rest_is_checked(store: ScoreStore) -> None:
    damaged = [
        Path(store.logits_files("d", ["m1"])[0]),
        Path(store.files.parts("outcomes")[0].path),
    ]
    for file in damaged:
        content = bytearray(file.read_bytes())
        content[-6:] = b"\xff" * 6
        file.write_bytes(content)
    found = verify_store(store)
    named = {p.where for p in found.problems if p.kind == "damaged"}
    assert named == {str(file) for file in damaged}
    assert found.num_outcomes == 1


def test_logits_that_are_not_finite_are_a_problem(store: ScoreStore) -> None:
    store.write_logits("d", "m1", frames("c", 3, np.nan))
    (problem,) = verify_store(store).problems
    assert (problem.kind, problem.message) == (
        "not finite", "3 rows with logits that are not finite",
    )  # fmt: skip


def test_a_file_of_another_schema_is_a_problem(store: ScoreStore) -> None:
    store.files.write_part("logits/decode_id=d/member_id=m1", logits_schema(3).empty_table())
    store.files.write_part("outcomes", pa.table({"clip_id": ["a"]}))
    problems = {p.kind: p.message for p in verify_store(store).problems}
    assert set(problems) == {"schema"}
    assert len(verify_store(store).problems) == 2
