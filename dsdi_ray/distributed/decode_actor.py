"""The decode actor of the scoring pipeline; it loads no network library, so it starts fast."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from dsdi_ray.errors import FetchError
from dsdi_ray.storage.local_copies import LocalCopies
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings, FrameChunk
from dsdi_ray.vision.decode_process import DecodeProcess

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
        ("num_chunks", pa.int32()),
    ]
)
_CHUNK_SCHEMA = pa.schema(
    [
        ("work_id", pa.int64()),
        ("member_ids", pa.list_(pa.string())),
        ("chunk_index", pa.int32()),
        ("frame_indices", pa.list_(pa.int32())),
        ("times_seconds", pa.list_(pa.float64())),
        ("pixels", pa.list_(pa.struct([("size_px", pa.int32()), ("frames", pa.large_binary())]))),
        ("outcome", OUTCOME_TYPE),
        ("fetch_seconds", pa.float64()),
        ("decode_seconds", pa.float64()),
    ]
)


class DecodeClips:
    """Decode actor: a work item becomes rows of frame chunks and a last row with its outcome."""

    def __init__(self, settings: DecodeSettings, input_px: Mapping[str, int]) -> None:
        self._process = DecodeProcess(settings)
        self._copies = LocalCopies()
        self._input_px = input_px

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for item in batch.to_pylist():
            started = time.perf_counter()
            try:
                path = self._copies.get(item["uri"], content_id=item["content_id"])
            except FetchError as problem:
                parts: Iterator[FrameChunk | DecodeOutcome] = iter(
                    [DecodeOutcome(status="failed", error=str(problem), is_transient=True)]
                )
            else:
                parts = self._decode(item, path)
            fetch_seconds = time.perf_counter() - started
            num_chunks = 0
            for part, decode_seconds in _timed(parts):
                row = {"work_id": item["work_id"], "member_ids": item["member_ids"]}
                row |= {"decode_seconds": decode_seconds}
                if isinstance(part, DecodeOutcome):
                    told = {**asdict(part), "num_chunks": num_chunks}
                    row |= {"outcome": told, "fetch_seconds": fetch_seconds}
                else:
                    num_chunks += 1
                    row |= {
                        "chunk_index": part.chunk_index,
                        "frame_indices": part.frame_indices,
                        "times_seconds": part.times_seconds,
                        # A copy: of a memoryview pyarrow 26 never lets go.
                        "pixels": [
                            {"size_px": size, "frames": frames.tobytes()}
                            for size, frames in part.pixels.items()
                        ],
                    }
                yield pa.Table.from_pylist([row], schema=_CHUNK_SCHEMA)

    def _decode(self, item: Mapping[str, Any], path: Path) -> Iterator[FrameChunk | DecodeOutcome]:
        source = ClipSource(
            uri=str(path),
            media=item["media"],
            start_seconds=item["start_seconds"],
            end_seconds=item["end_seconds"],
        )
        return self._process.decode(source, sorted({self._input_px[m] for m in item["member_ids"]}))


def _timed(parts: Iterator[T]) -> Iterator[tuple[T, float]]:
    """Each part with the seconds that it took; what the consumer does meanwhile does not count."""
    while True:
        started = time.perf_counter()
        try:
            part = next(parts)
        except StopIteration:
            return
        yield part, time.perf_counter() - started
