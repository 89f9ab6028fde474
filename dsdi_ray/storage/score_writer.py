"""Appends a scoring job's results to the store: logits first, then the outcomes that vouch for them."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from dsdi_ray.storage.score_plan import ScoringPlan
from dsdi_ray.storage.score_store import ScoreStore, frame_rows

_FLUSH_BYTES = 16 * 2**20
_FLUSH_SECONDS = 5.0
_NOTHING_DECODED = {"decoder": None, "frames_expected": 0, "frames_scored": 0, "note": None}


@dataclass
class _Progress:
    """How much of a work item has arrived."""

    chunks: set[tuple[int, str]] = field(default_factory=set)
    outcome: Mapping[str, Any] | None = None


class ScoreWriter:
    """Collects scored chunks in any order and writes a few large files instead of many small ones.

    A clip's outcome is written once all of its logits are: after a crash, at most the clips in
    flight and those of the last few seconds are scored again.
    """

    def __init__(self, store: ScoreStore, plan: ScoringPlan, *, decode_id: str) -> None:
        self._store = store
        self._plan = plan
        self._decode_id = decode_id
        self._work = plan.work.select(["content_id", "span", "member_ids"]).to_pylist()
        self._arriving: defaultdict[int, _Progress] = defaultdict(_Progress)
        self._chunks: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self._num_bytes = 0
        self._outcomes: list[dict[str, Any]] = []
        self._flushed_at = time.monotonic()
        self.num_clips = 0
        self.num_frames = 0
        self.num_failed = 0
        self.decoders: Counter[str] = Counter()

    def record_without_decoding(self) -> None:
        """Write the outcomes of clips that cannot be read or whose content is scored already."""
        for row in self._plan.unreadable:
            error = self._plan.manifest["probe_error"][row].as_py()
            failed = {"status": "failed", "error": error, "attempts": 1, "seconds": 0.0}
            self._add_outcome(row, {**_NOTHING_DECODED, **failed, "member_ids": []})
        for row, outcome in self._plan.known.items():
            self._add_outcome(row, outcome)
        self.flush()

    def add(self, scored: pa.Table) -> int:
        """Take rows of the scoring actors: logits of chunks, and outcomes of clips.

        Returns:
            Work items that are now complete.
        """
        num_complete = 0
        for row in scored.to_pylist():
            progress = self._arriving[row["work_id"]]
            if row["outcome"] is not None:
                progress.outcome = row["outcome"]
            else:
                self._add_chunk(row, progress)
            num_complete += self._complete(row["work_id"], progress)
        is_due = time.monotonic() - self._flushed_at > _FLUSH_SECONDS
        if is_due or self._num_bytes > _FLUSH_BYTES:
            self.flush()
        return num_complete

    def flush(self) -> None:
        """Write what is buffered: logits, then outcomes."""
        num_classes = len(self._store.taxonomy)
        for member_id, chunks in self._chunks.items():
            rows = frame_rows(
                content_ids=[self._work[c["work_id"]]["content_id"] for c in chunks],
                spans=[self._work[c["work_id"]]["span"] for c in chunks],
                frame_indices=[np.array(c["frame_indices"], np.int32) for c in chunks],
                times_seconds=[np.array(c["times_seconds"], np.float64) for c in chunks],
                logits=[
                    np.frombuffer(c["logits"], np.float32).reshape(-1, num_classes) for c in chunks
                ],
            )
            self._store.write_logits(self._decode_id, member_id, rows)
        self._store.write_outcomes(self._outcomes)
        self._chunks.clear()
        self._outcomes.clear()
        self._num_bytes = 0
        self._flushed_at = time.monotonic()

    def _add_chunk(self, row: Mapping[str, Any], progress: _Progress) -> None:
        chunk = (row["chunk_index"], row["member_id"])
        if chunk in progress.chunks:  # a task that was repeated after its actor died
            return
        progress.chunks.add(chunk)
        self._chunks[row["member_id"]].append(row)
        self._num_bytes += len(row["logits"])

    def _complete(self, work_id: int, progress: _Progress) -> bool:
        outcome = progress.outcome
        item = self._work[work_id]
        if outcome is None or len(progress.chunks) < outcome["num_chunks"] * len(
            item["member_ids"]
        ):
            return False
        del self._arriving[work_id]
        for row in self._plan.clips_of_work[work_id]:
            self._add_outcome(row, {**outcome, "member_ids": item["member_ids"]})
        self.num_clips += 1
        self.num_frames += outcome["frames_scored"]
        self.num_failed += outcome["status"] == "failed"
        self.decoders[outcome["decoder"] or "none"] += 1
        return True

    def _add_outcome(self, row: int, outcome: Mapping[str, Any]) -> None:
        clip = self._plan.manifest.select(["clip_id", "uri", "content_id", "span"]).slice(row, 1)
        kept = {k: v for k, v in outcome.items() if k != "num_chunks"}
        stamp = {"decode_id": self._decode_id, "finished_at": datetime.now(UTC)}
        self._outcomes.append({**kept, **clip.to_pylist()[0], **stamp})
