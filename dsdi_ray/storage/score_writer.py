"""Appends a scoring job's results to the store: logits first, then the outcomes that vouch for them."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dsdi_ray.errors import StoreError
from dsdi_ray.storage.score_plan import ScoringPlan
from dsdi_ray.storage.score_rows import OUTCOME_SCHEMA, frame_rows
from dsdi_ray.storage.score_store import ScoreStore

_MAX_BYTES = 128 * 2**20  # that wait to be written
_OUTCOME_BYTES = 4 * 2**10  # of one, in memory
_MIN_SECONDS, _MAX_SECONDS = 5.0, 60.0  # between writes
_SHARE_OF_JOB = 0.01
_CLIP = ["clip_id", "uri", "content_id", "span"]
_FAILED = {
    "member_ids": [],
    "status": "failed",
    "frames_expected": 0,
    "frames_scored": 0,
    "attempts": 1,
    "seconds": 0.0,
    "seconds_covered": 0.0,
}


@dataclass
class _Progress:
    """A work item, and how much of it has arrived."""

    content_id: str
    span: str
    member_ids: Sequence[str]
    chunks: set[tuple[int, str]] = field(default_factory=set)
    num_frames: int = 0
    outcome: Mapping[str, Any] | None = None


class _Chunk(NamedTuple):
    """A member's logits of some frames of a work item."""

    item: _Progress
    frame_indices: NDArray[np.int32]
    times_seconds: NDArray[np.float64]
    logits: bytes

    @property
    def num_bytes(self) -> int:
        return len(self.logits) + self.frame_indices.nbytes + self.times_seconds.nbytes


def seconds_between_writes(job_seconds: float) -> float:
    """How long a job that runs for so long may keep what it scored to itself.

    A hundredth of its time, so that a long job writes few files and repeats little of itself after
    a crash: 5 seconds at least, a minute at most.
    """
    return min(_MAX_SECONDS, max(_MIN_SECONDS, _SHARE_OF_JOB * job_seconds))


class ScoreWriter:
    """Collects scored chunks in any order and writes a few large files instead of many small ones.

    A clip's outcome is written once all of its logits are: after a crash, at most the clips in
    flight and those since the last write are scored again, see :func:`seconds_between_writes`. As
    a context it also writes what it has when an error or Ctrl-C ends the job.
    """

    def __init__(self, store: ScoreStore, plan: ScoringPlan, *, decode_id: str, fps: float) -> None:
        self._store = store
        self._plan = plan
        self._decode_id = decode_id
        self._fps = fps
        self._work = plan.work.select(["content_id", "span", "member_ids"])
        self._clips = plan.manifest.select(_CLIP)
        self._is_done = np.zeros(len(plan.work), bool)
        self._arriving: dict[int, _Progress] = {}
        self._chunks: defaultdict[str, list[_Chunk]] = defaultdict(list)
        self._num_bytes = 0
        self._outcomes: list[dict[str, Any]] = []
        self._begun_at = self._flushed_at = time.monotonic()
        self.num_clips = 0
        self.num_frames = 0
        self.num_failed = 0
        self.decoders: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(exc, StoreError):  # then it would fail again, after minutes
            self.flush()

    def record_without_decoding(self) -> None:
        """Write the outcomes of clips that cannot be read or whose content is scored already."""
        clips = self._plan.manifest.take(self._plan.unreadable)
        told = {name: clips[name] for name in _CLIP} | {"error": clips["probe_error"]}
        self._store.write_outcomes(self._stamped({**told, **_FAILED}, len(clips)))
        known = self._plan.known
        self._store.write_outcomes(
            self._stamped(dict(zip(known.column_names, known.columns, strict=True)), len(known))
        )

    @property
    def num_frames_arriving(self) -> int:
        """Frames of clips that are not complete, scored by one of the members at least."""
        return sum(item.num_frames for item in self._arriving.values())

    def add(self, scored: pa.Table) -> list[int]:
        """Take rows of the scoring actors: logits of chunks, and outcomes of clips.

        Returns:
            Work items, by work_id, that are now complete.
        """
        complete = []
        for row in scored.to_pylist():
            if self._is_done[row["work_id"]]:
                continue
            progress = self._progress(row["work_id"])
            if row["outcome"] is not None:
                progress.outcome = row["outcome"]
            else:
                self._add_chunk(row, progress)
            if self._complete(row["work_id"], progress):
                complete.append(row["work_id"])
        now = time.monotonic()
        is_due = now - self._flushed_at > seconds_between_writes(now - self._begun_at)
        if is_due or self._num_bytes > _MAX_BYTES:
            self.flush()
        return complete

    def undone(self) -> pa.Array:
        """Work items, by work_id, that have no outcome yet."""
        return pa.array(np.flatnonzero(~self._is_done))

    def give_up(self, work_ids: pa.Array, *, reason: str) -> int:
        """Record work items as failed, by the fault of any of their members.

        Returns:
            How many.
        """
        outcome = {**_FAILED, "error": reason, "decoder": None, "num_chunks": 0}
        for work_id in work_ids.to_pylist():
            progress = self._progress(work_id)
            progress.outcome = outcome | {"member_ids": progress.member_ids}
            self._complete(work_id, progress)
        return len(work_ids)

    def flush(self) -> None:
        """Write what is buffered: logits, then outcomes."""
        num_classes = len(self._store.taxonomy)
        for member_id, chunks in self._chunks.items():
            rows = frame_rows(
                content_ids=[chunk.item.content_id for chunk in chunks],
                spans=[chunk.item.span for chunk in chunks],
                frame_indices=[chunk.frame_indices for chunk in chunks],
                times_seconds=[chunk.times_seconds for chunk in chunks],
                logits=[
                    np.frombuffer(chunk.logits, np.float32).reshape(-1, num_classes)
                    for chunk in chunks
                ],
            )
            self._store.write_logits(self._decode_id, member_id, rows)
        self._store.write_outcomes(self._outcomes)
        self._chunks.clear()
        self._outcomes.clear()
        self._num_bytes = 0
        self._flushed_at = time.monotonic()

    def _progress(self, work_id: int) -> _Progress:
        if work_id not in self._arriving:
            self._arriving[work_id] = _Progress(**self._work.slice(work_id, 1).to_pylist()[0])
        return self._arriving[work_id]

    def _add_chunk(self, row: Mapping[str, Any], progress: _Progress) -> None:
        key = (row["chunk_index"], row["member_id"])
        if key in progress.chunks:  # a task that was repeated after its actor died
            return
        progress.chunks.add(key)
        if row["member_id"] == progress.member_ids[0]:
            progress.num_frames += len(row["frame_indices"])
        chunk = _Chunk(
            item=progress,
            frame_indices=np.array(row["frame_indices"], np.int32),
            times_seconds=np.array(row["times_seconds"], np.float64),
            logits=row["logits"],
        )
        self._chunks[row["member_id"]].append(chunk)
        self._num_bytes += chunk.num_bytes

    def _complete(self, work_id: int, progress: _Progress) -> bool:
        outcome = progress.outcome
        if outcome is None or len(progress.chunks) < outcome["num_chunks"] * len(
            progress.member_ids
        ):
            return False
        del self._arriving[work_id]
        self._is_done[work_id] = True
        is_failed = outcome["status"] == "failed"
        told = {
            "member_ids": outcome.get("member_ids") or [] if is_failed else progress.member_ids,
            "decode_id": self._decode_id,
            "seconds_covered": outcome["frames_scored"] / self._fps,
            "finished_at": datetime.now(UTC),
        }
        for row in self._plan.clips_of_work[work_id].as_py():
            self._outcomes.append({**outcome, **self._clips.slice(row, 1).to_pylist()[0], **told})
            self._num_bytes += _OUTCOME_BYTES
        self.num_clips += 1
        self.num_frames += outcome["frames_scored"]
        self.num_failed += is_failed
        self.decoders[outcome["decoder"] or "none"] += 1
        return True

    def _stamped(self, columns: Mapping[str, Any], num_rows: int) -> pa.Table:
        """Outcomes of this job, as of now, of columns and of values that hold for all rows."""
        given = {**columns, "decode_id": self._decode_id, "finished_at": datetime.now(UTC)}
        arrays = [
            values
            if isinstance(values := given.get(field.name), pa.ChunkedArray)
            else pa.array([values] * num_rows, field.type)
            for field in OUTCOME_SCHEMA
        ]
        return pa.Table.from_arrays(arrays, schema=OUTCOME_SCHEMA)
