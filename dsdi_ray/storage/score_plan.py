"""What a scoring job has to do: the clips of a manifest less what the store has already."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dsdi_ray.storage.score_store import (
    ScoreStore,
    failed_contents,
    newest_per_clip,
    scored_pairs,
    span_key,
)

_KEY = ["content_id", "span"]


@dataclass(frozen=True, kw_only=True)
class ScoringPlan:
    """Work that is missing, and the clips that each piece of it serves.

    Attributes:
        manifest: The clips asked for, with their span.
        work: One row per content to decode: work_id, uri, media, start_seconds, end_seconds,
            content_id, span, member_ids (those that are missing).
        clips_of_work: Positions in the manifest, per work_id. Several clips share a work item
            where their files are copies of each other.
        unreadable: Positions of clips whose file cannot be read at all, as far as the store does
            not say so yet.
        known: Position of a clip that the store does not know by this id, to the outcome of the
            same content that it has.
        num_pairs_present: (content, member) pairs that the store has.
        num_pairs_missing: Pairs that it lacks and that can be had.
        footage_hours: Length of the work, as far as the manifest knows it.
    """

    manifest: pa.Table
    work: pa.Table
    clips_of_work: Sequence[Sequence[int]]
    unreadable: Sequence[int]
    known: Mapping[int, Mapping[str, Any]]
    num_pairs_present: int
    num_pairs_missing: int
    footage_hours: float

    @property
    def num_work_items(self) -> int:
        return len(self.work)


def plan_scoring(
    manifest: pa.Table,
    *,
    store: ScoreStore,
    member_ids: Sequence[str],
    decode_id: str,
    retry_failed: bool = False,
) -> ScoringPlan:
    """Compare a manifest with a store on key columns alone.

    A content of which no frame decoded counts as done, whichever members are asked for, unless
    ``retry_failed``.

    Args:
        manifest: Clips.
        store: The store.
        member_ids: Members that every clip is to be scored by.
        decode_id: Decode settings that every clip is to be scored under.
        retry_failed: Try contents again that failed.
    """
    spans = [span_key(s, e) for s, e in _rows(manifest, "start_seconds", "end_seconds")]
    manifest = manifest.append_column("span", pa.array(spans, pa.string()))
    readable = manifest.append_column("row", pa.array(range(len(manifest)), pa.int64())).filter(
        pc.field("content_id").is_valid()
    )
    outcomes = store.outcomes()
    contents = readable.group_by(_KEY, use_threads=False).aggregate([("row", "min")])
    members = pa.table({"member_id": pa.array(member_ids, pa.string())})
    present = scored_pairs(outcomes, decode_id).join(members, "member_id", join_type="left semi")
    present = present.join(contents.select(_KEY), _KEY, join_type="left semi")
    candidates = contents
    if not retry_failed:
        candidates = contents.join(
            failed_contents(outcomes, decode_id), _KEY, join_type="left anti"
        )
    pairs = _cross(candidates, member_ids)
    missing = pairs.join(present, [*_KEY, "member_id"], join_type="left anti")
    work_rows = _members_by_row(missing)
    work = _work_table(manifest, work_rows)
    position = {key: i for i, key in enumerate(_rows(work, *_KEY))}
    clips_of_work: list[list[int]] = [[] for _ in range(len(work))]
    for row, *key in _rows(readable, "row", *_KEY):
        if tuple(key) in position:
            clips_of_work[position[tuple(key)]].append(row)
    durations = manifest["duration_seconds"].take(pa.array(list(work_rows), pa.int64()))
    return ScoringPlan(
        manifest=manifest,
        work=work,
        clips_of_work=clips_of_work,
        unreadable=list(_newly_unreadable(manifest, outcomes)),
        known=dict(_known_under_another_id(readable, outcomes, decode_id, set(position))),
        num_pairs_present=len(present),
        num_pairs_missing=len(missing),
        footage_hours=(pc.sum(durations).as_py() or 0.0) / 3600,
    )


def _rows(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _cross(contents: pa.Table, member_ids: Sequence[str]) -> pa.Table:
    parts = [
        contents.append_column("member_id", pa.array([m] * len(contents), pa.string()))
        for m in member_ids
    ]
    return pa.concat_tables(parts)


def _members_by_row(missing: pa.Table) -> dict[int, list[str]]:
    by_row: dict[int, list[str]] = {}
    for row, member_id in _rows(missing.sort_by("row_min"), "row_min", "member_id"):
        by_row.setdefault(row, []).append(member_id)
    return {row: sorted(members) for row, members in by_row.items()}


def _work_table(manifest: pa.Table, work_rows: Mapping[int, Sequence[str]]) -> pa.Table:
    columns = ["uri", "media", "start_seconds", "end_seconds", *_KEY]
    work = manifest.select(columns).take(pa.array(list(work_rows), pa.int64()))
    work = work.add_column(0, "work_id", pa.array(range(len(work)), pa.int64()))
    return work.append_column(
        "member_ids", pa.array(list(work_rows.values()), pa.list_(pa.string()))
    )


def _newly_unreadable(manifest: pa.Table, outcomes: pa.Table) -> Iterator[int]:
    newest = newest_per_clip(outcomes).filter(~pc.field("content_id").is_valid())
    recorded = set(_rows(newest, "clip_id", "uri", "error"))
    for row, clip in enumerate(_rows(manifest, "clip_id", "uri", "probe_error")):
        if manifest["content_id"][row].as_py() is None and clip not in recorded:
            yield row


def _known_under_another_id(
    readable: pa.Table, outcomes: pa.Table, decode_id: str, to_do: set[tuple[str, str]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Clips that need no work but whose newest outcome is of another content, or that have none."""
    mine = newest_per_clip(outcomes.filter(pc.field("decode_id") == decode_id))
    known_by_id = {
        clip: (content, span, uri)
        for clip, content, span, uri in _rows(mine, "clip_id", *_KEY, "uri")
    }
    strays = [
        (row, (content, span))
        for row, clip, uri, content, span in _rows(readable, "row", "clip_id", "uri", *_KEY)
        if (content, span) not in to_do and known_by_id.get(clip) != (content, span, uri)
    ]
    if strays:
        by_key = {(o["content_id"], o["span"]): o for o in mine.to_pylist()}
        yield from ((row, by_key[key]) for row, key in strays if key in by_key)
