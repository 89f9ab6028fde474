"""The two actors of the scoring pipeline: decode clips into frames, score frames into logits."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dsdi_ray.distributed.members import load_member
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings
from dsdi_ray.vision.decode_process import DecodeProcess

_OUTCOME_TYPE = pa.struct(
    [
        ("status", pa.string()),
        ("error", pa.string()),
        ("note", pa.string()),
        ("decoder", pa.string()),
        ("frames_expected", pa.int32()),
        ("frames_scored", pa.int32()),
        ("attempts", pa.int32()),
        ("seconds", pa.float64()),
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
        ("outcome", _OUTCOME_TYPE),
    ]
)
_SCORED_SCHEMA = pa.schema(
    [
        ("work_id", pa.int64()),
        ("chunk_index", pa.int32()),
        ("member_id", pa.string()),
        ("frame_indices", pa.list_(pa.int32())),
        ("times_seconds", pa.list_(pa.float64())),
        ("logits", pa.large_binary()),
        ("outcome", _OUTCOME_TYPE),
    ]
)


class DecodeClips:
    """Decode actor: a work item becomes rows of frame chunks and a last row with its outcome."""

    def __init__(self, settings: DecodeSettings, input_px: Mapping[str, int]) -> None:
        self._process = DecodeProcess(settings)
        self._input_px = input_px

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for item in batch.to_pylist():
            source = ClipSource(
                uri=item["uri"],
                media=item["media"],
                start_seconds=item["start_seconds"],
                end_seconds=item["end_seconds"],
            )
            sizes = sorted({self._input_px[m] for m in item["member_ids"]})
            num_chunks = 0
            for part in self._process.decode(source, sizes):
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


class ScoreFrames:
    """Scoring actor: holds the members; a chunk of frames becomes one row of logits per member."""

    def __init__(
        self, paths: Mapping[str, str], micro_batch: int, device: str, num_threads: int | None
    ) -> None:
        if num_threads is not None:  # Ray gives an actor one thread per CPU that it reserves
            torch.set_num_threads(num_threads)
        self._members = {m: load_member(Path(p), device=device) for m, p in paths.items()}
        self._micro_batch = micro_batch

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for i in range(len(batch)):
            yield pa.Table.from_pylist(list(self._rows(batch, i)), schema=_SCORED_SCHEMA)

    def _rows(self, batch: pa.Table, i: int) -> Iterator[dict[str, Any]]:
        row = batch.select(["work_id", "chunk_index", "member_ids", "outcome"]).slice(i, 1)
        item = row.to_pylist()[0]
        if item["outcome"] is not None:
            yield {"work_id": item["work_id"], "outcome": item["outcome"]}
            return
        times = batch["times_seconds"][i].values
        frames = {
            p["size_px"].as_py(): np.frombuffer(p["frames"].as_buffer(), np.uint8).reshape(
                len(times), p["size_px"].as_py(), p["size_px"].as_py(), 3
            )
            for p in batch["pixels"][i]
        }
        for member_id in item["member_ids"]:
            member = self._members[member_id]
            logits = member.logits(frames[member.input_px], micro_batch=self._micro_batch)
            yield {
                "work_id": item["work_id"],
                "chunk_index": item["chunk_index"],
                "member_id": member_id,
                "frame_indices": batch["frame_indices"][i].values.to_numpy(),
                "times_seconds": times.to_numpy(),
                "logits": logits.tobytes(),
            }
