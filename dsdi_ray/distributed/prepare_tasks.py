"""Store images in a set that is being made: fetch, turn upright, shrink, write.

The chain is ``rows (image, where it is) -> fetch and shrink -> Parquet``. Pixels go from a task
straight to its file; the driver sees one small outcome per image.
"""

import hashlib
import time
import warnings
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset
from ray.util.annotations import RayDeprecationWarning

from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.errors import DecodeError, FetchError, StoreError
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.content_ids import content_id_of
from dsdi_ray.storage.filesystems import is_remote
from dsdi_ray.storage.image_sources import ImageFile, read_images
from dsdi_ray.storage.prepare_plan import PrepareSettings
from dsdi_ray.storage.prepared_files import (
    DUPLICATE,
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


def store_images(
    rows: pa.Table,
    *,
    parts: PartialSet,
    done: pa.Table,
    settings: PrepareSettings,
    known: AbstractSet[str] = frozenset(),
) -> pa.Table:
    """Store what is not done yet, with a progress line.

    Args:
        rows: Of a plan: row, image_id, uri, start, stop; where content_id is given as well, a file
            that holds something else counts as unreadable.
        parts: Where to.
        done: Outcomes of the parts that are complete.
        settings: How images are stored.
        known: Hashes of files and of stored pictures; images that have one of these are left out.

    Returns:
        Outcomes of all rows, ascending by image id.

    Raises:
        StoreError: If some could not be had.
    """
    outcomes = [done]
    blocks = blocks_to_do(rows, done)
    with progress_bar(
        total=len(rows), initial=len(done), description="Preparing", unit="image"
    ) as bar:
        if blocks:
            dataset = build_prepare_dataset(
                blocks, folder=parts.folder, settings=settings, known=known
            )
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                outcomes.append(batch)
                bar.update(len(batch))
    table = pa.concat_tables(outcomes)
    unfetched = table.filter(pc.equal(table["status"], UNFETCHED))
    if len(unfetched):
        raise StoreError(
            f"{len(unfetched)} of {len(table)} images could not be had, such as "
            f"{unfetched['image_id'][0]} ({unfetched['reason'][0]}); what is done "
            "stays, and the same command goes on from there"
        )
    return table.sort_by("image_id")


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
    blocks: Sequence[pa.Table],
    *,
    folder: Path,
    settings: PrepareSettings,
    known: AbstractSet[str] = frozenset(),
) -> Dataset:
    """The pipeline: places of images in, outcomes out; the images land in ``folder``.

    Args:
        blocks: Columns row, image_id, uri, start, stop; each becomes a file.
        folder: Where the image files are written.
        settings: How images are stored.
        known: As in :func:`store_images`.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with warnings.catch_warnings():
        # Ray has no other way to cap the retries of a task, whose default is without end.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return ray.data.from_arrow(list(blocks)).map_batches(
            store_part,
            fn_kwargs={
                "folder": folder,
                "short_side_px": settings.short_side_px,
                "known": ray.put(known),
            },
            batch_size=None,
            batch_format="pyarrow",
            max_retries=3,
        )


def store_part(batch: pa.Table, *, folder: Path, short_side_px: int, known: Any) -> pa.Table:
    """Fetch and shrink a part of the images, and write them to one file, named by its first row.

    A part of which an image could not be had now is not written.

    Returns:
        What became of each, of :data:`dsdi_ray.storage.prepared_files.OUTCOME_SCHEMA`.
    """
    stored, outcomes = _shrink_all(batch, short_side_px, ray.get(known))
    table = pa.Table.from_pylist(outcomes, schema=OUTCOME_SCHEMA)
    if UNFETCHED not in table["status"].to_pylist():
        PartialSet(folder).write_part(batch["row"][0].as_py(), stored, table)
    return table


def _shrink_all(
    batch: pa.Table, short_side_px: int, known: AbstractSet[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows to store, and the outcomes."""
    stored, outcomes = [], []
    rows = batch.to_pylist()
    files = [ImageFile(row["uri"], row["start"], row["stop"]) for row in rows]
    for row, content in zip(rows, read_images(files), strict=True):
        image, outcome = _shrink(content, row, short_side_px)
        if image is not None and known & {outcome["jpeg_sha256"], outcome["source_sha1"]}:
            image, outcome = None, {**outcome, "status": DUPLICATE}
        outcomes.append({"image_id": row["image_id"], **outcome})
        if image is not None:
            stored.append({"image_id": row["image_id"], **image})
    return stored, outcomes


def _shrink(
    content: bytes | OSError | FetchError, row: Mapping[str, Any], short_side_px: int
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The row to store, if any, and the outcome."""
    if isinstance(content, FileNotFoundError | PermissionError):
        return None, {"status": MISSING, "reason": content.strerror or str(content)}
    if isinstance(content, FetchError):
        return None, {"status": UNFETCHED, "reason": str(content)}
    try:
        if isinstance(content, OSError):
            raise content
        _check_unchanged(content, row)
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


def _check_unchanged(content: bytes, row: Mapping[str, Any]) -> None:
    """See whether a file is the one that was indexed; of a remote one only its size is known."""
    expected = row.get("content_id")
    if expected is None:
        return
    found = content_id_of(content)
    if is_remote(row["uri"]):
        expected, found = (identity.partition("-")[0] for identity in (expected, found))
    if found != expected:
        raise DecodeError("changed since it was indexed; index and score it again")


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
    _shrink_all(sample, short_side_px, frozenset())
    return time.monotonic() - started
