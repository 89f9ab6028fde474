"""When scores are written: soon at first, rarely in a long job, never more at once than fits."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dsdi_ray.errors import StoreError
from dsdi_ray.storage import score_writer
from dsdi_ray.storage.manifest import manifest_table
from dsdi_ray.storage.score_plan import plan_scoring
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.score_writer import ScoreWriter, seconds_between_writes
from dsdi_ray.taxonomy import taxonomy_from_dict

TWO = taxonomy_from_dict({"name": "two", "classes": ["flood", "fire"]})
OUTCOME = {"status": "ok", "decoder": "pyav", "frames_expected": 3, "frames_scored": 3}
OUTCOME |= {"attempts": 1, "seconds": 0.1, "num_chunks": 1}


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore.open_or_create(str(tmp_path / "store"), TWO)


def writer_of(store: ScoreStore, num_clips: int) -> ScoreWriter:
    manifest = manifest_table(
        {"clip_id": f"c{i}", "uri": f"/c{i}.mp4", "media": "video", "content_id": f"{i}"}
        for i in range(num_clips)
    )
    plan = plan_scoring(manifest, store=store, member_ids=["m"], decode_id="d")
    return ScoreWriter(store, plan, decode_id="d", fps=10.0)


def scored(work_id: int, num_frames: int = 3) -> pa.Table:
    """A clip's only chunk of frames, and its outcome."""
    chunk = {
        "chunk_index": 0,
        "member_id": "m",
        "frame_indices": list(range(num_frames)),
        "times_seconds": [i / 10 for i in range(num_frames)],
        "logits": np.zeros(2 * num_frames, np.float32).tobytes(),
        "outcome": None,
    }
    rows = [chunk, {**dict.fromkeys(chunk), "outcome": OUTCOME}]
    return pa.Table.from_pylist([{"work_id": work_id, **row} for row in rows])


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("job", "between"), [(0, 5), (500, 5), (3600, 36), (1e6, 60)])
def test_the_longer_a_job_the_rarer_it_writes(job: float, between: float) -> None:
    assert seconds_between_writes(job) == between


def test_an_hour_of_scoring_is_few_files_none_of_more_than_its_hundredth(
    store: ScoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, written_at = Clock(), []
    monkeypatch.setattr(score_writer, "time", clock)
    writer = writer_of(store, 3600)
    monkeypatch.setattr(ScoreStore, "write_outcomes", lambda *_: written_at.append(clock.now))
    monkeypatch.setattr(ScoreStore, "write_logits", lambda *_: None)
    for work_id in range(3600):
        clock.now += 1
        writer.add(scored(work_id))
    assert len(written_at) < 300, "720 where it is every 5 seconds"
    gaps = np.diff([1000.0, *written_at])
    assert gaps[0] <= 6
    assert gaps.max() <= 37


def test_no_more_waits_than_fits_in_memory(
    store: ScoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = 1000  # 8 bytes of logits each, 12 of index and time
    monkeypatch.setattr(score_writer, "_MAX_BYTES", 2.5 * 20 * frames)
    monkeypatch.setattr(score_writer, "_OUTCOME_BYTES", 0)
    writer = writer_of(store, 4)
    for work_id, num_recorded in enumerate([0, 0, 3, 3]):
        writer.add(scored(work_id, frames))
        assert len(store.outcomes()) == num_recorded


def test_clips_without_a_frame_count_too(
    store: ScoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_writer, "_MAX_BYTES", 2 * score_writer._OUTCOME_BYTES)
    writer = writer_of(store, 3)
    failed = {**OUTCOME, "status": "failed", "num_chunks": 0}
    for work_id in range(3):
        writer.add(pa.Table.from_pylist([{"work_id": work_id, "outcome": failed}]))
    assert len(store.outcomes()) == 3


def test_a_job_that_is_interrupted_keeps_what_it_scored(store: ScoreStore) -> None:
    def interrupted() -> None:
        with writer_of(store, 2) as writer:
            writer.add(scored(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.latest_outcomes()["clip_id"].to_pylist() == ["c1"]


def test_a_store_that_cannot_be_written_is_not_tried_once_more(store: ScoreStore) -> None:
    def refused() -> None:
        with writer_of(store, 2) as writer:
            writer.add(scored(1))
            raise StoreError("full")

    with pytest.raises(StoreError, match="full"):
        refused()
    assert len(store.outcomes()) == 0
