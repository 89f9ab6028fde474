"""The score store: what is appended is read back, and half-written work is never taken for done."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from dsdi_ray.errors import DataError, StoreError, TaxonomyError
from dsdi_ray.storage.outcome_scan import claimed_frames, known_contents
from dsdi_ray.storage.score_rows import frame_rows, span_key
from dsdi_ray.storage.score_store import ScoreStore, newest_per_clip
from dsdi_ray.taxonomy import Taxonomy, load_taxonomy, taxonomy_from_dict

THREE = taxonomy_from_dict({"name": "three", "classes": ["flood", "fire", "road"]})
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def outcome(clip_id: str, **changes: object) -> dict[str, object]:
    return {
        "clip_id": clip_id,
        "uri": f"/{clip_id}.mp4",
        "content_id": f"content-{clip_id}",
        "span": "all",
        "decode_id": "d",
        "member_ids": ["m1", "m2"],
        "status": "ok",
        "finished_at": NOON,
        **changes,
    }


def rows_of(content_id: str, num_frames: int, value: float) -> pa.Table:
    return frame_rows(
        content_ids=[content_id],
        spans=["all"],
        frame_indices=[np.arange(num_frames, dtype=np.int32)],
        times_seconds=[np.arange(num_frames) / 10],
        logits=[np.full((num_frames, 3), value, np.float32)],
    )


def test_a_store_is_begun_once_and_opened_again(tmp_path: Path) -> None:
    created = ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    assert ScoreStore.open_or_create(str(tmp_path / "s"), THREE).taxonomy == created.taxonomy
    assert ScoreStore.open(str(tmp_path / "s")).taxonomy == THREE


def test_a_store_of_another_taxonomy_is_refused(tmp_path: Path) -> None:
    ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    with pytest.raises(TaxonomyError, match="cannot be mixed"):
        ScoreStore.open_or_create(str(tmp_path / "s"), load_taxonomy("ladi_v2a"))


def test_a_folder_that_is_no_store_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no score store at"):
        ScoreStore.open(str(tmp_path))


def test_spans_have_stable_keys() -> None:
    assert span_key(None, None) == "all"
    assert span_key(12.5, 15.0) == "12.5-15"
    assert span_key(None, 3.0) == "0-3"
    assert span_key(7.0, None) == "7-end"
    assert span_key(36000.125, 36000.25) == "36000.125-36000.25"
    assert span_key(0.0, 1e7) == "0-10000000"


def test_outcomes_that_are_damaged_are_an_error_that_says_where_to_look(tmp_path: Path) -> None:
    store = ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    store.write_outcomes([outcome("a")])
    (part,) = (tmp_path / "s" / "outcomes").iterdir()
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"s/outcomes: cannot be read: .*`dsdi store verify`"):
        store.outcomes()


def test_the_newest_outcome_of_a_clip_counts(tmp_path: Path) -> None:
    store = ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    store.write_outcomes([outcome("a", status="failed"), outcome("b")])
    store.write_outcomes([outcome("a", finished_at=NOON + timedelta(seconds=1))])
    newest = store.latest_outcomes()
    assert newest["clip_id"].to_pylist() == ["a", "b"]
    assert newest["status"].to_pylist() == ["ok", "ok"]
    assert len(store.outcomes()) == 3


def test_what_fails_for_another_member_is_a_note_beside_what_was_scored(tmp_path: Path) -> None:
    store = ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    later = {"finished_at": NOON + timedelta(seconds=1), "error": "no server", "status": "failed"}
    later |= {"member_ids": [], "frames_expected": 0, "frames_scored": 0}
    cut = outcome("b", status="partial", error="cut off", note="by PyAV", frames_scored=2)
    store.write_outcomes([outcome("a"), outcome("c"), cut, outcome("d")])
    store.write_outcomes([outcome("a") | later, outcome("b") | later])
    store.write_outcomes([outcome("c") | later | {"content_id": "changed"}])
    told = {o["clip_id"]: o for o in store.latest_outcomes().to_pylist()}
    assert list(told) == ["a", "b", "c", "d"]
    assert [told[c]["status"] for c in "abcd"] == ["ok", "partial", "failed", "ok"]
    assert told["a"]["note"] == "a later attempt failed: no server"
    assert told["b"]["note"] == "by PyAV; a later attempt failed: no server"
    assert (told["b"]["error"], told["b"]["frames_scored"]) == ("cut off", 2)
    assert told["d"]["note"] is None


def test_newest_per_clip_of_nothing_is_nothing(tmp_path: Path) -> None:
    store = ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    assert len(newest_per_clip(store.outcomes())) == 0


def test_claims_are_of_ok_and_partial_clips_under_the_settings(tmp_path: Path) -> None:
    store = ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    rows = [
        outcome("a", frames_scored=5),
        outcome("b", status="partial", member_ids=["m2"], frames_scored=3),
        outcome("c", status="failed"),
        outcome("d", decode_id="other"),
        outcome("a2", content_id="content-a", frames_scored=5),  # a copy of a: the same pair
        outcome("gone", content_id=None, status="failed", member_ids=[]),
    ]
    store.write_outcomes(rows)
    contents = store.read_outcomes(known_contents)
    assert [key.split("\n")[0] for key in contents.to_pylist()] == [
        "content-a", "content-b", "content-c", "content-d",
    ]  # fmt: skip
    frames = store.read_outcomes(lambda d: claimed_frames(d, contents, ["m1", "m2", "m3"], "d"))
    assert frames.tolist() == [[5, 5, -1], [-1, 3, -1], [-1, -1, -1], [-1, -1, -1]]


def test_files_still_being_written_are_not_read(tmp_path: Path) -> None:
    store = ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    store.write_outcomes([outcome("a")])
    store.write_logits("d", "m1", rows_of("content-a", 2, 0.5))
    torn = b"not yet a parquet file"
    (tmp_path / "s/outcomes/_writing-1.parquet").write_bytes(torn)
    (tmp_path / "s/logits/decode_id=d/member_id=m1/_writing-1.parquet").write_bytes(torn)
    assert len(store.outcomes()) == 1
    assert len(store.logits_files("d", ["m1"])) == 1


def test_the_store_is_plain_sql_in_duckdb(tmp_path: Path) -> None:
    store = ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    store.write_logits("d", "m1", rows_of("content-a", 4, 1.0))
    store.write_logits("d", "m2", rows_of("content-a", 4, 3.0))
    store.write_outcomes([outcome("a")])
    found = duckdb.sql(f"""
        SELECT o.clip_id, max(1 / (1 + exp(-l.logits[2]))) AS fire, count(*) AS num_rows
        FROM read_parquet('{tmp_path}/s/logits/**/*.parquet', hive_partitioning = true) l
        JOIN read_parquet('{tmp_path}/s/outcomes/*.parquet') o USING (content_id, span)
        WHERE l.member_id IN ('m1', 'm2') GROUP BY o.clip_id
    """).fetchall()
    assert found == [("a", pytest.approx(1 / (1 + np.exp(-3.0)), abs=1e-6), 8)]


def test_logits_survive_the_way_through_the_store_bit_for_bit(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    store = ScoreStore.open_or_create(str(tmp_path / "s"), THREE)
    logits = np.random.default_rng(0).normal(0, 8, (70, 3)).astype(np.float32)
    rows = frame_rows(
        content_ids=["x", "y"],
        spans=["all", "0-3"],
        frame_indices=[np.arange(64, dtype=np.int32), np.arange(6, dtype=np.int32)],
        times_seconds=[np.arange(64) / 10, np.arange(6) / 10],
        logits=[logits[:64], logits[64:]],
    )
    store.write_logits("d", "m1", rows)
    (file,) = store.logits_files("d", ["m1"])
    back = pq.read_table(file, partitioning=None)
    assert np.array_equal(np.array(back["logits"].to_pylist(), np.float32), logits)
    assert back["content_id"].to_pylist() == ["x"] * 64 + ["y"] * 6
    assert back["span"].to_pylist()[63:65] == ["all", "0-3"]


def test_taxonomy_of_a_store_keeps_all_classes(tmp_path: Path) -> None:
    ladi: Taxonomy = load_taxonomy()
    ScoreStore.open_or_create(str(tmp_path / "s"), ladi)
    assert ScoreStore.open(str(tmp_path / "s")).taxonomy == ladi
