"""What a scoring job has to do: the clips of a manifest less what the store has already.

Shapes: N clips, K contents, W work items, M members.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from dsdi_ray.storage.outcome_columns import portions
from dsdi_ray.storage.outcome_scan import OutcomeScan
from dsdi_ray.storage.score_rows import OUTCOME_SCHEMA, WHOLE_FILE, content_keys, span_key
from dsdi_ray.storage.score_store import ScoreStore

_LISTS_PER_CHUNK = 1_000_000  # an Arrow array holds 2 GiB of text at most


@dataclass(frozen=True, kw_only=True)
class ScoringPlan:
    """Work that is missing, and the clips that each piece of it serves.

    Attributes:
        manifest: The clips asked for, with their span.
        work: One row per content to decode: work_id, uri, media, start_seconds, end_seconds,
            content_id, span, member_ids (those that are missing).
        clips_of_work: Positions in the manifest, a list per work_id. Several clips share a work
            item where their files are copies of each other.
        unreadable: Positions of clips whose file cannot be read at all, as far as the store does
            not say so yet.
        known: Outcomes to record for clips that need no work but that the store does not know by
            this id or at this place: those that it has of the same content.
        num_pairs_present: (content, member) pairs that the store has and that are kept.
        num_pairs_missing: Pairs that it lacks and that can be had.
        lengths: Of each work item, as far as the manifest knows: media, duration_seconds, source_fps.
    """

    manifest: pa.Table
    work: pa.Table
    clips_of_work: pa.ListArray
    unreadable: pa.Array
    known: pa.Table
    num_pairs_present: int
    num_pairs_missing: int
    lengths: pa.Table

    @property
    def num_work_items(self) -> int:
        return len(self.work)

    @property
    def footage_hours(self) -> float:
        """Length of the work, as far as the manifest knows it."""
        return (pc.sum(self.lengths["duration_seconds"]).as_py() or 0.0) / 3600

    @property
    def num_unknown(self) -> int:
        """Videos whose length the manifest does not know."""
        return int(np.isnan(self.frames_per_item(1.0, unknown=np.nan)).sum())

    def frames_per_item(self, fps: float, *, unknown: float | None = None) -> NDArray[np.float64]:
        """Frames that each work item comes to, ``[W]``; a still image is one.

        Args:
            fps: Frames per second that are scored; slower footage has fewer.
            unknown: For videos of unknown length; None for the mean of the others.
        """
        rates = pc.min_element_wise(self.lengths["source_fps"], fps, skip_nulls=True)
        lengths = pc.multiply(self.lengths["duration_seconds"], rates)
        frames: NDArray[np.float64] = pc.fill_null(lengths, np.nan).to_numpy()
        is_image = pc.equal(self.lengths["media"], "image").to_numpy(zero_copy_only=False)
        frames = np.where(is_image, 1.0, frames)
        is_unknown = np.isnan(frames)
        if unknown is None:
            known = frames[~is_unknown & ~is_image]
            unknown = float(known.mean()) if len(known) else 0.0
        return np.where(is_unknown, unknown, frames)


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """The distinct (content_id, span) of a manifest, in the order of their first clips.

    Attributes:
        keys: ``[K]``.
        of_clip: Number of each clip's content, -1 if it cannot be read, ``[N]``.
    """

    keys: pa.Array
    of_clip: NDArray[np.int64]

    @staticmethod
    def of(manifest: pa.Table) -> "_Contents":
        encoded = content_keys(manifest).combine_chunks().dictionary_encode()
        of_clip = pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64)
        return _Contents(keys=encoded.dictionary, of_clip=of_clip)

    def first_clips(self) -> NDArray[np.int64]:
        """Position of each content's first clip, ``[K]``."""
        numbers, first = np.unique(self.of_clip, return_index=True)
        return first[numbers >= 0]


def plan_scoring(
    manifest: pa.Table,
    *,
    store: ScoreStore,
    member_ids: Sequence[str],
    decode_id: str,
    retry_failed: bool = False,
) -> ScoringPlan:
    """Compare a manifest with a store on key columns alone.

    What a passing error cut short is done again; its logits are ranked meanwhile. What failed for a
    reason that lasts is not tried again unless ``retry_failed``: see
    :meth:`~dsdi_ray.storage.outcome_scan.OutcomeScan.is_blocked`.

    Args:
        manifest: Clips.
        store: The store.
        member_ids: Members that every clip is to be scored by.
        decode_id: Decode settings that every clip is to be scored under.
        retry_failed: Try contents again that failed or are partial.
    """
    manifest = manifest.append_column("span", _spans(manifest))
    contents = _Contents.of(manifest)
    members = sorted(member_ids)

    def scan(dataset: pads.Dataset) -> tuple[OutcomeScan, NDArray[np.bool_], pa.Table]:
        seen = OutcomeScan(
            clips=manifest.select(["clip_id", "uri", "probe_error"]),
            content_of_clip=contents.of_clip,
            contents=contents.keys,
            member_ids=members,
            decode_id=decode_id,
            redo_partial=retry_failed,
        )
        for outcomes, first_row in portions(dataset, OutcomeScan.COLUMNS):
            seen.add(outcomes, first_row)
        is_missing = ~seen.is_present
        if not retry_failed:
            is_missing &= ~seen.is_blocked()
        to_do = np.flatnonzero(is_missing.any(axis=1))
        return seen, is_missing, _known_elsewhere(dataset, manifest, contents, seen, to_do)

    seen, is_missing, known = store.read_outcomes(scan)
    to_do = np.flatnonzero(is_missing.any(axis=1))
    work = _work_table(manifest.take(contents.first_clips()[to_do]), is_missing[to_do], members)
    is_unrecorded = (contents.of_clip < 0) & ~seen.is_recorded
    return ScoringPlan(
        manifest=manifest,
        work=work.drop_columns(["duration_seconds", "source_fps"]),
        clips_of_work=_clips_of_work(contents, to_do),
        unreadable=pa.array(np.flatnonzero(is_unrecorded)),
        known=known,
        num_pairs_present=int(seen.is_present.sum()),
        num_pairs_missing=int(is_missing.sum()),
        lengths=work.select(["media", "duration_seconds", "source_fps"]),
    )


def _spans(manifest: pa.Table) -> pa.ChunkedArray:
    parts = manifest.select(["start_seconds", "end_seconds"])
    is_part = pc.or_(parts["start_seconds"].is_valid(), parts["end_seconds"].is_valid())
    spans = np.full(len(manifest), WHOLE_FILE, object)
    rows = parts.filter(is_part).to_pydict()
    spans[is_part.to_numpy()] = [span_key(*part) for part in zip(*rows.values(), strict=True)]
    return pa.chunked_array([pa.array(spans, pa.string())])


def _work_table(clips: pa.Table, is_missing: NDArray[np.bool_], members: Sequence[str]) -> pa.Table:
    """Work items of these clips and of the members that each lacks (``[W, M]``)."""
    columns = ["uri", "media", "start_seconds", "end_seconds", "content_id", "span"]
    work = clips.select([*columns, "duration_seconds", "source_fps"])
    work = work.add_column(0, "work_id", pa.array(np.arange(len(work), dtype=np.int64)))
    names = pa.array(members, pa.string())
    starts = range(0, len(is_missing), _LISTS_PER_CHUNK)
    parts = [is_missing[start : start + _LISTS_PER_CHUNK] for start in starts]
    lists = [
        pa.ListArray.from_arrays(
            _offsets(part.sum(axis=1)), names.take(pa.array(part.nonzero()[1]))
        )
        for part in parts
    ]
    return work.append_column("member_ids", pa.chunked_array(lists, pa.list_(pa.string())))


def _clips_of_work(contents: _Contents, to_do: NDArray[np.int64]) -> pa.ListArray:
    work_of_content = np.full(len(contents.keys) + 1, -1, np.int64)  # the last: no content
    work_of_content[to_do] = np.arange(len(to_do))
    work = work_of_content[contents.of_clip]
    clips = np.argsort(work, kind="stable")[(work < 0).sum() :]
    lengths = np.bincount(work[clips], minlength=len(to_do))
    return pa.ListArray.from_arrays(_offsets(lengths), pa.array(clips))


def _offsets(lengths: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _known_elsewhere(
    dataset: pads.Dataset,
    manifest: pa.Table,
    contents: _Contents,
    seen: OutcomeScan,
    to_do: NDArray[np.int64],
) -> pa.Table:
    """Outcomes for clips that need no work but whose newest outcome is of another file, or none."""
    row = np.append(seen.row_of_content, -1)[contents.of_clip]
    row[np.isin(contents.of_clip, to_do)] = -1
    clips = np.flatnonzero(~seen.is_recorded & (row >= 0))
    if not len(clips):
        return OUTCOME_SCHEMA.empty_table()
    rows, place = np.unique(row[clips], return_inverse=True)
    outcomes = dataset.take(pa.array(rows)).take(pa.array(place))
    named = manifest.select(["clip_id", "uri"]).take(pa.array(clips))
    return pa.Table.from_arrays([*named.columns, *outcomes.columns[2:]], schema=OUTCOME_SCHEMA)
