"""The decode actor of the scoring pipeline; it loads no network library, so it starts fast."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from dsdi_ray.errors import FetchError
from dsdi_ray.storage.local_copies import LocalCopies
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings, FrameChunk
from dsdi_ray.vision.decode_process import DecodeProcess

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
            num_chunks = 0
            for part in self._parts(item):
                row = {"work_id": item["work_id"], "member_ids": item["member_ids"]}
                if isinstance(part, DecodeOutcome):
                    row |= {"outcome": {**asdict(part), "num_chunks": num_chunks}}
                else:
                    num_chunks += 1
                    row |= {
                        "chunk_index": part.chunk_index,
                        "frame_indices": part.frame_indices,
                        "times_seconds": part.times_seconds,
                        "pixels": [
                            {"size_px": size, "frames": frames.tobytes()}
                            for size, frames in part.pixels.items()
                        ],
                    }
                yield pa.Table.from_pylist([row], schema=_CHUNK_SCHEMA)

    def _parts(self, item: Mapping[str, Any]) -> Iterator[FrameChunk | DecodeOutcome]:
        started = time.monotonic()
        try:
            path = self._copies.get(item["uri"], content_id=item["content_id"])
        except Exception as problem:  # one bad clip never ends a job
            kind = "" if isinstance(problem, FetchError) else f"{type(problem).__name__}: "
            yield DecodeOutcome(
                status="failed",
                error=f"{kind}{problem}",
                seconds=time.monotonic() - started,
                is_transient=True,
            )
            return
        source = ClipSource(
            uri=str(path),
            media=item["media"],
            start_seconds=item["start_seconds"],
            end_seconds=item["end_seconds"],
        )
        sizes = sorted({self._input_px[m] for m in item["member_ids"]})
        yield from self._process.decode(source, sizes)
