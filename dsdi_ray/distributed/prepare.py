"""Make a prepared set: crowd answers and photographs in, soft labels and small JPEGs out.

A part of the images whose outcomes are written is done: the same command goes on after it, whoever
was killed.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from dsdi_ray.distributed.prepare_tasks import (
    blocks_to_do,
    images_per_second,
    store_images,
)
from dsdi_ray.errors import DataError
from dsdi_ray.storage.prepare_plan import PreparePlan, PrepareSettings, plan_preparation
from dsdi_ray.storage.prepared import TRAIN, VALIDATION, PreparedSet
from dsdi_ray.storage.prepared_files import (
    MISSING,
    STORED,
    UNREADABLE,
    PartialSet,
    complete_set,
)
from dsdi_ray.storage.prepared_report import describe_set
from dsdi_ray.taxonomy import Taxonomy


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What a preparation came to.

    Attributes:
        num_labelled: Images that the label file has usable labels of.
        num_images: Images in the set, or found for it where that is all that was asked.
        num_train: Of these, to train on.
        num_validation: Held back.
        num_missing: Labelled images without a file.
        num_unreadable: Images whose file does not decode.
        num_done_before: Images that an earlier run had dealt with.
        num_to_do: Images that are left, if nothing was to be done.
        num_bad_rows: Rows of the label file that could not be used.
        unknown_strings: Answers that mean no class, by how often they came.
        seconds: Wall clock.
        estimated_seconds: What the rest is expected to take, None where nothing was tried.
        out: The set's folder.
        prepared_id: The set's identity, see :class:`PreparedSet`; None without a set.
        reused: True if the set was complete and nothing was done.
        dry_run: True if nothing was to be done.
    """

    num_labelled: int
    num_images: int
    num_train: int | None
    num_validation: int | None
    num_missing: int
    num_unreadable: int
    num_done_before: int
    num_to_do: int
    num_bad_rows: int
    unknown_strings: Mapping[str, int]
    seconds: float
    estimated_seconds: float | None
    out: Path
    prepared_id: str | None
    reused: bool
    dry_run: bool


def prepare_set(
    answers: Path,
    *,
    images: Sequence[str | Path],
    out: Path,
    taxonomy: Taxonomy,
    settings: PrepareSettings | None = None,
    metadata: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> PrepareSummary:
    """Write a prepared set; one that is complete for the same inputs and settings is kept.

    Images without a file, images that do not decode and rows that cannot be read are left out and
    listed in ``report.json``. The set appears at ``out`` in one step, when it is complete.

    Args:
        answers: LADI v1's answers or a wide table, see :mod:`dsdi_ray.storage.ladi`.
        images: Folders, tars, or URIs of these, see
            :func:`dsdi_ray.storage.image_sources.locate_images`.
        out: Folder of the set; on a cluster, one that every node shares.
        taxonomy: Which classes answers are read as.
        settings: How the set is made.
        metadata: LADI's table of images, see :mod:`dsdi_ray.storage.ladi_metadata`.
        overwrite: Whether another prepared set at ``out`` is replaced.
        dry_run: Only say what would be done, and try a few images to say how long it would take.

    Raises:
        ConfigError: If a setting is out of range.
        DataError: If nothing usable is there, or something else is at ``out``.
        StoreError: If images could not be had now; the same call goes on from there.
    """
    started = time.monotonic()
    out = out.resolve()
    plan = plan_preparation(
        answers,
        images=images,
        taxonomy=taxonomy,
        settings=settings or PrepareSettings(),
        metadata=metadata,
    )
    summarize = partial(_summary, plan, started=started)
    existing = complete_set(out, inputs_id=plan.inputs_id, overwrite=overwrite)
    if existing is not None:
        return summarize(existing, num_done_before=existing.num_images, reused=True)
    parts = PartialSet.of(out, plan.inputs_id)
    done = parts.outcomes()
    if dry_run:
        return _dry_summary(plan, done, out, started=started)
    parts.begin(out)
    outcomes = store_images(plan.rows, parts=parts, done=done, settings=plan.settings)
    try:
        labels, spec, report = describe_set(plan, outcomes)
    except DataError:
        parts.remove()
        raise
    prepared = parts.publish(out, labels=labels, spec=spec, report=report)
    return summarize(prepared, num_done_before=len(done), reused=False)


def _summary(
    plan: PreparePlan,
    prepared: PreparedSet,
    *,
    started: float,
    num_done_before: int,
    reused: bool,
) -> PrepareSummary:
    return PrepareSummary(
        num_labelled=len(plan.labels),
        num_images=prepared.num_images,
        num_train=prepared.counts[TRAIN],
        num_validation=prepared.counts[VALIDATION],
        num_missing=prepared.counts["missing"],
        num_unreadable=prepared.counts["unreadable"],
        num_done_before=num_done_before,
        num_to_do=0,
        num_bad_rows=prepared.counts["bad_rows"],
        unknown_strings=plan.labels.unknown_strings,
        seconds=time.monotonic() - started,
        estimated_seconds=None,
        out=prepared.path,
        prepared_id=prepared.prepared_id,
        reused=reused,
        dry_run=False,
    )


def _dry_summary(plan: PreparePlan, done: pa.Table, out: Path, *, started: float) -> PrepareSummary:
    by_status = Counter(done["status"].to_pylist())
    blocks = blocks_to_do(plan.rows, done)
    num_left = sum(map(len, blocks))
    estimated_seconds = 0.0
    if blocks:
        rate = images_per_second(blocks, settings=plan.settings)
        estimated_seconds = num_left / rate
    return PrepareSummary(
        num_labelled=len(plan.labels),
        num_images=by_status[STORED] + num_left,
        num_train=None,
        num_validation=None,
        num_missing=len(plan.located.missing) + by_status[MISSING],
        num_unreadable=by_status[UNREADABLE],
        num_done_before=len(done),
        num_to_do=num_left,
        num_bad_rows=len(plan.labels.bad_rows),
        unknown_strings=plan.labels.unknown_strings,
        seconds=time.monotonic() - started,
        estimated_seconds=estimated_seconds,
        out=out,
        prepared_id=None,
        reused=False,
        dry_run=True,
    )
