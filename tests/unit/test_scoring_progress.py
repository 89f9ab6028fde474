"""The progress line of a scoring job: frames as they come, clips as they are complete."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dsdi_ray.distributed.score_actor import SCORED_SCHEMA
from dsdi_ray.distributed.scoring_pool import ScoringPool
from dsdi_ray.distributed.scoring_progress import ScoringProgress
from dsdi_ray.distributed.scoring_times import ScoringTimes
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.manifest import manifest_table
from dsdi_ray.storage.score_plan import plan_scoring
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.score_writer import ScoreWriter
from dsdi_ray.taxonomy import taxonomy_from_dict

ONE = taxonomy_from_dict({"name": "one", "classes": ["flood"]})
MEMBERS = ["a", "b"]


class Job:
    """Two clips of 10 s, at 10 frames a second."""

    def __init__(self, folder: Path) -> None:
        store = ScoreStore.open_or_create(str(folder / "store"), ONE)
        names = {"media": "video", "duration_seconds": 10.0, "source_fps": 25.0}
        manifest = manifest_table(
            {"clip_id": i, "uri": f"/{i}.mp4", "content_id": i, **names} for i in ("x", "y")
        )
        plan = plan_scoring(manifest, store=store, member_ids=MEMBERS, decode_id="d")
        pool = ScoringPool(num_decoders=1, num_scorers=1, use_gpu=False, micro_batch=8)
        self.times = ScoringTimes(pool)
        self.writer = ScoreWriter(store, plan, decode_id="d", fps=10.0)
        self.progress = ScoringProgress(plan, self.writer, self.times, fps=10.0)

    def add(self, *rows: dict) -> None:
        batch = pa.Table.from_pylist(list(rows), schema=SCORED_SCHEMA)
        self.times.add(batch)
        self.progress.update(self.writer.add(batch))

    @property
    def shown(self) -> tuple[int, int]:
        return self.progress._bar.n, self.progress._bar.total


def chunk(work_id: int, place: int, member: str) -> dict:
    return {
        "work_id": work_id,
        "chunk_index": place,
        "member_id": member,
        "frame_indices": list(range(40)),
        "times_seconds": [0.0] * 40,
        "logits": np.zeros(40, np.float32).tobytes(),
    }


def outcome(work_id: int, *, status: str, num_frames: int, num_chunks: int) -> dict:
    facts = {"status": status, "frames_expected": 100, "frames_scored": num_frames}
    facts |= {"attempts": 1, "seconds": 0.1, "num_chunks": num_chunks}
    return {"work_id": work_id, "outcome": facts}


def test_frames_count_once_for_all_members_while_their_clip_is_on_its_way(tmp_path: Path) -> None:
    job = Job(tmp_path)
    assert job.shown == (0, 200)
    job.add(chunk(0, 0, "a"), chunk(0, 0, "b"))
    assert job.shown == (40, 200)
    job.add(chunk(0, 1, "a"))
    assert job.shown == (80, 200)
    assert "0/2 clips" in job.progress._bar.postfix


def test_what_a_clip_came_to_puts_the_total_right(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.add(chunk(0, 0, "a"), chunk(0, 0, "b"))
    job.add(outcome(0, status="partial", num_frames=40, num_chunks=1))
    assert job.shown == (40, 140)
    job.add(chunk(1, 0, "a"), outcome(1, status="failed", num_frames=0, num_chunks=0))
    assert job.shown == (40, 40)
    assert "2/2 clips" in job.progress._bar.postfix
    assert "1 failed" in job.progress._bar.postfix


def test_a_short_job_shows_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(tmp_path)
    for work_id in (0, 1):
        job.add(outcome(work_id, status="failed", num_frames=0, num_chunks=0))
    job.progress.close()
    assert "2/2 clips" in capsys.readouterr().err.splitlines()[-1]


def test_a_log_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(total=3, description="Scoring", unit="clip") as bar:
        bar.update(3)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Scoring:   0%")
    assert last.startswith("Scoring: 100%")
    assert "\r" not in first + last
