"""Group the stored frames by clip and pool them (paper section 2.5): a Ray Data job.

Its workers import this module, which must stay free of torch.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import DataContext, Dataset
from ray.data.datasource import Partitioning

from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.method.alignment import align_members
from dsdi_ray.method.fusion import clip_scores
from dsdi_ray.storage.score_store import ScoreStore

KEY = ["content_id", "span"]
LOGITS_LOST = "its logits are lost (see `dsdi store verify`)"
_POOLED_SCHEMA = pa.schema(
    [
        ("system", pa.int32()),
        ("scores", pa.list_(pa.float64())),
        ("peak_seconds", pa.list_(pa.float64())),
        ("content_id", pa.string()),
        ("span", pa.string()),
    ]
)
_ROWS_PER_PARTITION = 2_000_000
_ROWS_PER_READ = 500_000  # some 100 MB


def pool_clips(
    store: ScoreStore,
    contents: pa.Table,
    *,
    decode_id: str,
    weights: Sequence[Mapping[str, float]],
    pool: str,
    order: str,
) -> pa.Table:
    """Group the stored frames by clip and pool them with each of several ensembles.

    Args:
        store: The store.
        contents: The (content_id, span) to pool.
        decode_id: Decode settings.
        weights: Weight per member_id of each ensemble.
        pool: As in :func:`rank_archive`.
        order: As in :func:`rank_archive`.

    Returns:
        Columns system (place in ``weights``), content_id, span, scores (list, ``[C]``),
        peak_seconds (list, ``[C]``); no row where there is no frame that every member of the system
        has scored.
    """
    member_ids = sorted({member_id for system in weights for member_id in system})
    outcomes = store.outcomes([*KEY, "decode_id", "status", "frames_scored"])
    is_stored = (pc.field("decode_id") == decode_id) & (pc.field("status") != "failed")
    stored = outcomes.filter(is_stored).group_by(KEY).aggregate([("frames_scored", "max")])
    num_rows = (pc.sum(stored["frames_scored_max"]).as_py() or 0) * len(member_ids)
    files = store.logits_files(decode_id, member_ids)
    if not files:
        return _POOLED_SCHEMA.empty_table()
    with _reading_context():
        rows = _stored_rows(files, store, num_rows)
        if len(contents) < len(stored):
            rows = rows.map_batches(
                _keep_wanted,
                fn_kwargs={"wanted": ray.put(contents)},
                batch_format="pyarrow",
                batch_size=None,
            )
        num_partitions = max(1, -(-num_rows // _ROWS_PER_PARTITION))
        pooled = rows.groupby(KEY, num_partitions=num_partitions).map_groups(
            _pool_clip,
            fn_kwargs={"weights": [dict(of) for of in weights], "pool": pool, "order": order},
            batch_format="pyarrow",
        )
        batches = list(pooled.iter_batches(batch_size=None, batch_format="pyarrow"))
    return pa.concat_tables(batches) if batches else _POOLED_SCHEMA.empty_table()


@contextmanager
def _reading_context() -> Iterator[None]:
    """The newer Parquet reader starts 32 actors first: 462 small files on 2 cores took 29 s, not 7."""
    context = DataContext.get_current().copy()
    context.use_datasource_v2 = False
    context.enable_progress_bars = sys.stderr.isatty()  # Ray's own, which would clutter a log
    with DataContext.current(context):
        yield


def _stored_rows(files: Sequence[str], store: ScoreStore, num_rows: int) -> Dataset:
    """The frames of files of logits; a store holds many small ones until it is compacted."""
    num_cpus = int(cluster_resources().num_cpus)
    # Folders above the store may be named like columns too.
    partitioning = Partitioning("hive", base_dir=store.files.root, filesystem=store.filesystem)
    return ray.data.read_parquet(
        files,
        filesystem=store.filesystem,
        columns=[*KEY, "frame_index", "time_seconds", "logits", "member_id"],
        partitioning=partitioning,
        override_num_blocks=max(1, min(len(files), num_cpus), num_rows // _ROWS_PER_READ),
    )


def _keep_wanted(rows: pa.Table, wanted: Any) -> pa.Table:
    # Arrow joins no lists, so the join is of keys and row numbers.
    keys = rows.select(KEY).append_column("row", pa.array(range(len(rows)), pa.int64()))
    kept = keys.join(ray.get(wanted), KEY, join_type="left semi")["row"]
    return rows.take(kept)


def _pool_clip(
    rows: pa.Table, *, weights: Sequence[Mapping[str, float]], pool: str, order: str
) -> pa.Table:
    member_ids = pc.unique(rows["member_id"].cast(pa.string())).to_pylist()
    member_index = pc.index_in(rows["member_id"], pa.array(member_ids, pa.string())).to_numpy()
    frame_index = rows["frame_index"].to_numpy()
    logits = pc.list_flatten(rows["logits"].combine_chunks()).to_numpy().reshape(len(rows), -1)
    times = dict(zip(frame_index.tolist(), rows["time_seconds"].to_pylist(), strict=True))
    pooled = []
    for system, weight_of in enumerate(weights):
        if not weight_of.keys() <= set(member_ids):
            continue
        place = {member_ids.index(member_id): i for i, member_id in enumerate(weight_of)}
        member_of_system = np.array([place.get(i, -1) for i in range(len(member_ids))])
        frames, aligned = align_members(
            member_of_system[member_index], frame_index, logits, num_members=len(weight_of)
        )
        if not len(frames):
            continue
        scored = clip_scores(aligned, np.array(list(weight_of.values())), order=order, pool=pool)
        peaks = [times[frames[t]] for t in scored.peak_frame]
        pooled.append({"system": system, "scores": scored.scores.tolist(), "peak_seconds": peaks})
    key = {name: rows[name][0].as_py() for name in KEY}
    return pa.Table.from_pylist([row | key for row in pooled], schema=_POOLED_SCHEMA)
