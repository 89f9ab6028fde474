"""What a prepared set says of itself: ``prepared.yaml`` and ``report.json``."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.method.soft_labels import majority_labels
from dsdi_ray.storage.prepare_plan import PreparePlan
from dsdi_ray.storage.prepared import TRAIN, VALIDATION, labels_matrix
from dsdi_ray.storage.prepared_files import MISSING, STORED, UNREADABLE, content_hash
from dsdi_ray.storage.prepared_labels import duplicates_of, labels_table
from dsdi_ray.taxonomy import Taxonomy


def describe_set(
    plan: PreparePlan, outcomes: pa.Table
) -> tuple[pa.Table, dict[str, Any], dict[str, Any]]:
    """Describe the set that a plan came to.

    Args:
        plan: What was to be done.
        outcomes: Of :data:`dsdi_ray.storage.prepared_files.OUTCOME_SCHEMA`, of all of the plan's
            rows and in their order.

    Returns:
        What :func:`dsdi_ray.storage.prepared_files.publish_set` takes as ``labels``, ``spec`` and
        ``report``.

    Raises:
        DataError: If no image is stored, or the images have no such unit as they are to be split
            by.
    """
    stored = outcomes.filter(pc.equal(outcomes["status"], STORED))
    if not len(stored):
        first = outcomes.slice(0, 1).to_pylist()[0]
        raise DataError(
            f"none of the {len(outcomes)} images can be read; {first['image_id']}: {first['reason']}"
        )
    labels = labels_table(plan, stored)
    by_split = Counter(labels["split"].to_pylist())
    missing = [*plan.located.missing.items(), *_reasons(outcomes, MISSING)]
    unreadable = _reasons(outcomes, UNREADABLE)
    counts = {
        "images": len(labels),
        TRAIN: by_split[TRAIN],
        VALIDATION: by_split[VALIDATION],
        "missing": len(missing),
        "unreadable": len(unreadable),
        "bad_rows": len(plan.labels.bad_rows),
    }
    spec = {
        "prepared_id": content_hash(stored["jpeg_sha256"].to_pylist(), labels, plan.taxonomy),
        "inputs_id": plan.inputs_id,
        "encoding": plan.labels.encoding,
        "settings": vars(plan.settings),
        "counts": counts,
        "taxonomy": plan.taxonomy.to_dict(),
    }
    report = {
        **counts,
        **_on_files(plan, stored, labels),
        "missing_images": [{"image_id": i, "reason": r} for i, r in sorted(missing)],
        "unreadable_images": [{"image_id": i, "reason": r} for i, r in unreadable],
        **_on_answers(plan),
        "classes": _on_classes(labels, plan.taxonomy),
    }
    return labels, spec, report


def _reasons(outcomes: pa.Table, status: str) -> list[tuple[str, str]]:
    chosen = outcomes.filter(pc.equal(outcomes["status"], status))
    return list(zip(chosen["image_id"].to_pylist(), chosen["reason"].to_pylist(), strict=True))


def _on_files(plan: PreparePlan, stored: pa.Table, labels: pa.Table) -> dict[str, Any]:
    image_ids, splits = stored["image_id"].to_pylist(), labels["split"].to_pylist()
    duplicates = duplicates_of(stored)
    facts: dict[str, Any] = {
        "split_units": len(set(labels["group"].to_pylist()) - {None}) + labels["group"].null_count,
        "duplicates": [[image_ids[place] for place in places] for places in duplicates],
        "duplicates_on_both_sides": sum(len({splits[p] for p in ps}) > 1 for ps in duplicates),
        "without_capture_time": labels["capture_time"].null_count,
        "without_location": labels["latitude"].null_count,
    }
    if plan.metadata is not None:
        known = plan.metadata
        facts["missing_metadata"] = [i for i in plan.labels.image_ids if i not in known]
        facts["not_the_file_of_the_metadata"] = [
            image_id
            for image_id, sha1 in zip(image_ids, stored["source_sha1"].to_pylist(), strict=True)
            if image_id in known and known[image_id].sha1 not in {None, sha1}
        ]
    return facts


def _on_answers(plan: PreparePlan) -> dict[str, Any]:
    labels = plan.labels
    answers_per_image = Counter(labels.num_answers.tolist())
    return {
        "labelled_images": len(labels),
        "answers": int(labels.num_answers.sum()),
        "repeated_answers": labels.num_repeated,
        "images_by_number_of_answers": {
            str(n): answers_per_image[n] for n in sorted(answers_per_image)
        },
        "unknown_strings": dict(labels.unknown_strings),
        "unknown_string_examples": dict(labels.unknown_examples),
        "held_out_for_test": list(labels.held_out),
        "unlabelled_images": list(labels.unlabelled),
        "bad_row_list": [vars(bad_row) for bad_row in labels.bad_rows],
        "ignored_columns": list(labels.ignored_columns),
    }


def _on_classes(labels: pa.Table, taxonomy: Taxonomy) -> dict[str, dict[str, int]]:
    """Of the stored images, per class: answers, images asked, images by majority per split."""
    counts, num_asked = labels_matrix(labels, "answer_counts"), labels_matrix(labels, "num_asked")
    by_majority = majority_labels(counts, num_asked)
    is_train = pc.equal(labels["split"], TRAIN).to_numpy()
    columns: Mapping[str, NDArray[Any]] = {
        "answers": counts.sum(axis=0),
        "images_asked": (num_asked > 0).sum(axis=0),
        "images_by_majority": by_majority.sum(axis=0),
        "of_these_in_train": by_majority[is_train].sum(axis=0),
    }
    return {
        name: {column: int(values[i]) for column, values in columns.items()}
        for i, name in enumerate(taxonomy.class_names)
    }
