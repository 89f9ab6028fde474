"""Check a store against itself: every part readable, every claim of an outcome borne out by logits."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from dsdi_ray.errors import StoreError
from dsdi_ray.storage.frame_count import count_frames
from dsdi_ray.storage.outcome_columns import lookup, portions
from dsdi_ray.storage.outcome_scan import claimed_frames, known_contents
from dsdi_ray.storage.score_rows import (
    NEW_OUTCOME_COLUMNS,
    OUTCOME_SCHEMA,
    content_keys,
    logits_schema,
)
from dsdi_ray.storage.score_store import OUTCOMES, ScoreStore, logits_folder
from dsdi_ray.storage.store_files import StoreFiles, reading
from dsdi_ray.storage.store_merge import folders_of, num_rows_of

_MAX_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong in a store.

    Attributes:
        kind: ``damaged``, ``schema``, ``not finite`` or ``frames``.
        where: A part, or a clip with its content.
        message: What is wrong.
    """

    kind: str
    where: str
    message: str


@dataclass(kw_only=True)
class Verification:
    """What a check found.

    Attributes:
        num_parts: Parts read.
        num_outcomes: Outcome rows.
        num_pairs: (content, member) pairs that outcomes claim.
        num_logits_rows: Rows of logits.
        num_duplicate_rows: Of these, those that are there twice (harmless, see `compact`).
        num_orphan_rows: Of these, those of clips without an outcome: of jobs that run or were cut
            off (harmless, see `gc`).
        orphans: Contents that those are of; a thousand at most.
        num_temporaries: Files that are being written or were left behind (harmless).
        num_problems: Things that are wrong.
        problems: What they are; a thousand at most.
    """

    num_parts: int = 0
    num_outcomes: int = 0
    num_pairs: int = 0
    num_logits_rows: int = 0
    num_duplicate_rows: int = 0
    num_orphan_rows: int = 0
    orphans: list[str] = field(default_factory=list)
    num_temporaries: int = 0
    num_problems: int = 0
    problems: list[Problem] = field(default_factory=list)

    def report(self, problem: Problem) -> None:
        """Add a problem."""
        self.num_problems += 1
        if len(self.problems) < _MAX_LISTED:
            self.problems.append(problem)

    def add(self, other: "Verification") -> None:
        """Add what was found elsewhere in the store."""
        for each in fields(self):
            total = getattr(self, each.name) + getattr(other, each.name)
            setattr(self, each.name, total[:_MAX_LISTED] if isinstance(total, list) else total)


@dataclass(frozen=True, kw_only=True)
class _Claims:
    """What outcomes claim.

    Attributes:
        contents: Keys of contents, ``[K]``.
        clip_ids: A clip of each, ``[K]``.
        frames: Frames of each content, -1 where nothing is claimed, per (decode settings, member):
            ``[K]``.
    """

    contents: pa.Array
    clip_ids: pa.Array
    frames: Mapping[tuple[str, str], NDArray[np.int32]]


def verify_store(store: ScoreStore) -> Verification:
    """Read a store whole and report what is wrong; jobs may run meanwhile.

    Every part must be readable and of its schema, every logit finite, and for each member that an
    outcome claims the store must hold as many frames as the outcome says.
    """
    found, claims = reading(lambda: _check_outcomes(store), what=store.uri)
    found.num_temporaries = len(store.files.temporaries())
    on_disk = {folder.decode_and_member for folder in folders_of(store)[1:]}
    for decode_id, member_id in sorted(on_disk | claims.frames.keys()):
        check = partial(_check_logits, store, claims, decode_id, member_id)
        found.add(reading(check, what=store.uri))
    return found


def _check_outcomes(store: ScoreStore) -> tuple[Verification, _Claims]:
    found = Verification()
    paths = []
    for part in store.files.parts(OUTCOMES):
        problem = _problem_of_part(store.files, part.path, OUTCOME_SCHEMA)
        found.num_parts += 1
        if problem:
            found.report(problem)
        else:
            paths.append(part.path)
    dataset = pads.FileSystemDataset.from_paths(
        paths, schema=OUTCOME_SCHEMA, format=pads.ParquetFileFormat(), filesystem=store.filesystem
    )
    claims = _read_claims(dataset)
    found.num_outcomes = dataset.count_rows()
    found.num_pairs = sum(int((frames >= 0).sum()) for frames in claims.frames.values())
    return found, claims


def _read_claims(dataset: pads.Dataset) -> _Claims:
    contents = known_contents(dataset)
    row_of_content = np.zeros(len(contents), np.int64)
    members_of: dict[str, set[str]] = {}
    for rows, first_row in portions(dataset, ["content_id", "span", "decode_id", "member_ids"]):
        content = lookup(content_keys(rows), contents)
        row_of_content[content[content >= 0]] = first_row + np.flatnonzero(content >= 0)
        for decode_id in pc.unique(rows["decode_id"]).drop_null().to_pylist():
            mine = rows.filter(pc.equal(rows["decode_id"], decode_id))["member_ids"]
            members_of.setdefault(decode_id, set()).update(
                pc.unique(pc.list_flatten(mine)).to_pylist()
            )
    frames: dict[tuple[str, str], NDArray[np.int32]] = {}
    for decode_id, members in members_of.items():
        counts = claimed_frames(dataset, contents, sorted(members), decode_id)
        frames |= {(decode_id, m): counts[:, i] for i, m in enumerate(sorted(members))}
    rows, place = np.unique(row_of_content, return_inverse=True)
    clip_ids = dataset.take(pa.array(rows), columns=["clip_id"])["clip_id"].take(pa.array(place))
    return _Claims(contents=contents, clip_ids=clip_ids, frames=frames)


def _problem_of_part(files: StoreFiles, path: str, expected: pa.Schema) -> Problem | None:
    """Read a part whole; what is wrong with it, if anything."""
    try:
        with files.open_part(path) as part:
            if problem := _problem_of_schema(part.schema_arrow, expected):
                return Problem(kind="schema", where=path, message=problem)
            num_not_finite = sum(
                _num_not_finite(part.read_row_group(i)) for i in range(part.num_row_groups)
            )
    except StoreError as error:
        return Problem(kind="damaged", where=path, message=str(error))
    if not num_not_finite:
        return None
    message = f"{num_not_finite} rows with logits that are not finite"
    return Problem(kind="not finite", where=path, message=message)


def _problem_of_schema(schema: pa.Schema, expected: pa.Schema) -> str | None:
    for column in expected:
        place = schema.get_field_index(column.name)
        if place < 0 and column.name not in NEW_OUTCOME_COLUMNS:
            return f"has no column {column.name}"
        if place >= 0 and schema.field(place).type != column.type:
            return f"column {column.name} must be {column.type}, is {schema.field(place).type}"
    return None


def _num_not_finite(rows: pa.Table) -> int:
    if "logits" not in rows.column_names:
        return 0
    lists = rows["logits"].combine_chunks()
    logits = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, lists.type.list_size)
    return int((~np.isfinite(logits).all(axis=1)).sum())


def _check_logits(
    store: ScoreStore, claims: _Claims, decode_id: str, member_id: str
) -> Verification:
    """Check the logits of one member under one decode settings against what outcomes claim."""
    folder = logits_folder(decode_id, member_id)
    schema = logits_schema(len(store.taxonomy))
    found = Verification()
    paths = []
    for part in store.files.parts(folder):
        problem = _problem_of_part(store.files, part.path, schema)
        found.num_parts += 1
        if problem:
            found.report(problem)
        if problem is None or problem.kind == "not finite":
            paths.append(part.path)
            found.num_logits_rows += num_rows_of(store.files, part.path)
    nothing = np.full(len(claims.contents), -1, np.int32)
    expected = claims.frames.get((decode_id, member_id), nothing)
    counts = count_frames(
        store.files,
        paths,
        num_rows=found.num_logits_rows,
        contents=claims.contents,
        is_claimed=expected >= 0,
    )
    found.num_duplicate_rows = counts.num_duplicate_rows
    found.num_orphan_rows = counts.num_orphan_rows
    found.orphans = [f"{folder}: {_shown(key)}" for key in sorted(set(counts.orphans))]
    wrong = np.flatnonzero((expected >= 0) & (counts.num_frames != expected))
    found.num_problems += len(wrong)
    for content in wrong[: _MAX_LISTED - len(found.problems)]:
        clip = claims.clip_ids[content].as_py()
        where = f"{clip} ({_shown(claims.contents[content].as_py())})"
        message = (
            f"member {member_id} under settings {decode_id}: the outcome says {expected[content]} "
            f"frames, the store has {counts.num_frames[content]}"
        )
        found.problems.append(Problem(kind="frames", where=where, message=message))
    return found


def _shown(content_key: str) -> str:
    return content_key.replace("\n", " ")
