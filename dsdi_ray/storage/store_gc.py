"""Drop what no kept ensemble uses: logits of other members and settings, orphans, leftovers.

Outcomes stop claiming a (clip, member) pair before its logits go, so that a crash in between leaves
logits that nothing vouches for, never an outcome that vouches for nothing.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs as pafs

from dsdi_ray.errors import DataError
from dsdi_ray.storage.outcome_scan import claimed_frames, known_contents
from dsdi_ray.storage.score_rows import OUTCOME_SCHEMA, content_keys
from dsdi_ray.storage.score_store import OUTCOMES, ScoreStore
from dsdi_ray.storage.store_claim import sole_maintenance
from dsdi_ray.storage.store_merge import Folder, folders_of, merge_parts

_ORPHAN_AGE = timedelta(days=1)  # younger ones may be of clips that are being scored


@dataclass(frozen=True, kw_only=True)
class GcSummary:
    """What was dropped, or would be.

    Attributes:
        num_claims_dropped: (clip, member) pairs that outcomes no longer claim.
        num_parts_dropped: Parts of logits of members and settings that are not kept.
        num_orphan_rows: Rows of logits, of kept members, that no outcome vouches for.
        num_temporaries: Files of writes that were cut off.
        bytes_dropped: Size of all of it; of orphans by their share of their parts.
        dry_run: True if nothing was changed.
    """

    num_claims_dropped: int
    num_parts_dropped: int
    num_orphan_rows: int
    num_temporaries: int
    bytes_dropped: int
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept: members, and decode settings, of which None keeps all."""

    member_ids: Collection[str]
    decode_ids: Collection[str] | None = None

    def has(self, decode_id: str, member_id: str) -> bool:
        """Whether these logits are kept."""
        is_kept = self.decode_ids is None or decode_id in self.decode_ids
        return is_kept and member_id in self.member_ids

    def claims_of(self, outcomes: pa.Table) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Members of outcomes, the outcome that each is of, and whether it stays there.

        A failed outcome claims no logits, so its members stay.
        """
        lists = outcomes["member_ids"].combine_chunks()
        members, parents = pc.list_flatten(lists), pc.list_parent_indices(lists)
        is_kept = pc.is_in(members, value_set=pa.array(list(self.member_ids), pa.string()))
        if self.decode_ids is not None:
            settings = outcomes["decode_id"].take(parents).combine_chunks()
            values = pa.array(list(self.decode_ids), pa.string())
            is_kept = pc.and_(is_kept, pc.is_in(settings, value_set=values))
        has_failed = pc.equal(outcomes["status"], "failed").take(parents).combine_chunks()
        return members, parents, pc.or_(is_kept, has_failed)


def collect_garbage(
    store: ScoreStore, kept: Kept, *, now: datetime | None = None, dry_run: bool = False
) -> GcSummary:
    """Drop the logits that are not kept, and what jobs that were cut off left behind.

    Not while a job scores members that are dropped; other jobs and readers may run. Orphaned logits
    and temporary files go once they are a day old.

    Args:
        store: The store.
        kept: What stays.
        now: Time from which ages count; None for the clock's.
        dry_run: Only say what would go.

    Raises:
        DataError: If the store has none of the members to keep.
        StoreError: If another maintenance command runs, or a part cannot be read or written.
    """
    files = store.files
    old = (now or datetime.now(UTC)) - _ORPHAN_AGE
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(sole_maintenance(files, "dsdi store gc"))
        outcomes, *logits = folders_of(store)
        going, staying = _divided(store, logits, kept)
        parts_going = [part for folder in going for part in files.parts(folder.path)]
        num_claims = _drop_claims(store, outcomes, kept, dry_run=dry_run)
        if not dry_run:
            files.delete(part.path for part in parts_going)
            num_claims += _drop_claims(store, outcomes, kept, dry_run=False)  # of jobs meanwhile
        num_orphans, orphan_bytes = _drop_orphans(store, staying, old, dry_run=dry_run)
        leftovers = [info for info in files.temporaries() if info.mtime < old]
        if not dry_run:
            files.delete(info.path for info in leftovers)
    sizes = [info.size or 0 for info in (*parts_going, *leftovers)]
    return GcSummary(
        num_claims_dropped=num_claims,
        num_parts_dropped=len(parts_going),
        num_orphan_rows=num_orphans,
        num_temporaries=len(leftovers),
        bytes_dropped=sum(sizes) + orphan_bytes,
        dry_run=dry_run,
    )


def _divided(
    store: ScoreStore, folders: Sequence[Folder], kept: Kept
) -> tuple[list[Folder], list[Folder]]:
    """Folders of logits that go, and those that stay."""
    going = [folder for folder in folders if not kept.has(*folder.decode_and_member)]
    staying = [folder for folder in folders if kept.has(*folder.decode_and_member)]
    if going and not staying:
        raise DataError(
            f"score store {store.uri}: it has no logits of what is to be kept (members "
            f"{', '.join(sorted(kept.member_ids))}), so all would go; to be rid of a store, delete "
            "its folder"
        )
    return going, staying


def _drop_claims(store: ScoreStore, folder: Folder, kept: Kept, *, dry_run: bool) -> int:
    """Write outcomes anew that claim what is not kept; returns the number of such claims."""
    sources: list[pafs.FileInfo] = []
    num_dropped = 0
    for part in store.files.parts(OUTCOMES):
        with store.files.open_part(part.path) as file:
            claims = kept.claims_of(file.read(columns=["decode_id", "member_ids", "status"]))
        num_of_part = int(pc.sum(pc.invert(claims[2])).as_py() or 0)
        num_dropped += num_of_part
        sources += [part] if num_of_part else []
    if sources and not dry_run:
        merge_parts(store.files, folder, sources, change=lambda rows: _without_claims(rows, kept))
    return num_dropped


def _without_claims(outcomes: pa.Table, kept: Kept) -> pa.Table:
    members, parents, is_kept = kept.claims_of(outcomes)
    lengths = np.bincount(parents.filter(is_kept).to_numpy(), minlength=len(outcomes))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    place = OUTCOME_SCHEMA.get_field_index("member_ids")
    lists = pa.ListArray.from_arrays(offsets, members.filter(is_kept))
    return outcomes.set_column(place, OUTCOME_SCHEMA.field(place), lists)


def _drop_orphans(
    store: ScoreStore, folders: Sequence[Folder], old: datetime, *, dry_run: bool
) -> tuple[int, int]:
    """Write parts anew without the rows that no outcome vouches for; returns their number and size."""
    num_orphans = num_bytes = 0
    for folder, vouched in _vouched(store, folders):
        sources = []
        for part in store.files.parts(folder.path):
            if part.mtime >= old:
                continue
            with store.files.open_part(part.path) as file:
                keys = content_keys(file.read(columns=["content_id", "span"]))
            num_of_part = int(pc.sum(pc.invert(pc.is_in(keys, value_set=vouched))).as_py() or 0)
            if num_of_part:
                sources.append(part)
                num_orphans += num_of_part
                num_bytes += part.size * num_of_part // len(keys)
        if sources and not dry_run:

            def vouched_rows(rows: pa.Table, vouched: pa.Array = vouched) -> pa.Table:
                return rows.filter(pc.is_in(content_keys(rows), value_set=vouched))

            merge_parts(store.files, folder, sources, change=vouched_rows)
    return num_orphans, num_bytes


def _vouched(store: ScoreStore, folders: Sequence[Folder]) -> Iterator[tuple[Folder, pa.Array]]:
    """Each folder with the contents that outcomes claim for it."""
    contents = store.read_outcomes(known_contents)
    members_of: dict[str, list[str]] = {}
    for folder in folders:
        decode_id, member_id = folder.decode_and_member
        members_of.setdefault(decode_id, []).append(member_id)
    frames = {
        decode_id: store.read_outcomes(
            partial(claimed_frames, contents=contents, member_ids=members, decode_id=decode_id)
        )
        for decode_id, members in members_of.items()
    }
    for folder in folders:
        decode_id, member_id = folder.decode_and_member
        column = members_of[decode_id].index(member_id)
        yield folder, contents.filter(pa.array(frames[decode_id][:, column] >= 0))
