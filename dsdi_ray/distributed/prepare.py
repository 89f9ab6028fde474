"""Prepare a training set: a Ray Data job from labels and images to Parquet."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pyarrow as pa
import ray

from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.errors import ConfigError, DataError, DecodeError
from dsdi_ray.method.sampling import assign_splits
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.labels import ImageLabels, read_labels
from dsdi_ray.storage.prepared import SET_FILE, PreparedSet, PreparedWriter
from dsdi_ray.taxonomy import Taxonomy
from dsdi_ray.vision.prepare_image import prepare_image

_IMAGES_PER_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What a prepared set holds and what was left out of it.

    Attributes:
        num_images: Images in the set.
        num_train: Of these, to train on.
        num_validation: Of these, held back.
        num_missing: Labelled images that are not in the folder.
        num_unreadable: Images that cannot be read.
        num_bad_rows: Rows of the label file that cannot be used.
        unknown_strings: Answers or columns that the taxonomy does not know.
        seconds: Wall clock.
        out: The set.
        prepared_id: Its id.
        reused: True if it was complete already.
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
    overwrite: bool = False,
) -> PrepareSummary:
    """Turn labels and images into a prepared set (paper section 2.1).

    Args:
        answers: LADI v1 answers, or a CSV/TSV with a column per class.
        images: Folder of the images, searched whole.
        out: Folder of the set.
        taxonomy: The classes.
        short_side_px: Size that images are kept at; they are never enlarged.
        validation_fraction: Part held back, unless the label file has a ``split`` column.
        split_seed: Which images are held back.
        overwrite: Replace a set of other inputs.

    Raises:
        DataError: If inputs cannot be read, no labelled image is found, or ``out`` holds
            something else.
        ConfigError: If a number is out of range.
    """
    started = time.monotonic()
    if short_side_px < 32 or not 0 <= validation_fraction < 1:
        raise ConfigError(
            "short_side_px must be at least 32 and validation_fraction in [0, 1), got "
            f"{short_side_px} and {validation_fraction}"
        )
    if not images.is_dir():
        raise DataError(f"--images {images}: no such folder")
    labels = read_labels(answers, taxonomy)
    inputs = {
        "answers_sha256": hashlib.sha256(answers.read_bytes()).hexdigest(),
        "images": str(images.resolve()),
        "taxonomy_id": taxonomy.taxonomy_id,
        "short_side_px": short_side_px,
        "validation_fraction": validation_fraction,
        "split_seed": split_seed,
    }
    if (out / SET_FILE).is_file() and not overwrite:
        return _reuse(out, inputs, started)
    if out.exists() and any(out.iterdir()) and not (out / SET_FILE).is_file():
        raise DataError(f"{out} is not empty and no prepared set; choose another --out")
    found, missing = _match(labels, images)
    if not found:
        raise DataError(
            f"none of {len(labels.references)} labelled images is in {images}; the first is "
            f"{labels.references[0]}"
        )
    with PreparedWriter(out, taxonomy) as writer:
        facts, report = _write(
            writer,
            labels,
            found,
            short_side_px=short_side_px,
            validation_fraction=validation_fraction,
            split_seed=split_seed,
        )
        counts = facts["counts"]
        counts |= {"missing": len(missing), "bad_rows": len(labels.bad_rows)}
        facts |= {"inputs": inputs, "unknown_strings": labels.unknown_strings}
        report |= {
            "missing": missing,
            "bad_rows": [asdict(row) for row in labels.bad_rows],
            "unknown_strings": labels.unknown_strings,
            **_statistics(labels, [row for _, row, _ in found], taxonomy),
        }
        if not counts["images"]:
            raise DataError(f"none of {len(found)} images can be read; see {answers} and {images}")
        writer.finish(facts, report)
    return _summary(PreparedSet.open(out), started, reused=False)


def _reuse(out: Path, inputs: Mapping[str, Any], started: float) -> PrepareSummary:
    prepared = PreparedSet.open(out)
    if prepared.facts["inputs"] != dict(inputs):
        changed = [k for k, v in inputs.items() if prepared.facts["inputs"].get(k) != v]
        raise DataError(
            f"{out} is a prepared set of other inputs ({', '.join(changed)} differ); choose "
            "another --out or pass --overwrite"
        )
    return _summary(prepared, started, reused=True)


def _summary(prepared: PreparedSet, started: float, *, reused: bool) -> PrepareSummary:
    counts = prepared.facts["counts"]
    return PrepareSummary(
        num_images=counts["images"],
        num_train=counts["train"],
        num_validation=counts["validation"],
        num_missing=counts["missing"],
        num_unreadable=counts["unreadable"],
        num_bad_rows=counts["bad_rows"],
        unknown_strings=prepared.facts["unknown_strings"],
        seconds=time.monotonic() - started,
        out=prepared.path,
        prepared_id=prepared.prepared_id,
        reused=reused,
    )


def _match(labels: ImageLabels, images: Path) -> tuple[list[tuple[str, int, Path]], list[str]]:
    """Find each labelled image's file by the longest tail of its URL that names one.

    Returns:
        (image_id, row, file), ordered by image_id, which is the file's path in the folder; and
        the references that name no file.
    """
    by_tail: dict[tuple[str, ...], Path] = {}
    for file in sorted(f for f in images.rglob("*") if f.is_file()):
        parts = file.relative_to(images).parts
        for tail in (parts, (file.name,), (file.stem,)):
            by_tail.setdefault(tail, file)
    found: dict[str, tuple[str, int, Path]] = {}
    missing: list[str] = []
    for row, reference in enumerate(labels.references):
        parts = Path(unquote(urlparse(reference).path)).parts
        match = next((by_tail[parts[i:]] for i in range(len(parts)) if parts[i:] in by_tail), None)
        if match is None:
            missing.append(reference)
        else:
            image_id = match.relative_to(images).as_posix()
            found.setdefault(image_id, (image_id, row, match))
    return [found[i] for i in sorted(found)], missing


def _write(
    writer: PreparedWriter,
    labels: ImageLabels,
    found: Sequence[tuple[str, int, Path]],
    *,
    short_side_px: int,
    validation_fraction: float,
    split_seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    row_of = {image_id: row for image_id, row, _ in found}
    held_back = assign_splits(
        list(row_of), validation_fraction=validation_fraction, seed=split_seed
    )
    split_of = dict(zip(row_of, np.where(held_back, "validation", "train").tolist(), strict=True))
    digest = hashlib.sha256()
    unreadable: list[dict[str, str]] = []
    counts: Counter[str] = Counter()
    for image in _images(found, short_side_px=short_side_px):
        image_id, row = image["image_id"], row_of[image["image_id"]]
        if (reason := image.pop("error")) is not None:
            unreadable.append({"image": image_id, "reason": reason})
            continue
        split = labels.splits[row] if labels.splits else split_of[image_id]
        counts[split] += 1
        digest.update(f"{image_id}\0{split}\0".encode())
        digest.update(image["jpeg"] + labels.soft_labels[row].tobytes())
        writer.add(
            {
                **image,
                "soft_label": labels.soft_labels[row],
                "answer_counts": labels.answer_counts[row],
                "asked": labels.asked[row],
                "split": split,
            }
        )
    facts = {
        "prepared_id": digest.hexdigest()[:16],
        "encoding": "max_count",
        "counts": {
            "images": counts.total(),
            "train": counts["train"],
            "validation": counts["validation"],
            "unreadable": len(unreadable),
        },
    }
    return facts, {"unreadable": unreadable}


def _images(
    found: Sequence[tuple[str, int, Path]], *, short_side_px: int
) -> Iterator[dict[str, Any]]:
    """Shrink images on all cores, in order: image_id, jpeg, width, height, error."""
    work = pa.table(
        {
            "image_id": [image_id for image_id, _, _ in found],
            "path": [str(path) for _, _, path in found],
        }
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    num_blocks = min(-(-len(work) // _IMAGES_PER_BATCH), 64 * int(cluster_resources().num_cpus))
    dataset = ray.data.from_arrow(work, override_num_blocks=num_blocks).map_batches(
        _shrink,
        fn_kwargs={"short_side_px": short_side_px},
        batch_format="pyarrow",
        batch_size=_IMAGES_PER_BATCH,
    )
    with progress_bar(total=len(work), description="Preparing", unit="image") as bar:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from batch.to_pylist()
            bar.update(len(batch))


def _shrink(batch: pa.Table, *, short_side_px: int) -> pa.Table:
    rows = []
    for item in batch.to_pylist():
        row = {"image_id": item["image_id"], "error": None}
        try:
            image = prepare_image(Path(item["path"]), short_side_px=short_side_px)
            row |= {"jpeg": image.jpeg, "width": image.width, "height": image.height}
        except DecodeError as error:
            row["error"] = str(error)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=_IMAGE_SCHEMA)


_IMAGE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("jpeg", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("error", pa.string()),
    ]
)


def _statistics(
    labels: ImageLabels, rows: Sequence[int], taxonomy: Taxonomy
) -> dict[str, dict[str, int]]:
    """Answers and images per class, over the images that were found."""
    counts = labels.answer_counts[list(rows)].sum(axis=0).tolist()
    images = (labels.soft_labels[list(rows)] >= 0.5).sum(axis=0).tolist()
    per_image = Counter(labels.answer_counts[list(rows)].sum(axis=1).tolist())
    return {
        "answers_per_class": dict(zip(taxonomy.class_names, counts, strict=True)),
        "images_per_class": dict(zip(taxonomy.class_names, images, strict=True)),
        "images_by_number_of_answers": {str(k): n for k, n in sorted(per_image.items())},
    }
