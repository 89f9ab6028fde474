"""A prepared set with pseudo-labelled images: those of another set as they are, then the new ones.

The new ones are in the training part and stay there, whatever seed a recipe splits the set by. The
column ``pseudo_labelled_by`` names the ensemble.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsdi_ray.errors import DataError
from dsdi_ray.storage.prepared import (
    IMAGE_FILES,
    TRAIN,
    PreparedSet,
    labels_matrix,
    labels_schema,
)
from dsdi_ray.storage.prepared_files import (
    DUPLICATE,
    MISSING,
    STORED,
    UNREADABLE,
    content_hash,
)
from dsdi_ray.storage.pseudo_plan import PseudoPlan

_BATCH_IMAGES = 128
_WHY_NOT = {
    DUPLICATE: "labelled already: the same file or picture",
    MISSING: "the file is gone",
    UNREADABLE: "cannot be read",
}


def picture_hashes(prepared: PreparedSet) -> list[str]:
    """SHA-256 of each stored picture, in the order of the rows, ``[N]``.

    Raises:
        DataError: If an image file is damaged.
    """
    hashes: list[str] = []
    try:
        for file in sorted(prepared.path.glob(IMAGE_FILES)):
            for batch in pq.ParquetFile(file).iter_batches(_BATCH_IMAGES, columns=["jpeg"]):
                hashes += [hashlib.sha256(jpeg.as_buffer()).hexdigest() for jpeg in batch["jpeg"]]
    except (OSError, ValueError) as error:
        raise DataError(f"{prepared.path}: a file cannot be read: {error}") from error
    return hashes


def known_hashes(prepared: PreparedSet, pictures: Sequence[str]) -> frozenset[str]:
    """By what a copy of a labelled image is known: its picture's hash, or its file's."""
    files = prepared.read(["source_sha1"])["source_sha1"].drop_null().to_pylist()
    return frozenset([*pictures, *files])


def describe_pseudo_set(
    plan: PseudoPlan, outcomes: pa.Table, pictures: Sequence[str]
) -> tuple[pa.Table, dict[str, Any], dict[str, Any]]:
    """Describe the set that a plan came to.

    Args:
        plan: What was to be done.
        outcomes: Of :data:`dsdi_ray.storage.prepared_files.OUTCOME_SCHEMA`, of all of the plan's
            rows and in their order.
        pictures: Of the labelled images, see :func:`picture_hashes`.

    Returns:
        What :func:`dsdi_ray.storage.prepared_files.publish_set` takes as ``labels``, ``spec`` and
        ``report``.

    Raises:
        DataError: If no image is stored.
    """
    base, taxonomy = plan.prepared, plan.prepared.taxonomy
    stored = outcomes.filter(pc.equal(outcomes["status"], STORED)).combine_chunks()
    if not len(stored):
        by_status = Counter(outcomes["status"].to_pylist())
        reasons = "; ".join(f"{n} {_WHY_NOT[status]}" for status, n in by_status.items())
        raise DataError(f"none of the {len(outcomes)} images is new: {reasons}")
    added = _labels_of_stored(plan, stored)
    labels = pa.concat_tables([base.read(labels_schema(len(taxonomy)).names), added])
    counts = {
        **base.counts,
        "images": len(labels),
        TRAIN: base.counts[TRAIN] + len(added),
        "pseudo_labelled": len(added),
    }
    how = {
        "ensemble_id": plan.ensemble.ensemble_id,
        **vars(plan.settings),
        "labelled_set": base.prepared_id,
    }
    hashes = [*pictures, *stored["jpeg_sha256"].to_pylist()]
    spec = {
        "prepared_id": content_hash(hashes, labels, taxonomy),
        "inputs_id": plan.inputs_id,
        "encoding": base.encoding,
        "settings": {**base.settings, "pseudo_labels": how},
        "counts": counts,
        "taxonomy": taxonomy.to_dict(),
    }
    members = [{"member_id": m.member_id, "weight": m.weight} for m in plan.ensemble.members]
    facts = {
        **how,
        "members": members,
        "images": len(added),
        "left_out": left_out(plan, outcomes),
        "unreadable_images": _unreadable(outcomes),
        "classes": _on_classes(plan, added),
    }
    return labels, spec, {**base.report, **counts, "pseudo_labels": facts}


def left_out(plan: PseudoPlan, outcomes: pa.Table) -> dict[str, int]:
    """Images of the manifest that are not in the set, by reason."""
    by_status = Counter(outcomes["status"].to_pylist())
    later = {why: by_status[status] for status, why in _WHY_NOT.items() if by_status[status]}
    return {**plan.left_out, **later}


def _labels_of_stored(plan: PseudoPlan, stored: pa.Table) -> pa.Table:
    """Where and when an image was taken is what its file says, else what the manifest says."""
    is_stored = pc.is_in(plan.labels["image_id"], value_set=stored["image_id"].combine_chunks())
    labels = plan.labels.filter(is_stored).combine_chunks()
    for name in ("capture_time", "latitude", "longitude", "source_sha1"):
        values = pc.coalesce(stored[name], labels[name])
        labels = labels.set_column(labels.schema.get_field_index(name), name, values)
    return labels


def _unreadable(outcomes: pa.Table) -> list[dict[str, str]]:
    is_lost = pc.is_in(outcomes["status"], value_set=pa.array([MISSING, UNREADABLE]))
    rows: list[dict[str, str]] = outcomes.filter(is_lost).select(["image_id", "reason"]).to_pylist()
    return rows


def _on_classes(plan: PseudoPlan, labels: pa.Table) -> dict[str, dict[str, int]]:
    """Per class: images in which it is surely present, surely absent, neither."""
    is_told = labels_matrix(labels, "num_asked") > 0
    # Rounded alike, so that what is on the threshold stays there.
    is_present = labels_matrix(labels, "soft_label") >= np.float32(plan.settings.confident)
    kinds = {"present": is_told & is_present, "absent": is_told & ~is_present, "unsure": ~is_told}
    return {
        name: {kind: int(of_class[:, i].sum()) for kind, of_class in kinds.items()}
        for i, name in enumerate(plan.prepared.taxonomy.class_names)
    }
