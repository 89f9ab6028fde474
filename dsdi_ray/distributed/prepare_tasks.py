"""The tasks that prepare images: fetch, turn upright, shrink, write.

The chain is ``rows (image, where it is) -> fetch and shrink -> Parquet``. Pixels go from a task
straight to its file; the driver sees one small outcome per image.
"""

import hashlib
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset
from ray.util.annotations import RayDeprecationWarning

from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.errors import DecodeError, FetchError
from dsdi_ray.storage.image_sources import ImageFile, read_images
from dsdi_ray.storage.prepare_plan import PrepareSettings
from dsdi_ray.storage.prepared_files import (
    MISSING,
    OUTCOME_SCHEMA,
    STORED,
    UNFETCHED,
    UNREADABLE,
    PartialSet,
)
from dsdi_ray.vision.shrink import shrink_to_jpeg

_IMAGES_PER_FILE = 128  # some 10 MB; fixed, so that the files do not depend on the cluster
_SAMPLE_IMAGES = 8  # what an estimate reads


def blocks_to_do(rows: pa.Table, done: pa.Table) -> list[pa.Table]:
    """Parts of the rows, a file each, but for those that are done.

    Args:
        rows: Of a plan.
        done: Outcomes of the parts that are complete.
    """
    is_done = set(done["image_id"].to_pylist())
    starts = range(0, len(rows), _IMAGES_PER_FILE)
    blocks = [rows.slice(start, _IMAGES_PER_FILE) for start in starts]
    return [block for block in blocks if block["image_id"][0].as_py() not in is_done]


def build_prepare_dataset(
    blocks: Sequence[pa.Table], *, folder: Path, settings: PrepareSettings
) -> Dataset:
    """The pipeline: places of images in, outcomes out; the images land in ``folder``.

    Args:
        blocks: Columns row, image_id, uri, start, stop; each becomes a file.
        folder: Where the image files are written.
        settings: How images are stored.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with warnings.catch_warnings():
        # Ray has no other way to cap the retries of a task, whose default is without end.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return ray.data.from_arrow(list(blocks)).map_batches(
            store_part,
            fn_kwargs={"folder": folder, "short_side_px": settings.short_side_px},
            batch_size=None,
            batch_format="pyarrow",
            max_retries=3,
        )


def store_part(batch: pa.Table, *, folder: Path, short_side_px: int) -> pa.Table:
    """Fetch and shrink a part of the images, and write them to one file, named by its first row.

    A part of which an image could not be had now is not written.

    Returns:
        What became of each, of :data:`dsdi_ray.storage.prepared_files.OUTCOME_SCHEMA`.
    """
    stored, outcomes = _shrink_all(batch, short_side_px)
    table = pa.Table.from_pylist(outcomes, schema=OUTCOME_SCHEMA)
    if UNFETCHED not in table["status"].to_pylist():
        PartialSet(folder).write_part(batch["row"][0].as_py(), stored, table)
    return table


def _shrink_all(
    batch: pa.Table, short_side_px: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows to store, and the outcomes."""
    stored, outcomes = [], []
    rows = batch.to_pylist()
    files = [ImageFile(row["uri"], row["start"], row["stop"]) for row in rows]
    for row, content in zip(rows, read_images(files), strict=True):
        image, outcome = _shrink(content, short_side_px)
        outcomes.append({"image_id": row["image_id"], **outcome})
        if image is not None:
            stored.append({"image_id": row["image_id"], **image})
    return stored, outcomes


def _shrink(
    content: bytes | OSError | FetchError, short_side_px: int
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The row to store, if any, and the outcome."""
    if isinstance(content, FileNotFoundError | PermissionError):
        return None, {"status": MISSING, "reason": content.strerror or str(content)}
    if isinstance(content, FetchError):
        return None, {"status": UNFETCHED, "reason": str(content)}
    try:
        if isinstance(content, OSError):
            raise content
        image = shrink_to_jpeg(content, short_side_px=short_side_px)
    except Exception as problem:
        reason = str(problem) if isinstance(problem, DecodeError) else repr(problem)
        return None, {"status": UNREADABLE, "reason": reason}
    facts = vars(image)
    outcome = {
        "status": STORED,
        "jpeg_sha256": hashlib.sha256(image.jpeg).hexdigest(),
        "source_sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
        **{key: facts[key] for key in ("capture_time", "latitude", "longitude")},
    }
    return facts, outcome


def images_per_second(blocks: Sequence[pa.Table], *, settings: PrepareSettings) -> float:
    """Try a few images, and work out how many a second all cores would do."""
    rows = pa.concat_tables(blocks)
    places = sorted({i * len(rows) // _SAMPLE_IMAGES for i in range(_SAMPLE_IMAGES)})
    sample = rows.take(pa.array(places))
    task = ray.remote(num_cpus=1)(_seconds_for)
    seconds: float = ray.get(task.remote(sample, settings.short_side_px))
    return len(sample) * max(1.0, cluster_resources().num_cpus) / seconds


def _seconds_for(sample: pa.Table, short_side_px: int) -> float:
    started = time.monotonic()
    _shrink_all(sample, short_side_px)
    return time.monotonic() - started
