"""The decode actor of the scoring pipeline; it loads no network library, so it starts fast."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dsdi_ray.distributed.cluster_event import ClusterEvent
from dsdi_ray.errors import FetchError
from dsdi_ray.storage.local_copies import LocalCopies
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings, FrameChunk
from dsdi_ray.vision.decode_process import DecodeProcess
from dsdi_ray.vision.failures import short_reason

T = TypeVar("T")

OUTCOME_TYPE = pa.struct(
    [
        ("status", pa.string()),
        ("error", pa.string()),
        ("note", pa.string()),
        ("decoder", pa.string()),
        ("frames_expected", pa.int32()),
        ("frames_scored", pa.int32()),
        ("attempts", pa.int32()),
        ("seconds", pa.float64()),
        ("is_transient", pa.bool_()),
        ("member_ids", pa.list_(pa.string())),  # to blame for a failure; null where decoding is
        ("num_chunks", pa.int32()),
    ]
)
_FACTS_SCHEMA = pa.schema(
    [
        ("work_id", pa.int64()),
        ("chunk_index", pa.int32()),
        ("frame_indices", pa.list_(pa.int32())),
        ("times_seconds", pa.list_(pa.float64())),
        ("member_ids", pa.list_(pa.string())),
        ("size_px", pa.int32()),
        ("outcome", OUTCOME_TYPE),
        ("fetch_seconds", pa.float64()),
        ("decode_seconds", pa.float64()),
    ]
)


class DecodeClips:
    """Decode actor: a work item becomes rows of frame chunks and a last row with its outcome.

    A chunk has a row per input size, for the members of that size: its pictures, ``[T, S, S, 3]``
    bytes, are in the column ``frames``.

    Args:
        settings: How frames are sampled.
        input_px: Input size of each member, by its id.
        starts_after: What must have happened before it takes work; None for nothing.
    """

    def __init__(
        self,
        settings: DecodeSettings,
        input_px: Mapping[str, int],
        *,
        starts_after: ClusterEvent | None = None,
    ) -> None:
        self._process = DecodeProcess(settings)
        self._copies = LocalCopies()
        self._input_px = input_px
        if starts_after is not None:
            starts_after.wait()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for item in batch.to_pylist():
            try:
                yield from self._rows(item)
            except Exception as problem:  # of this node, as a scratch folder that cannot be made
                reason = f"cannot be decoded: {short_reason(problem)}"
                yield _row(_outcome(item, _not_now(reason), num_chunks=0))

    def _rows(self, item: Mapping[str, Any]) -> Iterator[pa.Table]:
        started = time.perf_counter()
        try:
            path = self._copies.get(item["uri"], content_id=item["content_id"])
        except FetchError as problem:
            parts: Iterator[FrameChunk | DecodeOutcome] = iter([_not_now(str(problem))])
        else:
            parts = self._decode(item, path)
        fetch_seconds = time.perf_counter() - started
        num_chunks = 0
        for part, decode_seconds in _timed(parts):
            if isinstance(part, DecodeOutcome):
                times = {"decode_seconds": decode_seconds, "fetch_seconds": fetch_seconds}
                yield _row(_outcome(item, part, num_chunks=num_chunks) | times)
                continue
            num_chunks += 1
            row = {"work_id": item["work_id"], "decode_seconds": decode_seconds}
            for size_px, frames in part.pixels.items():
                of_size = [m for m in item["member_ids"] if self._input_px[m] == size_px]
                row |= {
                    "chunk_index": part.chunk_index,
                    "frame_indices": part.frame_indices,
                    "times_seconds": part.times_seconds,
                    "member_ids": of_size,
                    "size_px": size_px,
                }
                yield _row(row, frames)
                row["decode_seconds"] = None  # counted once

    def _decode(self, item: Mapping[str, Any], path: Path) -> Iterator[FrameChunk | DecodeOutcome]:
        source = ClipSource(
            uri=str(path),
            media=item["media"],
            start_seconds=item["start_seconds"],
            end_seconds=item["end_seconds"],
        )
        return self._process.decode(source, sorted({self._input_px[m] for m in item["member_ids"]}))


def _not_now(reason: str) -> DecodeOutcome:
    """A failure that may pass."""
    return DecodeOutcome(status="failed", error=reason, is_transient=True)


def _outcome(item: Mapping[str, Any], outcome: DecodeOutcome, *, num_chunks: int) -> dict[str, Any]:
    return {"work_id": item["work_id"], "outcome": {**asdict(outcome), "num_chunks": num_chunks}}


def _row(facts: Mapping[str, Any], frames: NDArray[np.uint8] | None = None) -> pa.Table:
    """A row of the actor's output; pictures are not copied."""
    if frames is None:
        column = pa.nulls(1, pa.large_binary())
    else:
        ends = pa.py_buffer(np.array([0, frames.nbytes]))
        column = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), 1, [None, ends, pa.py_buffer(frames)]
        )
    return pa.Table.from_pylist([facts], schema=_FACTS_SCHEMA).append_column("frames", column)


def _timed(parts: Iterator[T]) -> Iterator[tuple[T, float]]:
    """Each part with the seconds that it took; what the consumer does meanwhile does not count."""
    while True:
        started = time.perf_counter()
        try:
            part = next(parts)
        except StopIteration:
            return
        yield part, time.perf_counter() - started
