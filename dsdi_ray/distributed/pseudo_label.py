"""Add images that nobody labelled to a prepared set, with an ensemble's scores as their labels.

The chain is ``scores in a store -> probabilities, as in ranking -> labels -> fetch and shrink, as in
preparing -> set``. The same command goes on after the parts that are complete.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dsdi_ray.distributed.clip_pooling import KEY, LOGITS_LOST, pool_clips
from dsdi_ray.distributed.prepare_tasks import blocks_to_do, images_per_second, store_images
from dsdi_ray.errors import DataError
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.outcome_scan import claimed_frames
from dsdi_ray.storage.prepared import TRAIN, VALIDATION, PreparedSet
from dsdi_ray.storage.prepared_files import PartialSet, complete_set
from dsdi_ray.storage.pseudo_plan import PseudoPlan, PseudoSettings, plan_pseudo_labels
from dsdi_ray.storage.pseudo_set import describe_pseudo_set, known_hashes, picture_hashes
from dsdi_ray.storage.score_rows import WHOLE_FILE, content_keys
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.store_files import reading
from dsdi_ray.taxonomy import check_same_taxonomy

_NO_IMAGE = "clips that are no still image"
_UNREADABLE = "that could not be read when they were indexed"
_UNSCORED = "not scored by every member (run `dsdi score`)"


@dataclass(frozen=True, kw_only=True)
class PseudoLabelSummary:
    """What pseudo-labelling came to.

    Attributes:
        num_labelled: Images of the set that it began with.
        num_pseudo_labelled: Images that were added, or would be where that is all that was asked.
        num_train: Images to train on, the added ones among them.
        num_validation: Held back, as before.
        left_out: Images of the manifest that were not added, by reason.
        num_done_before: Images that an earlier run had dealt with.
        num_to_do: Images that are left, if nothing was to be done.
        ensemble_id: Who labelled.
        seconds: Wall clock.
        estimated_seconds: What the rest is expected to take, None where nothing was tried.
        out: The new set's folder.
        prepared_id: Its identity; None without a set.
        reused: True if the set was complete and nothing was done.
        dry_run: True if nothing was to be done.
    """

    num_labelled: int
    num_pseudo_labelled: int
    num_train: int
    num_validation: int
    left_out: Mapping[str, int]
    num_done_before: int
    num_to_do: int
    ensemble_id: str
    seconds: float
    estimated_seconds: float | None
    out: Path
    prepared_id: str | None
    reused: bool
    dry_run: bool


def pseudo_label_set(
    store_uri: str,
    *,
    ensemble: EnsembleSpec,
    manifest: pa.Table,
    prepared: Path,
    out: Path,
    decode_id: str,
    settings: PseudoSettings,
    overwrite: bool = False,
    dry_run: bool = False,
) -> PseudoLabelSummary:
    """Write a prepared set of all that another has and of images that an ensemble is sure of.

    The labelled images stay as they are, in their part; the others are trained on and never
    validated on. The set appears at ``out`` in one step, when it is complete.

    Args:
        store_uri: Folder or URI of the store that the images were scored into.
        ensemble: Who labels.
        manifest: The images, see :mod:`dsdi_ray.storage.manifest`; clips of video are passed over.
        prepared: The set of labelled images.
        out: Folder of the new set; on a cluster, one that every node shares.
        decode_id: Decode settings under which the images were scored.
        settings: What the ensemble must be sure of.
        overwrite: Whether another prepared set at ``out`` is replaced.
        dry_run: Only say what would be done, and try a few images to say how long it would take.

    Raises:
        DataError: If there is no image to add, or something else is at ``out``.
        TaxonomyError: If store, ensemble and set are not of one taxonomy.
        StoreError: If images could not be had now; the same call goes on from there.
    """
    started = time.monotonic()
    out, base = out.resolve(), PreparedSet.open(prepared.resolve())
    if out == base.path:
        raise DataError(f"{out}: is the set of labelled images, the new one needs another folder")
    store = ScoreStore.open(store_uri)
    check_same_taxonomy(store.taxonomy, ensemble.taxonomy, what="the ensemble")
    check_same_taxonomy(store.taxonomy, base.taxonomy, what=f"the set {base.path}")
    images, unscored = _scored_images(store, manifest, ensemble, decode_id)
    images, probs, num_lost = _probabilities(store, images, ensemble, decode_id)
    if num_lost:
        unscored = {**unscored, LOGITS_LOST: num_lost}
    plan = plan_pseudo_labels(
        base,
        images,
        probs,
        ensemble=ensemble,
        settings=settings,
        unscored=unscored,
    )
    summarize = partial(_summary, plan, started=started, out=out)
    existing = complete_set(out, inputs_id=plan.inputs_id, overwrite=overwrite)
    if existing is not None:
        return summarize(existing, num_done_before=existing.num_pseudo_labelled, reused=True)
    parts = PartialSet.of(out, plan.inputs_id)
    done = parts.outcomes()
    if dry_run:
        return summarize(None, num_done_before=len(done), reused=False)
    parts.begin(out)
    pictures = picture_hashes(base)
    outcomes = store_images(
        plan.rows,
        parts=parts,
        done=done,
        settings=plan.store_as,
        known=known_hashes(base, pictures),
    )
    try:
        labels, spec, report = describe_pseudo_set(plan, outcomes, pictures)
    except DataError:
        parts.remove()
        raise
    parts.take_images(base)
    new = parts.publish(out, labels=labels, spec=spec, report=report)
    return summarize(new, num_done_before=len(done), reused=False)


def _scored_images(
    store: ScoreStore, manifest: pa.Table, ensemble: EnsembleSpec, decode_id: str
) -> tuple[pa.Table, Mapping[str, int]]:
    """The manifest's images that every member has scored, and why others are left out."""
    still = manifest.filter(pc.equal(manifest["media"], "image"))
    spans = pa.repeat(pa.scalar(WHOLE_FILE, pa.string()), len(still))
    still = still.append_column("span", spans)
    keys = content_keys(still)
    contents = pc.unique(keys).drop_null()
    frames = store.read_outcomes(
        partial(
            claimed_frames,
            contents=contents,
            member_ids=[m.member_id for m in ensemble.members],
            decode_id=decode_id,
        )
    )
    complete = contents.filter(pa.array((frames > 0).all(axis=1)))
    is_scored = pc.is_in(keys, value_set=complete)
    scored, rest = still.filter(is_scored), still.filter(pc.invert(is_scored))
    is_broken = pc.or_(rest["content_id"].is_null(), rest["probe_error"].is_valid())
    num_broken = len(rest.filter(is_broken))
    left_out = {
        _NO_IMAGE: len(manifest) - len(still),
        _UNREADABLE: num_broken,
        _UNSCORED: len(rest) - num_broken,
    }
    return scored, {reason: n for reason, n in left_out.items() if n}


def _probabilities(
    store: ScoreStore, images: pa.Table, ensemble: EnsembleSpec, decode_id: str
) -> tuple[pa.Table, NDArray[np.float64], int]:
    """The images, what the ensemble says of each, ``[N, C]``, and how many lost their logits.

    An image is a clip of one frame.
    """
    num_classes = len(store.taxonomy)
    if not len(images):
        return images, np.empty((0, num_classes)), 0
    pool_all = partial(
        pool_clips,
        store,
        images.select(KEY).group_by(KEY).aggregate([]),
        decode_id=decode_id,
        weights=[{m.member_id: m.weight for m in ensemble.members}],
        pool="max",
        order="frame_first",
    )
    pooled = reading(pool_all, what=store.uri)
    rows = pc.index_in(content_keys(images), value_set=content_keys(pooled))
    found, rows = images.filter(rows.is_valid()), rows.drop_null().to_numpy()
    scores = pc.list_flatten(pooled["scores"]).to_numpy().reshape(-1, num_classes)
    return found, np.asarray(scores[rows], np.float64), len(images) - len(found)


def _summary(
    plan: PseudoPlan,
    new: PreparedSet | None,
    *,
    started: float,
    out: Path,
    num_done_before: int,
    reused: bool,
) -> PseudoLabelSummary:
    """Of the new set, or of what there is to do for one."""
    base, num_left = plan.prepared, 0
    num_added, left_out = len(plan.rows), plan.left_out
    estimated_seconds: float | None = None
    if new is None:
        blocks = blocks_to_do(plan.rows, PartialSet.of(out, plan.inputs_id).outcomes())
        num_left, estimated_seconds = sum(map(len, blocks)), 0.0
        if blocks:
            estimated_seconds = num_left / images_per_second(blocks, settings=plan.store_as)
    else:
        num_added = new.num_pseudo_labelled
        left_out = new.report["pseudo_labels"]["left_out"]
    return PseudoLabelSummary(
        num_labelled=base.num_images,
        num_pseudo_labelled=num_added,
        num_train=base.counts[TRAIN] + num_added,
        num_validation=base.counts[VALIDATION],
        left_out=left_out,
        num_done_before=num_done_before,
        num_to_do=num_left,
        ensemble_id=plan.ensemble.ensemble_id,
        seconds=time.monotonic() - started,
        estimated_seconds=estimated_seconds,
        out=out,
        prepared_id=None if new is None else new.prepared_id,
        reused=reused,
        dry_run=new is None,
    )
