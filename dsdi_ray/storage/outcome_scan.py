"""What a store's outcomes say of the clips of a manifest, found in one pass of bounded memory.

Clips and contents are numbered by the manifest, so that a scan is a lookup per outcome and what it
leaves behind is a few arrays; its memory grows with the manifest, not with the attempts on record.

Shapes: N clips, K contents, M members.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from dsdi_ray.storage.newest_rows import NewestRows
from dsdi_ray.storage.outcome_columns import (
    are_of_settings,
    flags,
    lookup,
    member_pairs,
    microseconds,
    portions,
)
from dsdi_ray.storage.score_rows import content_keys


class OutcomeScan:
    """What the outcomes say of contents: which members scored them, which of them failed.

    Attributes:
        is_present: Whether a member has scored all of a content that it can, ``[K, M]``. What a
            passing error cut short is not all.
        is_undecodable: Whether the newest attempt on a content gave no frame, for a reason that
            lasts, ``[K]``.
        is_to_blame: Whether a member alone is why an attempt on a content failed, ``[K, M]``.
        is_suspect: Whether a member or one beside it is, ``[K, M]``.
        row_of_content: The newest outcome of each content that has a frame; where there is none, its
            newest failure that lasts, or -1, ``[K]``.
        is_recorded: Whether the newest outcome of a clip speaks of its file as it is now, ``[N]``.
    """

    COLUMNS = (
        "clip_id", "uri", "content_id", "span", "decode_id", "member_ids", "status", "error",
        "finished_at", "is_transient",
    )  # fmt: skip

    def __init__(
        self,
        *,
        clips: pa.Table,
        content_of_clip: NDArray[np.int64],
        contents: pa.Array,
        member_ids: Sequence[str],
        decode_id: str,
        redo_partial: bool = False,
    ) -> None:
        """Begin a scan.

        Args:
            clips: clip_id, uri, probe_error; ``[N]``.
            content_of_clip: Number of each clip's content, -1 if it cannot be read, ``[N]``.
            contents: Their keys, see :func:`~dsdi_ray.storage.score_rows.content_keys`, ``[K]``.
            member_ids: Members, ``[M]``.
            decode_id: Decode settings.
            redo_partial: Take the logits of partial clips as missing.
        """
        self._redo_partial = redo_partial
        self._clips = clips
        self._content_of_clip = content_of_clip
        self._contents = contents
        self._member_ids = pa.array(member_ids, pa.string())
        self._decode_id = decode_id
        self._newest_of_clip = NewestRows(len(clips))
        self._newest_of_content = NewestRows(len(contents))
        self._newest_scored = NewestRows(len(contents))
        self.is_present = np.zeros((len(contents), len(member_ids)), bool)
        self.is_undecodable = np.zeros(len(contents), bool)
        self.is_to_blame = np.zeros_like(self.is_present)
        self.is_suspect = np.zeros_like(self.is_present)
        self.is_recorded = np.zeros(len(clips), bool)

    @property
    def row_of_content(self) -> NDArray[np.int64]:
        scored = self._newest_scored.rows
        return np.where(scored >= 0, scored, self._newest_of_content.rows)

    def add(self, outcomes: pa.Table, first_row: int) -> None:
        """Take a portion of the outcomes, whose first is row ``first_row`` of them all."""
        mine = np.flatnonzero(are_of_settings(outcomes, self._decode_id))
        outcomes = outcomes.take(mine)
        times = microseconds(outcomes["finished_at"])
        rows = first_row + mine
        content = lookup(content_keys(outcomes), self._contents)
        clip = lookup(outcomes["clip_id"], self._clips["clip_id"])
        newest = self._newest_of_clip.add(clip, times, rows)
        self.is_recorded[clip[newest]] = self._speaks_of_same_file(
            outcomes.take(newest), content[newest], clip[newest]
        )
        has_failed = flags(pc.equal(outcomes["status"], "failed"))
        is_transient = flags(outcomes["is_transient"])
        is_partial = flags(pc.equal(outcomes["status"], "partial"))
        is_lasting = ~is_transient | ~has_failed
        self._newest_scored.add(np.where(has_failed, -1, content), times, rows)
        newest = self._newest_of_content.add(np.where(is_lasting, content, -1), times, rows)
        lengths = pc.fill_null(pc.list_value_length(outcomes["member_ids"]), 0)
        num_members = np.asarray(lengths, np.int64)
        is_undecodable: NDArray[np.bool_] = has_failed & (num_members == 0)
        self.is_undecodable[content[newest]] = is_undecodable[newest]
        number, member, outcome = member_pairs(outcomes, content, self._member_ids, is_lasting)
        for pairs, is_meant in (
            (self.is_present, ~has_failed & ~(is_partial & (is_transient | self._redo_partial))),
            (self.is_to_blame, has_failed & (num_members == 1)),
            (self.is_suspect, has_failed & (num_members > 1)),
        ):
            meant = is_meant[outcome]
            pairs[number[meant], member[meant]] = True

    def is_blocked(self) -> NDArray[np.bool_]:
        """Whether a member is not to be tried on a content again, ``[K, M]``.

        None is where no frame decodes, nor one that alone is to blame for a failure. Of members
        that failed together each may score without the other: they are only held back where
        nothing but such members is missing.
        """
        is_blocked = self.is_to_blame | self.is_undecodable[:, None]
        is_left = ~self.is_present & ~is_blocked
        has_new = (is_left & ~self.is_suspect).any(axis=1, keepdims=True)
        return np.where(has_new, is_blocked, True)

    def _speaks_of_same_file(
        self, outcomes: pa.Table, content: NDArray[np.int64], clip: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether each outcome is of its clip's content, or says the same of an unreadable file."""
        clips = self._clips.take(clip)
        is_same_uri = flags(pc.equal(outcomes["uri"], clips["uri"]))
        is_same_error = flags(pc.equal(outcomes["error"], clips["probe_error"]))
        expected = self._content_of_clip[clip]
        is_unreadable = ~flags(outcomes["content_id"].is_valid())
        return is_same_uri & np.where(
            expected >= 0, content == expected, is_unreadable & is_same_error
        )


def newest_scored(outcomes: pa.Table, contents: pa.Array, decode_id: str) -> NDArray[np.int64]:
    """Row of each content's newest outcome that has a frame, -1 where there is none, ``[K]``.

    Args:
        outcomes: content_id, span, decode_id, status, finished_at.
        contents: Keys, see :func:`~dsdi_ray.storage.score_rows.content_keys`, ``[K]``.
        decode_id: Decode settings.
    """
    is_mine = flags(pc.equal(outcomes["decode_id"], decode_id))
    has_failed = flags(pc.equal(outcomes["status"], "failed"))
    content = np.where(is_mine & ~has_failed, lookup(content_keys(outcomes), contents), -1)
    newest = NewestRows(len(contents))
    newest.add(content, microseconds(outcomes["finished_at"]), np.arange(len(outcomes)))
    return newest.rows


def known_contents(dataset: pads.Dataset) -> pa.Array:
    """Keys of all contents that outcomes speak of, ``[K]``."""
    columns = ["content_id", "span"]
    keys = [pc.unique(content_keys(rows)) for rows, _ in portions(dataset, columns)]
    return pa.chunked_array(keys, pa.string()).unique().drop_null()


def claimed_frames(
    dataset: pads.Dataset, contents: pa.Array, member_ids: Sequence[str], decode_id: str
) -> NDArray[np.int32]:
    """How many frames of each content the outcomes say that each member scored.

    Args:
        dataset: The outcomes.
        contents: Keys, see :func:`~dsdi_ray.storage.score_rows.content_keys`, ``[K]``.
        member_ids: Members, ``[M]``.
        decode_id: Decode settings.

    Returns:
        Frames, -1 where no outcome claims the pair, ``[K, M]``.
    """
    frames = np.full((len(contents), len(member_ids)), -1, np.int32)
    members = pa.array(member_ids, pa.string())
    columns = ["content_id", "span", "decode_id", "member_ids", "status", "frames_scored"]
    for rows, _ in portions(dataset, columns):
        outcomes = rows.filter(pc.equal(rows["decode_id"], decode_id))
        content, member, outcome = _claims(
            outcomes, lookup(content_keys(outcomes), contents), members
        )
        scored = np.asarray(pc.fill_null(outcomes["frames_scored"], 0), np.int32)
        np.maximum.at(frames, (content, member), scored[outcome])
    return frames


def _claims(
    outcomes: pa.Table, content: NDArray[np.int64], member_ids: pa.Array
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The (content, member) pairs that outcomes say are complete, and the outcome of each."""
    is_done = ~flags(pc.equal(outcomes["status"], "failed"))
    return member_pairs(outcomes, content, member_ids, is_done)
