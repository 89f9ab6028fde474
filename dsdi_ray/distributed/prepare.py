"""Make a prepared set: crowd answers and photographs in, soft labels and small JPEGs out.

The chain is ``rows (image, labels, split) -> read, turn upright and shrink -> Parquet``. Pixels go
from a task straight to its file; the driver sees one small outcome per image.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset

from dsdi_ray.errors import ConfigError, DataError, DecodeError
from dsdi_ray.method.sampling import assign_splits
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.image_files import MatchedImages, find_image_files, match_images
from dsdi_ray.storage.image_labels import ImageLabels
from dsdi_ray.storage.ladi import read_answers
from dsdi_ray.storage.prepared import (
    TRAIN,
    VALIDATION,
    PreparedSet,
    complete_set,
    content_hash,
    prepared_schema,
    publish_set,
    vectors_column,
    write_shard,
)
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


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How a set is made.

    Attributes:
        short_side_px: Larger images are shrunk to this short side.
        validation_fraction: Part of the images to hold back.
        split_seed: Which ones.
        split_by: ``image``, or ``group`` to keep events or flights together.
    """

    short_side_px: int
    validation_fraction: float
    split_seed: int
    split_by: str

    def __post_init__(self) -> None:
        if self.short_side_px < 32:
            raise ConfigError(f"short_side_px must be at least 32, got {self.short_side_px}")
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction must be in [0, 1), got {self.validation_fraction}"
            )
        if self.split_by not in {"image", "group"}:
            raise ConfigError(f"split_by must be image or group, got {self.split_by!r}")


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
    labels = read_answers(answers, taxonomy)
    settings = PrepareSettings(
        short_side_px=short_side_px,
        validation_fraction=validation_fraction,
        split_seed=split_seed,
        split_by=split_by or ("image" if labels.groups is None else "group"),
    )
    matched = match_images(labels.image_ids, find_image_files(images))
    if not matched.files:
        raise DataError(_say_nothing_found(labels, images))
    inputs_id = _inputs_id(answers, images, matched, taxonomy, settings)
    existing = complete_set(out, inputs_id=inputs_id, overwrite=overwrite)
    if existing is not None:
        return _summary(existing, started, reused=True)
    rows = _labelled_rows(labels, matched, images, settings)
    folder = out.with_name(f".{out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcomes = _run(rows, folder=folder, short_side_px=short_side_px)
    spec, report = _describe(rows, outcomes, labels, matched, taxonomy)
    spec |= {"inputs_id": inputs_id, "encoding": labels.encoding, "settings": vars(settings)}
    return _summary(publish_set(folder, out, spec=spec, report=report), started, reused=False)


def build_prepare_dataset(rows: pa.Table, *, folder: Path, short_side_px: int) -> Dataset:
    """The pipeline: labelled image files in, outcomes out; the images land in ``folder``.

    Args:
        rows: Columns row, image_id, path, soft_label, answer_counts, asked, split, group.
        folder: Where the image files are written.
        short_side_px: Short side of a stored image.
    """
    starts = range(0, len(rows), _IMAGES_PER_FILE)
    return ray.data.from_arrow([rows.slice(i, _IMAGES_PER_FILE) for i in starts]).map_batches(
        store_images,
        fn_kwargs={"folder": folder, "short_side_px": short_side_px},
        batch_size=None,
        batch_format="pyarrow",
        max_retries=3,  # a file that crashes the decoder would otherwise be tried without end
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
        except DecodeError as problem:
            outcomes.append({"image_id": row["image_id"], "reason": str(problem)})
            continue
        stored.append(
            row
            | vars(image)
            | {key: getattr(facts, key) for key in ("capture_time", "latitude", "longitude")}
        )
        sha256 = hashlib.sha256(image.jpeg).hexdigest()
        outcomes.append({"image_id": row["image_id"], "sha256": sha256})
    schema = prepared_schema(batch.schema.field("soft_label").type.list_size)
    if stored:
        write_shard(stored, schema, folder / f"images-{batch['row'][0].as_py():08d}.parquet")
    return pa.Table.from_pylist(outcomes, schema=_OUTCOME_SCHEMA)


def _run(rows: pa.Table, *, folder: Path, short_side_px: int) -> list[dict[str, Any]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    dataset = build_prepare_dataset(rows, folder=folder, short_side_px=short_side_px)
    outcomes: list[dict[str, Any]] = []
    with progress_bar(total=len(rows), description="Preparing", unit="image") as bar:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            outcomes += batch.to_pylist()
            bar.update(len(batch))
    return sorted(outcomes, key=lambda outcome: outcome["image_id"])


def _labelled_rows(
    labels: ImageLabels, matched: MatchedImages, images: Path, settings: PrepareSettings
) -> pa.Table:
    places = np.array([i for i, name in enumerate(labels.image_ids) if name in matched.files])
    image_ids = [labels.image_ids[i] for i in places]
    groups = [(labels.groups or labels.folders)[i] for i in places]
    given = [labels.splits[i] for i in places]
    free = [i for i, split in enumerate(given) if split is None]
    is_validation = assign_splits(
        [image_ids[i] for i in free],
        validation_fraction=settings.validation_fraction,
        seed=settings.split_seed,
        groups=[groups[i] for i in free] if settings.split_by == "group" else None,
    )
    drawn = {i: VALIDATION if held else TRAIN for i, held in zip(free, is_validation, strict=True)}
    return pa.table(
        {
            "row": pa.array(range(len(image_ids)), pa.int64()),
            "image_id": pa.array(image_ids, pa.string()),
            "path": pa.array([str(images / matched.files[i]) for i in image_ids], pa.string()),
            "soft_label": vectors_column(labels.soft_labels[places], pa.float32()),
            "answer_counts": vectors_column(labels.answer_counts[places], pa.int32()),
            "asked": vectors_column(labels.asked[places], pa.bool_()),
            "split": pa.array([s or drawn[i] for i, s in enumerate(given)], pa.string()),
            "group": pa.array(groups, pa.string()),
        }
    )


def _describe(
    rows: pa.Table,
    outcomes: Sequence[Mapping[str, Any]],
    labels: ImageLabels,
    matched: MatchedImages,
    taxonomy: Taxonomy,
) -> tuple[dict[str, Any], dict[str, Any]]:
    unreadable = {o["image_id"]: o["reason"] for o in outcomes if o["reason"] is not None}
    if len(unreadable) == len(rows):
        name, reason = next(iter(unreadable.items()))
        raise DataError(f"none of the {len(rows)} images can be read; {name}: {reason}")
    kept = rows.filter(pa.array([i not in unreadable for i in rows["image_id"].to_pylist()]))
    by_split = Counter(kept["split"].to_pylist())
    hashes = [(o["image_id"], o["sha256"]) for o in outcomes if o["reason"] is None]
    counts = {
        "images": len(kept),
        TRAIN: by_split[TRAIN],
        VALIDATION: by_split[VALIDATION],
        "missing": len(matched.missing),
        "unreadable": len(unreadable),
        "bad_rows": len(labels.bad_rows),
    }
    spec = {
        "prepared_id": content_hash(hashes, kept, taxonomy),
        "counts": counts,
        "taxonomy": taxonomy.to_dict(),
    }
    return spec, _report(labels, matched, counts, unreadable, taxonomy)


def _report(
    labels: ImageLabels,
    matched: MatchedImages,
    counts: Mapping[str, int],
    unreadable: Mapping[str, str],
    taxonomy: Taxonomy,
) -> dict[str, Any]:
    answers_per_image = Counter(labels.num_answers.tolist())
    return {
        **counts,
        "labelled_images": len(labels),
        "answers": int(labels.num_answers.sum()),
        "repeated_answers": labels.num_repeated,
        "missing_images": [{"image_id": i, "reason": r} for i, r in matched.missing.items()],
        "unreadable_images": [{"image_id": i, "reason": r} for i, r in unreadable.items()],
        "held_out_for_test": list(labels.held_out),
        "unlabelled_images": list(labels.unlabelled),
        "bad_row_list": [vars(bad_row) for bad_row in labels.bad_rows],
        "ignored_columns": list(labels.ignored_columns),
        "unknown_strings": dict(labels.unknown_strings),
        "unknown_string_examples": dict(labels.unknown_examples),
        "answers_per_class": _per_class(labels.answer_counts, taxonomy),
        "images_per_class_by_majority": _per_class(labels.majority, taxonomy),
        "images_asked_per_class": _per_class(labels.asked, taxonomy),
        "images_by_number_of_answers": {
            str(n): answers_per_image[n] for n in sorted(answers_per_image)
        },
    }


def _per_class(values: Any, taxonomy: Taxonomy) -> dict[str, int]:
    return dict(zip(taxonomy.class_names, values.sum(axis=0).tolist(), strict=True))


def _inputs_id(
    answers: Path,
    images: Path,
    matched: MatchedImages,
    taxonomy: Taxonomy,
    settings: PrepareSettings,
) -> str:
    stats = {image_id: (images / file).stat() for image_id, file in matched.files.items()}
    content = [
        hashlib.sha256(answers.read_bytes()).hexdigest(),
        taxonomy.to_dict(),
        vars(settings),
        [(image_id, s.st_size, s.st_mtime_ns) for image_id, s in stats.items()],
        dict(matched.missing),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _say_nothing_found(labels: ImageLabels, images: Path) -> str:
    return (
        f"images {images}: none of the {len(labels)} labelled images is there, "
        f"such as {labels.image_ids[0]}"
    )


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
