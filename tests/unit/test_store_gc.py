"""Garbage collection: what no kept ensemble uses goes, and no outcome vouches for what is gone."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dsdi_ray.errors import DataError, StoreError
from dsdi_ray.storage.manifest import manifest_table
from dsdi_ray.storage.score_plan import plan_scoring
from dsdi_ray.storage.score_rows import frame_rows
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.store_claim import sole_maintenance
from dsdi_ray.storage.store_files import StoreFiles
from dsdi_ray.storage.store_gc import Kept, collect_garbage
from dsdi_ray.storage.store_verify import verify_store
from dsdi_ray.taxonomy import taxonomy_from_dict

TWO = taxonomy_from_dict({"name": "two", "classes": ["flood", "fire"]})
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MEMBERS = ("m1", "m2")


def frames(content_id: str, num_frames: int = 3) -> pa.Table:
    return frame_rows(
        content_ids=[content_id],
        spans=["all"],
        frame_indices=[np.arange(num_frames, dtype=np.int32)],
        times_seconds=[np.arange(num_frames) / 10],
        logits=[np.zeros((num_frames, 2), np.float32)],
    )


def score(store: ScoreStore, clip_id: str, decode_id: str = "d") -> None:
    for member in MEMBERS:
        store.write_logits(decode_id, member, frames(clip_id))
    outcome = {
        "clip_id": clip_id,
        "uri": f"/{clip_id}.mp4",
        "content_id": clip_id,
        "span": "all",
        "decode_id": decode_id,
        "member_ids": list(MEMBERS),
        "status": "ok",
        "frames_scored": 3,
        "finished_at": NOON,
    }
    store.write_outcomes([outcome])


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    store = ScoreStore.open_or_create(str(tmp_path / "s"), TWO)
    score(store, "a")
    score(store, "b")
    return store


def pairs(store: ScoreStore, decode_id: str = "d") -> set[tuple[str, str]]:
    mine = [o for o in store.outcomes().to_pylist() if o["decode_id"] == decode_id]
    return {(o["content_id"], member) for o in mine for member in o["member_ids"]}


def test_members_that_no_kept_ensemble_uses_go_with_their_claims(store: ScoreStore) -> None:
    summary = collect_garbage(store, Kept(member_ids={"m2", "not scored yet"}))
    assert (summary.num_claims_dropped, summary.num_parts_dropped) == (2, 2)
    assert summary.bytes_dropped > 0
    assert pairs(store) == {("a", "m2"), ("b", "m2")}
    assert not store.logits_files("d", ["m1"])
    assert len(store.logits_files("d", ["m2"])) == 2
    assert verify_store(store).num_problems == 0


def test_failed_outcomes_stay_as_they_are(store: ScoreStore) -> None:
    failed = {"clip_id": "bad", "content_id": "bad", "span": "all", "decode_id": "d"}
    store.write_outcomes([{**failed, "member_ids": ["m1"], "status": "failed"}])
    assert collect_garbage(store, Kept(member_ids={"m2"})).num_claims_dropped == 2
    assert pairs(store) == {("a", "m2"), ("b", "m2"), ("bad", "m1")}


def test_what_is_dropped_is_scored_again_when_it_is_asked_for(store: ScoreStore) -> None:
    collect_garbage(store, Kept(member_ids={"m2"}))
    clip = {"clip_id": "a", "uri": "/a.mp4", "media": "video", "content_id": "a"}
    plan = plan_scoring(manifest_table([clip]), store=store, member_ids=MEMBERS, decode_id="d")
    assert plan.work["member_ids"].to_pylist() == [["m1"]]


def test_settings_that_are_not_kept_go(store: ScoreStore) -> None:
    score(store, "a", "other")
    collect_garbage(store, Kept(member_ids=MEMBERS, decode_ids={"d"}))
    assert not store.logits_files("other", MEMBERS)
    assert pairs(store, "other") == set()
    assert len(pairs(store)) == 4


def test_a_dry_run_says_the_same_and_changes_nothing(store: ScoreStore) -> None:
    before = sorted(Path(store.uri).rglob("*"))
    dry = collect_garbage(store, Kept(member_ids={"m1"}), dry_run=True)
    assert sorted(Path(store.uri).rglob("*")) == before
    real = collect_garbage(store, Kept(member_ids={"m1"}))
    assert (dry.num_claims_dropped, dry.num_parts_dropped, dry.bytes_dropped) == (
        real.num_claims_dropped, real.num_parts_dropped, real.bytes_dropped,
    )  # fmt: skip


def test_keeping_nothing_that_the_store_has_is_refused(store: ScoreStore) -> None:
    with pytest.raises(DataError, match="all would go"):
        collect_garbage(store, Kept(member_ids={"m3"}))
    assert len(pairs(store)) == 4


def test_orphans_go_once_they_are_a_day_old(store: ScoreStore) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    both = pa.concat_tables([frames("cut off", 5), frames("a")])
    store.write_logits("d", "m1", both)
    store.write_logits("d", "m1", frames("cut off", 4))
    kept = Kept(member_ids=MEMBERS)
    assert collect_garbage(store, kept).num_orphan_rows == 0
    assert collect_garbage(store, kept, now=later).num_orphan_rows == 9
    after = verify_store(store)
    assert (after.num_orphan_rows, after.num_problems) == (0, 0)
    assert collect_garbage(store, kept, now=later).num_orphan_rows == 0


def test_temporary_files_go_once_they_are_a_day_old(store: ScoreStore) -> None:
    old, new = (Path(store.uri, f"outcomes/_writing-{age}.parquet") for age in ("old", "new"))
    for file in (old, new):
        file.write_bytes(b"torn")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    summary = collect_garbage(store, Kept(member_ids=MEMBERS))
    assert (summary.num_temporaries, old.exists(), new.exists()) == (1, False, True)


def test_a_crash_anywhere_leaves_no_outcome_that_vouches_for_absent_logits(
    store: ScoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        """Nothing catches it."""

    delete = StoreFiles.delete
    for num_deletions in range(20):
        remaining = [num_deletions]

        def crash_later(self: StoreFiles, paths, remaining: list[int] = remaining) -> None:
            for path in paths:
                if not remaining[0] and "_maintenance" not in path:
                    raise Crash
                remaining[0] -= "_maintenance" not in path
                delete(self, [path])

        monkeypatch.setattr(StoreFiles, "delete", crash_later)
        try:
            collect_garbage(store, Kept(member_ids={"m2"}))
        except Crash:
            monkeypatch.setattr(StoreFiles, "delete", delete)
            assert verify_store(store).num_problems == 0
            continue
        break
    assert num_deletions > 2
    assert pairs(store) == {("a", "m2"), ("b", "m2")}
    assert not store.logits_files("d", ["m1"])


def test_not_while_a_compaction_runs(store: ScoreStore) -> None:
    with sole_maintenance(store.files, "dsdi store compact"), pytest.raises(StoreError):
        collect_garbage(store, Kept(member_ids={"m2"}))
    assert len(pairs(store)) == 4
