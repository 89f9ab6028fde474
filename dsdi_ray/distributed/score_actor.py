"""The scoring actor of the scoring pipeline: holds the members, turns frames into logits."""

import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.util.annotations import RayDeprecationWarning

from dsdi_ray.distributed.cluster_event import ClusterEvent
from dsdi_ray.distributed.decode_actor import OUTCOME_TYPE
from dsdi_ray.distributed.network_libraries import skip_last_collection
from dsdi_ray.errors import ResourceError

SCORED_SCHEMA = pa.schema(
    [
        ("work_id", pa.int64()),
        ("chunk_index", pa.int32()),
        ("member_id", pa.string()),
        ("frame_indices", pa.list_(pa.int32())),
        ("times_seconds", pa.list_(pa.float64())),
        ("logits", pa.large_binary()),
        ("outcome", OUTCOME_TYPE),
        ("fetch_seconds", pa.float64()),
        ("decode_seconds", pa.float64()),
        ("score_seconds", pa.float64()),
    ]
)


class NotFiniteError(FloatingPointError):
    """A member gives logits that are not finite; whatever else scores the clip is not to blame."""

    def __init__(self, member_id: str) -> None:
        super().__init__(f"member {member_id} gives logits that are not finite")
        self.member_id = member_id


class ScoreFrames:
    """Scoring actor: holds the members; a chunk of frames becomes one row of logits per member.

    An error is the outcome of its clip where the members still score another picture. Where they do
    not, as after an error of the GPU, the process ends: Ray starts it again, and its clips are done
    again.

    Args:
        paths: Bundle of each member, by its id.
        micro_batch: Frames per forward pass.
        device: ``cpu`` or ``cuda``.
        num_threads: Forward passes beside each other on CPUs; None for one after the other.
        compile_networks: Whether ``torch.compile`` makes code for the networks first.
        is_ready: What to set once the members have scored full batches; None for nothing.

    Raises:
        DataError: If a member cannot be loaded.
        ResourceError: If this actor was killed before any scoring actor was ready.
    """

    def __init__(
        self,
        paths: Mapping[str, str],
        *,
        micro_batch: int,
        device: str,
        num_threads: int | None,
        compile_networks: bool,
        is_ready: ClusterEvent | None = None,
    ) -> None:
        if is_ready is not None:
            _refuse_to_start_again(is_ready)
        # Here alone: who submits a job needs no network library, which takes seconds to load.
        import torch

        from dsdi_ray.distributed.members import load_member
        from dsdi_ray.vision.cpu_threads import LoneThreads
        from dsdi_ray.vision.uploads import Uploads

        skip_last_collection()
        self._micro_batch, self._threads = micro_batch, None
        if num_threads is not None and compile_networks:  # which several threads cannot do at once
            torch.set_num_threads(num_threads)
        elif num_threads is not None:
            self._threads = LoneThreads(num_threads)
        self._members = {
            member_id: load_member(path, device=device, compile_network=compile_networks)
            for member_id, path in paths.items()
        }
        self._upload = partial(Uploads, device=torch.device(device), micro_batch=micro_batch)
        # A full pass in each thread: too little memory shows before the first clip is fetched.
        self._try_members(num_pictures=micro_batch * (num_threads or 1))
        if is_ready is not None:
            is_ready.set()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for i in range(len(batch)):
            facts = batch.drop_columns("frames").slice(i, 1).to_pylist()[0]
            try:
                rows = list(self._rows(facts, batch["frames"][i]))
            except Exception as error:
                self._end_if_broken()
                outcome = _failure(error, facts["member_ids"])
                rows = [{"work_id": facts["work_id"], "outcome": outcome}]
            rows[0] |= {name: facts[name] for name in ("fetch_seconds", "decode_seconds")}
            yield pa.Table.from_pylist(rows, schema=SCORED_SCHEMA)

    def _rows(
        self, chunk: Mapping[str, Any], pixels: pa.LargeBinaryScalar
    ) -> Iterator[dict[str, Any]]:
        if chunk["outcome"] is not None:
            yield {"work_id": chunk["work_id"], "outcome": chunk["outcome"]}
            return
        side = chunk["size_px"]
        frames = np.frombuffer(pixels.as_buffer(), np.uint8).reshape(-1, side, side, 3)
        pictures = frames if self._threads else self._upload(frames)
        shared = ("work_id", "chunk_index", "frame_indices", "times_seconds")
        for member_id in chunk["member_ids"]:
            started = time.perf_counter()
            logits = self._members[member_id].logits(
                pictures, micro_batch=self._micro_batch, threads=self._threads
            )
            if not np.isfinite(logits).all():
                raise NotFiniteError(member_id)
            yield {
                **{name: chunk[name] for name in shared},
                "member_id": member_id,
                "logits": logits.tobytes(),
                "score_seconds": time.perf_counter() - started,
            }

    def _try_members(self, *, num_pictures: int) -> None:
        for member in self._members.values():
            member.logits(
                np.zeros((num_pictures, member.input_px, member.input_px, 3), np.uint8),
                micro_batch=self._micro_batch,
                threads=self._threads,
            )

    def _end_if_broken(self) -> None:
        try:
            self._try_members(num_pictures=2)  # of one a compiler makes a special case
        except Exception:
            traceback.print_exc()
            os._exit(1)


def _refuse_to_start_again(is_ready: ClusterEvent) -> None:
    """Ray starts an actor that is killed as it starts again and again; Ray Data counts what raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # of what Ray itself uses there
        is_restarted = ray.get_runtime_context().was_current_actor_reconstructed
    if is_restarted and not is_ready.is_set():
        raise ResourceError(
            "a scoring process was killed while it loaded the members or tried them on full batches; "
            "give it more memory, or take fewer --scorers or a smaller --batch-size"
        )


def _failure(error: Exception, member_ids: Sequence[str]) -> dict[str, Any]:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return {
        "status": "failed",
        "error": f"cannot be scored: {reason}",
        "is_transient": not isinstance(error, NotFiniteError),
        "member_ids": [error.member_id] if isinstance(error, NotFiniteError) else member_ids,
        "frames_expected": 0,
        "frames_scored": 0,
        "attempts": 1,
        "seconds": 0.0,
        "num_chunks": 0,
    }
