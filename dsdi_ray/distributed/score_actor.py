"""The scoring actor of the scoring pipeline: holds the members, turns frames into logits."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dsdi_ray.distributed.decode_actor import OUTCOME_TYPE
from dsdi_ray.distributed.members import load_member

_SCORED_SCHEMA = pa.schema(
    [
        ("work_id", pa.int64()),
        ("chunk_index", pa.int32()),
        ("member_id", pa.string()),
        ("frame_indices", pa.list_(pa.int32())),
        ("times_seconds", pa.list_(pa.float64())),
        ("logits", pa.large_binary()),
        ("outcome", OUTCOME_TYPE),
    ]
)


class ScoreFrames:
    """Scoring actor: holds the members; a chunk of frames becomes one row of logits per member."""

    def __init__(
        self, paths: Mapping[str, str], micro_batch: int, device: str, num_threads: int | None
    ) -> None:
        if num_threads is not None:  # Ray gives an actor one thread per CPU that it reserves
            torch.set_num_threads(num_threads)
        self._members = {m: load_member(p, device=device) for m, p in paths.items()}
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
