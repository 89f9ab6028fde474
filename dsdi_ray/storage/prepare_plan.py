"""What preparing a set has to do: the labelled images that have a file, and where it is."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.storage.image_labels import ImageLabels
from dsdi_ray.storage.image_sources import ImageFile, LocatedImages, locate_images
from dsdi_ray.storage.ladi import read_answers
from dsdi_ray.storage.ladi_metadata import ImageMetadata, read_metadata
from dsdi_ray.storage.split_units import split_units
from dsdi_ray.taxonomy import Taxonomy

SPLITS = ("random", "event", "flight", "folder", "given")
_MAX_GAP_MINUTES = 30.0  # of a flight; an aircraft that refuels is on the ground for longer


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How a set is made.

    Attributes:
        short_side_px: Larger images are shrunk to this short side.
        validation_fraction: Part of the images to hold back.
        split_seed: Which ones.
        split: What is held back as one: ``random`` (an image), ``event``, ``flight`` or ``folder``,
            see :func:`dsdi_ray.storage.split_units.split_units`; ``given``: what the label file
            says. None takes ``given`` where the label file has splits, ``event`` where it has
            groups, else ``random``.
        max_gap_minutes: A longer pause between two images begins a new flight.
    """

    short_side_px: int = 512
    validation_fraction: float = 0.2
    split_seed: int = 0
    split: str | None = None
    max_gap_minutes: float = _MAX_GAP_MINUTES

    def __post_init__(self) -> None:
        if self.short_side_px < 32:
            raise ConfigError(f"short_side_px must be at least 32, got {self.short_side_px}")
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction must be in [0, 1), got {self.validation_fraction}"
            )
        if self.split is not None and self.split not in SPLITS:
            raise ConfigError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if not self.max_gap_minutes > 0:
            raise ConfigError(f"max_gap_minutes must be above 0, got {self.max_gap_minutes}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparePlan:
    """The work.

    Attributes:
        taxonomy: Of the labels.
        settings: With ``split`` decided.
        labels: All that the label file says.
        metadata: What is known of images beside their labels, by image id; None if not given.
        located: Which image is where.
        rows: An image to store each, ascending by id: row, image_id, uri, start, stop.
        inputs_id: Hash of all that the set depends on; of local image files, size and time of
            change, of remote ones the address.
    """

    taxonomy: Taxonomy
    settings: PrepareSettings
    labels: ImageLabels
    metadata: Mapping[str, ImageMetadata] | None
    located: LocatedImages
    rows: pa.Table
    inputs_id: str

    def path_of(self, image_id: str) -> str:
        """Path of an image, also where labels name it by its uuid alone."""
        known = (self.metadata or {}).get(image_id)
        return image_id if known is None else known.path


def plan_preparation(
    answers: Path,
    *,
    images: Sequence[str | Path],
    taxonomy: Taxonomy,
    settings: PrepareSettings,
    metadata: Path | None = None,
) -> PreparePlan:
    """Read labels and find their images.

    Raises:
        DataError: If there is no usable label, or not one of the images.
    """
    labels = read_answers(answers, taxonomy)
    known = None if metadata is None else read_metadata(metadata, labels.image_ids)
    paths = {i: known[i].path if known and i in known else i for i in labels.image_ids}
    located = locate_images(paths, images)
    if not located.files:
        raise DataError(
            f"images {', '.join(map(str, images))}: none of the {len(labels)} labelled images is "
            f"there, such as {labels.image_ids[0]}"
        )
    settings = replace(settings, split=settings.split or _default_split(labels))
    if settings.split == "given" and not any(labels.splits):
        raise DataError(f"answers {answers}: split given: there is no column split")
    _check_units(settings, labels, [paths[image_id] for image_id in located.files])
    inputs = [
        hashlib.sha256(answers.read_bytes()).hexdigest(),
        None if metadata is None else hashlib.sha256(metadata.read_bytes()).hexdigest(),
        taxonomy.to_dict(),
        vars(settings),
        [(image_id, *file.stamp) for image_id, file in located.files.items()],
        dict(located.missing),
    ]
    return PreparePlan(
        taxonomy=taxonomy,
        settings=settings,
        labels=labels,
        metadata=known,
        located=located,
        rows=_rows(located.files),
        inputs_id=hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:24],
    )


def _rows(files: Mapping[str, ImageFile]) -> pa.Table:
    return pa.table(
        {
            "row": pa.array(range(len(files)), pa.int64()),
            "image_id": pa.array(list(files), pa.string()),
            "uri": pa.array([f.uri for f in files.values()], pa.string()),
            "start": pa.array([f.start for f in files.values()], pa.int64()),
            "stop": pa.array([f.stop for f in files.values()], pa.int64()),
        }
    )


def _check_units(settings: PrepareSettings, labels: ImageLabels, paths: Sequence[str]) -> None:
    """Refuse now what could not be split once all images are there."""
    split_units(
        str(settings.split),
        paths=paths,
        given_groups=None if labels.groups is None else [None] * len(paths),
        capture_times=[None] * len(paths),
        max_gap_minutes=settings.max_gap_minutes,
    )


def _default_split(labels: ImageLabels) -> str:
    if any(labels.splits):
        return "given"
    return "random" if labels.groups is None else "event"
