"""Make a prepared set: crowd answers and photographs in, soft labels and small JPEGs out.

The chain is ``rows (image, labels, split) -> read, turn upright and shrink -> Parquet``. Pixels go
from a task straight to its file; the driver sees one small outcome per image.
"""

import hashlib
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset
from ray.util.annotations import RayDeprecationWarning

from dsdi_ray.errors import DecodeError
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.prepare_plan import PreparePlan, PrepareSettings, plan_preparation
from dsdi_ray.storage.prepared import (
    TRAIN,
    VALIDATION,
    PreparedSet,
    complete_set,
    prepared_schema,
    publish_set,
    write_shard,
)
from dsdi_ray.storage.prepared_report import describe_set
from dsdi_ray.taxonomy import Taxonomy
from dsdi_ray.vision.probe import probe
from dsdi_ray.vision.shrink import shrink_to_jpeg

_IMAGES_PER_FILE = 128  # some 10 MB; fixed, so that the files do not depend on the cluster
_OUTCOME_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("sha256", pa.string()), ("reason", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What a preparation came to.

    Attributes:
        num_images: Images in the set.
        num_train: Of these, to train on.
        num_validation: Held back.
        num_missing: Labelled images without a file.
        num_unreadable: Images whose file does not decode.
        num_bad_rows: Rows of the label file that could not be used.
        unknown_strings: Answers that mean no class, by how often they came.
        seconds: Wall clock.
        out: The set's folder.
        prepared_id: The set's identity, see :class:`PreparedSet`.
        reused: True if the set was complete and nothing was done.
    """

    num_images: int
    num_train: int
    num_validation: int
    num_missing: int
    num_unreadable: int
    num_bad_rows: int
    unknown_strings: Mapping[str, int]
    seconds: float
    out: Path
    prepared_id: str
    reused: bool


def prepare_set(
    answers: Path,
    *,
    images: Path,
    out: Path,
    taxonomy: Taxonomy,
    short_side_px: int = 512,
    validation_fraction: float = 0.2,
    split_seed: int = 0,
    split_by: str | None = None,
    overwrite: bool = False,
) -> PrepareSummary:
    """Write a prepared set; one that is complete for the same inputs and settings is kept.

    Images without a file, images that do not decode and rows that cannot be read are left out and
    listed in ``report.json``. The set appears at ``out`` in one step, when it is complete.

    Args:
        answers: LADI v1's answers or a wide table, see :mod:`dsdi_ray.storage.ladi`.
        images: Folder of the images, searched whole.
        out: Folder of the set; on a cluster, one that every node shares.
        taxonomy: Which classes answers are read as.
        short_side_px: Larger images are shrunk to this short side; none is enlarged.
        validation_fraction: Part of the images to hold back, unless the label file says which.
        split_seed: Which images are held back.
        split_by: ``image``; ``group`` to keep events (or folders, where the label file names no
            events) together; None takes groups where the label file names them.
        overwrite: Whether another prepared set at ``out`` is replaced.

    Raises:
        ConfigError: If a setting is out of range.
        DataError: If nothing usable is there, or something else is at ``out``.
    """
    started = time.monotonic()
    out, images = out.resolve(), images.resolve()
    settings = PrepareSettings(
        short_side_px=short_side_px,
        validation_fraction=validation_fraction,
        split_seed=split_seed,
        split_by=split_by,
    )
    plan = plan_preparation(answers, images=images, taxonomy=taxonomy, settings=settings)
    existing = complete_set(out, inputs_id=plan.inputs_id, overwrite=overwrite)
    if existing is not None:
        return _summary(existing, started, reused=True)
    folder = out.with_name(f".{out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        spec, report = describe_set(plan, _run(plan, folder=folder))
        prepared = publish_set(folder, out, spec=spec, report=report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _summary(prepared, started, reused=False)


def build_prepare_dataset(rows: pa.Table, *, folder: Path, short_side_px: int) -> Dataset:
    """The pipeline: labelled image files in, outcomes out; the images land in ``folder``.

    Args:
        rows: Columns row, image_id, path, soft_label, answer_counts, num_asked, split, group.
        folder: Where the image files are written.
        short_side_px: Short side of a stored image.
    """
    starts = range(0, len(rows), _IMAGES_PER_FILE)
    dataset = ray.data.from_arrow([rows.slice(i, _IMAGES_PER_FILE) for i in starts])
    with warnings.catch_warnings():
        # Ray has no other way to cap the retries of a task, whose default is without end.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return dataset.map_batches(
            store_images,
            fn_kwargs={"folder": folder, "short_side_px": short_side_px},
            batch_size=None,
            batch_format="pyarrow",
            max_retries=3,
        )


def store_images(batch: pa.Table, *, folder: Path, short_side_px: int) -> pa.Table:
    """Shrink a part of the images and write them to one file, named by its first row.

    Returns:
        Image id and hash of the stored bytes, or the reason why there are none.
    """
    stored, outcomes = [], []
    for row in batch.to_pylist():
        try:
            image = shrink_to_jpeg(Path(row["path"]), short_side_px=short_side_px)
            facts = probe(row["path"], "image")
        except Exception as problem:
            reason = str(problem) if isinstance(problem, DecodeError) else repr(problem)
            outcomes.append({"image_id": row["image_id"], "reason": reason})
            continue
        taken = {key: getattr(facts, key) for key in ("capture_time", "latitude", "longitude")}
        stored.append({**row, **vars(image), **taken})
        sha256 = hashlib.sha256(image.jpeg).hexdigest()
        outcomes.append({"image_id": row["image_id"], "sha256": sha256})
    schema = prepared_schema(batch.schema.field("soft_label").type.list_size)
    if stored:
        write_shard(stored, schema, folder / f"images-{batch['row'][0].as_py():08d}.parquet")
    return pa.Table.from_pylist(outcomes, schema=_OUTCOME_SCHEMA)


def _run(plan: PreparePlan, *, folder: Path) -> list[dict[str, Any]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    dataset = build_prepare_dataset(
        plan.rows, folder=folder, short_side_px=plan.settings.short_side_px
    )
    outcomes: list[dict[str, Any]] = []
    with progress_bar(total=len(plan.rows), description="Preparing", unit="image") as bar:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            outcomes += batch.to_pylist()
            bar.update(len(batch))
    return sorted(outcomes, key=lambda outcome: outcome["image_id"])


def _summary(prepared: PreparedSet, started: float, *, reused: bool) -> PrepareSummary:
    return PrepareSummary(
        num_images=prepared.num_images,
        num_train=prepared.counts[TRAIN],
        num_validation=prepared.counts[VALIDATION],
        num_missing=prepared.counts["missing"],
        num_unreadable=prepared.counts["unreadable"],
        num_bad_rows=prepared.counts["bad_rows"],
        unknown_strings=prepared.report["unknown_strings"],
        seconds=time.monotonic() - started,
        out=prepared.path,
        prepared_id=prepared.prepared_id,
        reused=reused,
    )
