"""Merge a store's many small files into few large ones, sorted, each row once.

Sources are listed, merged into new parts, and deleted when all of those are in place; what scoring
jobs append meanwhile is not among them and stays. A kill leaves rows twice at worst, which count
once and which the next compaction finds: a part that shares a clip with another is merged again.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs as pafs

from dsdi_ray.storage.score_rows import content_keys
from dsdi_ray.storage.score_store import OUTCOMES, ScoreStore
from dsdi_ray.storage.store_claim import sole_maintenance
from dsdi_ray.storage.store_files import StoreFiles
from dsdi_ray.storage.store_merge import PART_BYTES, Folder, folders_of, is_merged, merge_parts

_SMALL_PART_BYTES = PART_BYTES // 3


@dataclass(frozen=True, kw_only=True)
class CompactSummary:
    """What a compaction did, or would do.

    Attributes:
        num_folders: Folders of parts: one per (decode settings, member), and the outcomes.
        num_parts_before: Parts in them.
        num_parts_merged: Of these, those that were merged.
        num_parts_after: Parts afterwards; None after a dry run.
        num_rows_dropped: Rows that were there twice; None after a dry run.
        bytes_before: Size of all parts.
        bytes_merged: Size of those that were merged.
        bytes_after: Size afterwards; None after a dry run.
        dry_run: True if nothing was changed.
    """

    num_folders: int
    num_parts_before: int
    num_parts_merged: int
    num_parts_after: int | None
    num_rows_dropped: int | None
    bytes_before: int
    bytes_merged: int
    bytes_after: int | None
    dry_run: bool


def compact_store(store: ScoreStore, *, dry_run: bool = False) -> CompactSummary:
    """Compact every folder of a store; scoring jobs and readers may run meanwhile.

    Raises:
        StoreError: If another maintenance command runs, or a part cannot be read or written;
            no row is lost then.
    """
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(sole_maintenance(store.files, "dsdi store compact"))
        before, sources, num_dropped, after = [], [], 0, []
        folders = folders_of(store)
        for folder in folders:
            parts = store.files.parts(folder.path)
            chosen = parts_to_merge(store.files, folder, parts)
            before += parts
            sources += chosen
            if chosen and not dry_run:
                num_dropped += merge_parts(store.files, folder, chosen)
            after += store.files.parts(folder.path)
    return CompactSummary(
        num_folders=len(folders),
        num_parts_before=len(before),
        num_parts_merged=len(sources),
        num_parts_after=None if dry_run else len(after),
        num_rows_dropped=None if dry_run else num_dropped,
        bytes_before=sum(part.size for part in before),
        bytes_merged=sum(part.size for part in sources),
        bytes_after=None if dry_run else sum(part.size for part in after),
        dry_run=dry_run,
    )


def parts_to_merge(
    files: StoreFiles, folder: Folder, parts: Sequence[pafs.FileInfo]
) -> list[pafs.FileInfo]:
    """Parts that are small or unsorted, and those that share a clip with another."""
    loose = [part for part in parts if not is_merged(part) or part.size < _SMALL_PART_BYTES]
    if len(parts) < 2 and all(is_merged(part) for part in parts):
        return []
    if folder.path == OUTCOMES:  # a clip has several as a rule
        return list(parts) if loose else []
    contents = {part.path: contents_of(files, part.path) for part in parts}
    num_parts_with = Counter(key for keys in contents.values() for key in keys)
    shared = {key for key, num_parts in num_parts_with.items() if num_parts > 1}
    chosen = [p for p in parts if p in loose or not shared.isdisjoint(contents[p.path])]
    return [] if len(chosen) == 1 and is_merged(chosen[0]) else chosen


def contents_of(files: StoreFiles, path: str) -> list[str]:
    """The distinct contents in a logits part, as keys."""
    with files.open_part(path) as part:
        keys = [
            pc.unique(content_keys(part.read_row_group(i, columns=["content_id", "span"])))
            for i in range(part.num_row_groups)
        ]
    return list(pa.chunked_array(keys, pa.string()).unique().to_pylist())
