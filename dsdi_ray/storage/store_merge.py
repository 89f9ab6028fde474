"""Merge parts of a folder into new ones, in bounded memory, and then delete them."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from dsdi_ray.errors import StoreError
from dsdi_ray.storage.score_rows import OUTCOME_SCHEMA, content_keys, logits_schema
from dsdi_ray.storage.score_store import LOGITS, OUTCOMES, ScoreStore
from dsdi_ray.storage.sorted_rows import (
    KeysOf,
    logits_keys,
    merge_sorted,
    outcome_keys,
    sorted_once,
)
from dsdi_ray.storage.store_files import (
    MERGED,
    ROWS_PER_GROUP,
    TEMPORARY,
    StoreFiles,
    encoding_of,
)

PART_BYTES = 192 * 2**20  # aimed at; within 128 and 256 MiB
_RUN_BYTES = 256 * 2**20  # rows that are sorted in memory at once
_MAX_RUNS = 64  # merged at once; of each, a row group is in memory


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of parts, what its rows are and how they are ordered."""

    path: str
    schema: pa.Schema
    keys_of: KeysOf

    @property
    def decode_and_member(self) -> tuple[str, str]:
        """Decode settings and member of a folder of logits."""
        _, settings, member = self.path.split("/")
        return settings.removeprefix("decode_id="), member.removeprefix("member_id=")


def folders_of(store: ScoreStore) -> list[Folder]:
    """The folders of a store: outcomes, and the logits of each (decode settings, member)."""
    schema = logits_schema(len(store.taxonomy))
    paths = [
        f"{LOGITS}/{settings}/{member}"
        for settings in store.files.subfolders(LOGITS)
        for member in store.files.subfolders(f"{LOGITS}/{settings}")
    ]
    return [
        Folder(path=OUTCOMES, schema=OUTCOME_SCHEMA, keys_of=outcome_keys),
        *(Folder(path=path, schema=schema, keys_of=logits_keys) for path in paths),
    ]


def is_merged(part: pafs.FileInfo) -> bool:
    """Whether a part is sorted, with each row once."""
    return bool(part.base_name.startswith(MERGED))


def merge_parts(
    files: StoreFiles,
    folder: Folder,
    sources: Sequence[pafs.FileInfo],
    *,
    change: Callable[[pa.Table], pa.Table] | None = None,
) -> int:
    """Write the rows of parts into new ones, then delete exactly those.

    Args:
        files: Files of the store.
        folder: The folder.
        sources: Parts of it.
        change: Drops or alters rows on the way.

    Returns:
        Rows that were dropped, because others have their keys or by the change.

    Raises:
        StoreError: If a source cannot be read or a new part written; the sources stay.
    """
    try:
        num_rows_before = sum(num_rows_of(files, part.path) for part in sources)
        num_parts = max(1, round(sum(part.size for part in sources) / PART_BYTES))
        with ExitStack() as stack:
            rows = merge_sorted(_runs(files, folder, sources, change, stack), folder.keys_of)
            rows_per_part = max(1, -(-num_rows_before // num_parts))
            num_rows = write_parts(files, folder, rows, rows_per_part=rows_per_part)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{files.root}/{folder.path}: cannot be merged: {error}; no row is lost, run the same "
            "command again"
        ) from error
    # Unsorted ones last: as long as one is left, the next merge takes up the others again.
    files.delete(part.path for part in sorted(sources, key=is_merged, reverse=True))
    return num_rows_before - num_rows


def write_parts(
    files: StoreFiles, folder: Folder, rows: Iterable[pa.Table], *, rows_per_part: int
) -> int:
    """Write sorted rows as merged parts that end where a clip does.

    Returns:
        Rows written.
    """
    num_written = 0
    groups = _row_groups(rows)
    group = next(groups, None)
    while group is not None:
        with files.new_part(folder.path, folder.schema, is_merged=True) as part:
            room = rows_per_part
            clip = None
            while group is not None:
                keys = content_keys(group)
                num_taken = len(group) if room > 0 else _count(pc.equal(keys, clip))
                if not num_taken:
                    break
                part.write_table(group.slice(0, num_taken))
                num_written += num_taken
                room -= num_taken
                clip = keys[num_taken - 1]
                group = group.slice(num_taken) if num_taken < len(group) else next(groups, None)
    return num_written


def read_part(files: StoreFiles, path: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a part, a row group at a time; columns that it lacks are null.

    Raises:
        FileNotFoundError: If a merge took it away.
        StoreError: If it is damaged or cannot be read.
    """
    with files.open_part(path) as part:
        for i in range(part.num_row_groups):
            rows = part.read_row_group(i)
            for field in schema:
                if field.name not in rows.column_names:
                    rows = rows.append_column(field, pa.nulls(len(rows), field.type))
            yield rows.select(schema.names).cast(schema)


def num_rows_of(files: StoreFiles, path: str) -> int:
    """Number of a part's rows."""
    with files.open_part(path) as part:
        return int(part.metadata.num_rows)


def _runs(
    files: StoreFiles,
    folder: Folder,
    sources: Sequence[pafs.FileInfo],
    change: Callable[[pa.Table], pa.Table] | None,
    stack: ExitStack,
) -> list[Iterable[pa.Table]]:
    """Sorted runs of the sources' rows; temporary files are deleted when the stack ends."""
    is_run = [change is None and is_merged(part) for part in sources]
    contents = [read_part(files, part.path, folder.schema) for part in sources]
    runs: list[Iterable[pa.Table]] = [c for c, known in zip(contents, is_run, strict=True) if known]
    unsorted = chain(*(c for c, known in zip(contents, is_run, strict=True) if not known))
    for rows in _portions(unsorted if change is None else map(change, unsorted)):
        in_order = sorted_once(rows, folder.keys_of)
        is_last = rows.nbytes < _RUN_BYTES
        runs.append([in_order] if is_last else _spilled(files, folder, [in_order], stack))
    while len(runs) > _MAX_RUNS:
        merged = merge_sorted(runs[:_MAX_RUNS], folder.keys_of)
        runs = [*runs[_MAX_RUNS:], _spilled(files, folder, merged, stack)]
    return runs


def _spilled(
    files: StoreFiles, folder: Folder, rows: Iterable[pa.Table], stack: ExitStack
) -> Iterable[pa.Table]:
    """Write sorted rows to a temporary file and read them back when they are asked for."""
    path = f"{files.root}/{folder.path}/{TEMPORARY}run-{uuid.uuid4().hex}.parquet"
    stack.callback(files.delete, [path])
    with (
        files.filesystem.open_output_stream(path) as file,
        pq.ParquetWriter(file, folder.schema, **encoding_of(folder.schema)) as run,
    ):
        for group in _row_groups(rows):
            run.write_table(group)
    return read_part(files, path, folder.schema)


def _portions(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables put together until they are large enough for a run; the last one is smaller."""
    pending: list[pa.Table] = []
    num_bytes = 0
    for table in tables:
        pending.append(table)
        num_bytes += table.nbytes
        if num_bytes >= _RUN_BYTES:
            yield pa.concat_tables(pending)
            pending, num_bytes = [], 0
    if pending:
        yield pa.concat_tables(pending)


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    pending: list[pa.Table] = []
    num_pending = 0
    for table in tables:
        pending.append(table)
        num_pending += len(table)
        if num_pending >= ROWS_PER_GROUP:
            rows = pa.concat_tables(pending)
            num_full = num_pending - num_pending % ROWS_PER_GROUP
            yield from (rows.slice(i, ROWS_PER_GROUP) for i in range(0, num_full, ROWS_PER_GROUP))
            pending, num_pending = [rows.slice(num_full)], num_pending - num_full
    if num_pending:
        yield pa.concat_tables(pending)


def _count(flags: pa.ChunkedArray) -> int:
    return int(pc.sum(flags).as_py() or 0)
