"""Which images of an archive a prepared set takes in with pseudo-labels, and what these are.

Shape letters: N images, C classes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.pseudo_labels import (
    PseudoLabels,
    check_thresholds,
    pseudo_labels,
    surest_images,
)
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.filesystems import path_in
from dsdi_ray.storage.prepare_plan import PrepareSettings
from dsdi_ray.storage.prepared import (
    IMAGE_FILES,
    TRAIN,
    VALIDATION,
    PreparedSet,
    labels_schema,
    vectors_column,
)
from dsdi_ray.storage.split_units import unit_among, unit_names

_COPY = "copies of another image of the archive"
_HELD_BACK = "of an event, flight or folder that is held back for validation"
_UNSURE = "no class is surely present (see --confident)"
_TOO_MANY = "less sure than those taken (see --max-images)"


@dataclass(frozen=True, kw_only=True)
class PseudoSettings:
    """What an ensemble must be sure of.

    Attributes:
        confident: Probability from which on a class is surely present.
        reject: Probability up to which it is surely absent.
        max_images: Images that are taken at most, None for all.
    """

    confident: float = 0.9
    reject: float = 0.1
    max_images: int | None = None

    def __post_init__(self) -> None:
        check_thresholds(confident=self.confident, reject=self.reject)
        if self.max_images is not None and self.max_images < 1:
            raise ConfigError(f"max_images must be at least 1, got {self.max_images}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PseudoPlan:
    """The work.

    Attributes:
        prepared: The set of labelled images.
        ensemble: Who labels.
        settings: When it is sure.
        store_as: How images are stored: as the set's are.
        rows: An image to store each, ascending by id: row, image_id, uri, start, stop, content_id.
        labels: Of the same images, see :func:`~dsdi_ray.storage.prepared.labels_schema`.
        left_out: Images that are not to be stored, by reason.
        inputs_id: Hash of all that the new set depends on.
    """

    prepared: PreparedSet
    ensemble: EnsembleSpec
    settings: PseudoSettings
    store_as: PrepareSettings
    rows: pa.Table
    labels: pa.Table
    left_out: Mapping[str, int]
    inputs_id: str


def plan_pseudo_labels(
    prepared: PreparedSet,
    images: pa.Table,
    probs: NDArray[np.float64],
    *,
    ensemble: EnsembleSpec,
    settings: PseudoSettings,
    unscored: Mapping[str, int],
) -> PseudoPlan:
    """Choose the images that a set takes in, and label them.

    Of copies the first counts. What a split keeps together stays so: an image in the folder of an
    event, a flight or a folder that is held back is not trained on.

    Args:
        prepared: The set of labelled images.
        images: Rows of a manifest, ``[N]``.
        probs: Of the ensemble, ``[N, C]``.
        ensemble: Who labels.
        settings: When it is sure.
        unscored: Images that the store has no scores of, by reason.

    Raises:
        DataError: If the set has pseudo-labelled images already, or there is no image to take.
    """
    if prepared.num_pseudo_labelled:
        raise DataError(
            f"{prepared.path}: has pseudo-labelled images already; give the set that it was made of"
        )
    labels = pseudo_labels(probs, confident=settings.confident, reject=settings.reject)
    units, held_back = _units(prepared, images["uri"].to_pylist())
    is_free = np.array([unit not in held_back for unit in units], np.bool_)
    chosen, not_chosen = _choose(images, probs, labels.is_kept, is_free, settings)
    left_out = {**unscored, **not_chosen}
    if not len(chosen):
        reasons = "; ".join(f"{n} {reason}" for reason, n in left_out.items())
        raise DataError(f"no image to pseudo-label: {reasons or 'the manifest is empty'}")
    clips = images.take(pa.array(chosen))
    rows = _rows(clips, first_row=_first_free_row(prepared))
    short_side_px = prepared.settings.get("short_side_px", PrepareSettings.short_side_px)
    return PseudoPlan(
        prepared=prepared,
        ensemble=ensemble,
        settings=settings,
        store_as=PrepareSettings(short_side_px=short_side_px),
        rows=rows,
        labels=_labels(clips, labels, chosen, units, ensemble_id=ensemble.ensemble_id),
        left_out=left_out,
        inputs_id=_inputs_id(prepared, ensemble, settings, rows, labels.soft_labels[chosen]),
    )


def _choose(
    images: pa.Table,
    probs: NDArray[np.float64],
    is_kept: NDArray[np.bool_],
    is_free: NDArray[np.bool_],
    settings: PseudoSettings,
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Places of the images to take, in the order of their ids, and why others are not."""
    is_first = np.zeros(len(images), np.bool_)
    is_first[np.unique(images["content_id"].to_numpy(), return_index=True)[1]] = True
    sure = np.flatnonzero(is_first & is_free & is_kept)
    chosen = sure
    if settings.max_images is not None:
        chosen = sure[
            surest_images(probs[sure], confident=settings.confident, max_images=settings.max_images)
        ]
    left_out = {
        _COPY: int((~is_first).sum()),
        _HELD_BACK: int((is_first & ~is_free).sum()),
        _UNSURE: int((is_first & is_free & ~is_kept).sum()),
        _TOO_MANY: len(sure) - len(chosen),
    }
    clip_ids = images["clip_id"].to_pylist()
    in_order = sorted(chosen.tolist(), key=lambda place: _image_id(clip_ids[place]))
    return np.array(in_order, np.int64), {why: n for why, n in left_out.items() if n}


def _units(prepared: PreparedSet, uris: Sequence[str]) -> tuple[list[str | None], set[str]]:
    """The unit of each image, as far as the set knows one of its name, and those held back."""
    labels = prepared.read(["image_id", "group", "split"])
    names = {}
    for part in (TRAIN, VALIDATION):
        rows = labels.filter(pc.equal(labels["split"], part))
        names[part] = unit_names(
            str(prepared.settings.get("split")),
            image_ids=rows["image_id"].to_pylist(),
            groups=rows["group"].to_pylist(),
        )
    known = names[TRAIN] | names[VALIDATION]
    if not known:
        return [None] * len(uris), set()
    return [unit_among(str(path_in(uri)), known) for uri in uris], names[VALIDATION]


def _rows(images: pa.Table, *, first_row: int) -> pa.Table:
    nothing = pa.nulls(len(images), pa.int64())
    return pa.table(
        {
            "row": pa.array(range(first_row, first_row + len(images)), pa.int64()),
            "image_id": [_image_id(clip_id) for clip_id in images["clip_id"].to_pylist()],
            "uri": images["uri"],
            "start": nothing,
            "stop": nothing,
            "content_id": images["content_id"],
        }
    )


def _labels(
    images: pa.Table,
    labels: PseudoLabels,
    chosen: NDArray[np.int64],
    units: Sequence[str | None],
    *,
    ensemble_id: str,
) -> pa.Table:
    """Labels of the images chosen; a class that is not told is one that nobody was asked about."""
    num_classes = labels.soft_labels.shape[1]
    is_told = labels.is_told[chosen]
    columns = {
        "image_id": [_image_id(clip_id) for clip_id in images["clip_id"].to_pylist()],
        "soft_label": vectors_column(labels.soft_labels[chosen], pa.float32()),
        "answer_counts": vectors_column(np.zeros_like(is_told, np.int32), pa.int32()),
        "num_asked": vectors_column(is_told.astype(np.int32), pa.int32()),
        "split": [TRAIN] * len(images),
        "group": [units[place] for place in chosen],
        **{name: images[name] for name in ("capture_time", "latitude", "longitude")},
        "source_sha1": pa.nulls(len(images), pa.string()),
        "pseudo_labelled_by": [ensemble_id] * len(images),
    }
    return pa.table(columns, schema=labels_schema(num_classes))


def _image_id(clip_id: str) -> str:
    """Apart from the ids of labelled images, which are paths."""
    return f"pseudo/{clip_id}"


def _first_free_row(prepared: PreparedSet) -> int:
    """A number that comes after those that the set's image files are named by."""
    numbers = [int(f.stem.rpartition("-")[2]) for f in prepared.path.glob(IMAGE_FILES)]
    return max(numbers, default=0) + 1


def _inputs_id(
    prepared: PreparedSet,
    ensemble: EnsembleSpec,
    settings: PseudoSettings,
    rows: pa.Table,
    soft_labels: NDArray[np.float32],
) -> str:
    inputs = [
        prepared.prepared_id,
        ensemble.ensemble_id,
        vars(settings),
        [rows[name].to_pylist() for name in ("image_id", "uri", "content_id")],
        hashlib.sha256(soft_labels.tobytes()).hexdigest(),
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:24]
