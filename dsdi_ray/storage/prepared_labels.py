"""The labels of a prepared set: of the images that are stored, with what splits keep together."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dsdi_ray.method.sampling import assign_splits, join_groups
from dsdi_ray.storage.prepare_plan import PreparePlan
from dsdi_ray.storage.prepared import TRAIN, VALIDATION, labels_schema, vectors_column
from dsdi_ray.storage.split_units import split_units


def labels_table(plan: PreparePlan, stored: pa.Table) -> pa.Table:
    """Labels of the stored images, see :func:`dsdi_ray.storage.prepared.labels_schema`.

    The split is drawn of these; images that are the same file are never on both sides, unless the
    label file puts them there. Where and when an image was taken is what its file says, else what
    the metadata says.

    Args:
        plan: What was to be done.
        stored: Outcomes of the images that are stored, ascending by id.

    Raises:
        DataError: If the images have no such unit as they are to be split by.
    """
    labels, image_ids = plan.labels, stored["image_id"].to_pylist()
    place_of = {image_id: place for place, image_id in enumerate(labels.image_ids)}
    places = np.array([place_of[image_id] for image_id in image_ids])
    taken = {name: _taken(plan, stored, name) for name in ("capture_time", "latitude", "longitude")}
    units = split_units(
        str(plan.settings.split),
        paths=[plan.path_of(image_id) for image_id in image_ids],
        given_groups=None if labels.groups is None else [labels.groups[i] for i in places],
        capture_times=taken["capture_time"],
        max_gap_minutes=plan.settings.max_gap_minutes,
    )
    groups = join_groups(image_ids, units, duplicates_of(stored))
    given = [labels.splits[i] for i in places]
    columns = {
        "image_id": image_ids,
        "soft_label": vectors_column(labels.soft_labels[places], pa.float32()),
        "answer_counts": vectors_column(labels.answer_counts[places], pa.int32()),
        "num_asked": vectors_column(labels.num_asked[places], pa.int32()),
        "split": _splits(plan, image_ids, groups, given),
        "group": groups,
        **taken,
        "source_sha1": stored["source_sha1"],
        "pseudo_labelled_by": pa.nulls(len(stored), pa.string()),
    }
    return pa.table(columns, schema=labels_schema(len(plan.taxonomy)))


def duplicates_of(stored: pa.Table) -> list[list[int]]:
    """Places of images whose files are the same, byte by byte."""
    places_of = defaultdict(list)
    for place, sha1 in enumerate(stored["source_sha1"].to_pylist()):
        places_of[sha1].append(place)
    return [places for places in places_of.values() if len(places) > 1]


def _taken(plan: PreparePlan, stored: pa.Table, name: str) -> list[Any]:
    known = plan.metadata or {}
    return [
        getattr(known.get(image_id), name, None) if value is None else value
        for image_id, value in zip(
            stored["image_id"].to_pylist(), stored[name].to_pylist(), strict=True
        )
    ]


def _splits(
    plan: PreparePlan,
    image_ids: Sequence[str],
    groups: Sequence[str | None],
    given: Sequence[str | None],
) -> list[str]:
    """As the label file says where that is asked for, and drawn where it does not say."""
    splits = list(given) if plan.settings.split == "given" else [None] * len(image_ids)
    free = [place for place, split in enumerate(splits) if split is None]
    is_validation = assign_splits(
        [image_ids[place] for place in free],
        validation_fraction=plan.settings.validation_fraction,
        seed=plan.settings.split_seed,
        groups=[groups[place] for place in free],
    )
    drawn = {p: VALIDATION if held else TRAIN for p, held in zip(free, is_validation, strict=True)}
    return [split or drawn[place] for place, split in enumerate(splits)]
