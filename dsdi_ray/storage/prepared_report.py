"""What a prepared set says of itself: ``prepared.yaml`` and ``report.json``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.storage.prepare_plan import PreparePlan
from dsdi_ray.storage.prepared import TRAIN, VALIDATION, content_hash
from dsdi_ray.taxonomy import Taxonomy


def describe_set(
    plan: PreparePlan, outcomes: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe the set that a plan came to.

    Args:
        plan: What was to be done.
        outcomes: ``image_id`` with ``sha256`` of the stored bytes or ``reason`` for none, in the
            order of the plan's rows.

    Returns:
        What :func:`dsdi_ray.storage.prepared.publish_set` takes as ``spec`` and ``report``.

    Raises:
        DataError: If no image could be read.
    """
    unreadable = {o["image_id"]: o["reason"] for o in outcomes if o["reason"] is not None}
    if len(unreadable) == len(plan.rows):
        name, reason = next(iter(unreadable.items()))
        raise DataError(f"none of the {len(plan.rows)} images can be read; {name}: {reason}")
    readable = [o["reason"] is None for o in outcomes]
    kept = plan.rows.filter(pa.array(readable))
    by_split = Counter(kept["split"].to_pylist())
    hashes = [(o["image_id"], o["sha256"]) for o in outcomes if o["reason"] is None]
    counts = {
        "images": len(kept),
        TRAIN: by_split[TRAIN],
        VALIDATION: by_split[VALIDATION],
        "missing": len(plan.matched.missing),
        "unreadable": len(unreadable),
        "bad_rows": len(plan.labels.bad_rows),
    }
    spec = {
        "prepared_id": content_hash(hashes, kept, plan.taxonomy),
        "inputs_id": plan.inputs_id,
        "encoding": plan.labels.encoding,
        "settings": vars(plan.settings),
        "counts": counts,
        "taxonomy": plan.taxonomy.to_dict(),
    }
    return spec, _report(plan, counts, unreadable)


def _report(
    plan: PreparePlan, counts: Mapping[str, int], unreadable: Mapping[str, str]
) -> dict[str, Any]:
    labels, taxonomy = plan.labels, plan.taxonomy
    answers_per_image = Counter(labels.num_answers.tolist())
    return {
        **counts,
        "labelled_images": len(labels),
        "answers": int(labels.num_answers.sum()),
        "repeated_answers": labels.num_repeated,
        "missing_images": [{"image_id": i, "reason": r} for i, r in plan.matched.missing.items()],
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


def _per_class(values: NDArray[Any], taxonomy: Taxonomy) -> dict[str, int]:
    return dict(zip(taxonomy.class_names, values.sum(axis=0).tolist(), strict=True))
