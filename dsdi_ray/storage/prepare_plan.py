"""What preparing a set has to do: the labelled images that have a file, and their split."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.sampling import assign_splits
from dsdi_ray.storage.image_files import MatchedImages, find_image_files, match_images
from dsdi_ray.storage.image_labels import ImageLabels
from dsdi_ray.storage.ladi import read_answers
from dsdi_ray.storage.prepared import TRAIN, VALIDATION, vectors_column
from dsdi_ray.taxonomy import Taxonomy


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How a set is made.

    Attributes:
        short_side_px: Larger images are shrunk to this short side.
        validation_fraction: Part of the images to hold back.
        split_seed: Which ones.
        split_by: ``image``; ``group`` to keep events or flights together (folders, where the label
            file names no groups); None takes groups where the label file names them.
    """

    short_side_px: int = 512
    validation_fraction: float = 0.2
    split_seed: int = 0
    split_by: str | None = None

    def __post_init__(self) -> None:
        if self.short_side_px < 32:
            raise ConfigError(f"short_side_px must be at least 32, got {self.short_side_px}")
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction must be in [0, 1), got {self.validation_fraction}"
            )
        if self.split_by not in {None, "image", "group"}:
            raise ConfigError(f"split_by must be image or group, got {self.split_by!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparePlan:
    """The work.

    Attributes:
        taxonomy: Of the labels.
        settings: With ``split_by`` decided.
        labels: All that the label file says.
        matched: Which image is which file.
        rows: An image to store each, ascending by id: row, image_id, path, soft_label,
            answer_counts, num_asked, split, group.
        inputs_id: Hash of all that the set depends on; of image files, size and time of change.
    """

    taxonomy: Taxonomy
    settings: PrepareSettings
    labels: ImageLabels
    matched: MatchedImages
    rows: pa.Table
    inputs_id: str


def plan_preparation(
    answers: Path, *, images: Path, taxonomy: Taxonomy, settings: PrepareSettings
) -> PreparePlan:
    """Read labels, find their images and draw the split.

    The split is drawn of the images that have a file; an image that turns out not to decode
    leaves the others where they are.

    Raises:
        DataError: If there is no usable label, or not one of the images.
    """
    labels = read_answers(answers, taxonomy)
    if settings.split_by is None:
        settings = replace(settings, split_by="image" if labels.groups is None else "group")
    matched = match_images(labels.image_ids, find_image_files(images))
    if not matched.files:
        raise DataError(
            f"images {images}: none of the {len(labels)} labelled images is there, "
            f"such as {labels.image_ids[0]}"
        )
    return PreparePlan(
        taxonomy=taxonomy,
        settings=settings,
        labels=labels,
        matched=matched,
        rows=_labelled_rows(labels, matched, images, settings),
        inputs_id=_inputs_id(answers, images, matched, taxonomy, settings),
    )


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
            "num_asked": vectors_column(labels.num_asked[places], pa.int32()),
            "split": pa.array([s or drawn[i] for i, s in enumerate(given)], pa.string()),
            "group": pa.array(groups, pa.string()),
        }
    )


def _inputs_id(
    answers: Path,
    images: Path,
    matched: MatchedImages,
    taxonomy: Taxonomy,
    settings: PrepareSettings,
) -> str:
    content = [
        hashlib.sha256(answers.read_bytes()).hexdigest(),
        taxonomy.to_dict(),
        vars(settings),
        [(image_id, *_stamp(images / file)) for image_id, file in matched.files.items()],
        dict(matched.missing),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _stamp(file: Path) -> tuple[int, int]:
    try:
        facts = file.stat()
    except OSError:  # a dangling link; that it cannot be read will be said of this image alone
        return -1, -1
    return facts.st_size, facts.st_mtime_ns
