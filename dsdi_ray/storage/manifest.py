"""Manifests: the clips of an archive, one row each, with what was probed.

Written as Parquet; Parquet, CSV and JSONL are read, with at least a ``uri`` column. A clip may be
a part of a longer file (``start_seconds``, ``end_seconds``).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from dsdi_ray.errors import DataError
from dsdi_ray.storage.content_ids import content_id
from dsdi_ray.storage.filesystems import (
    folder_of,
    is_remote,
    join,
    path_in,
    read_bytes,
    short_reason,
    write_bytes,
)
from dsdi_ray.storage.media_files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    FoundFile,
    clip_ids,
    media_of,
)
from dsdi_ray.storage.parts import MAX_SECONDS, clip_problem, part_id

__all__ = [
    "IMAGE_SUFFIXES",
    "MANIFEST_SCHEMA",
    "MANIFEST_SUFFIXES",
    "VIDEO_SUFFIXES",
    "check_clip_ids",
    "content_id",
    "manifest_table",
    "read_manifest",
    "write_manifest",
]

MANIFEST_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("start_seconds", pa.float64()),  # null: the file's first picture
        ("end_seconds", pa.float64()),  # null: its last
        ("media", pa.string()),  # video or image
        ("content_id", pa.string()),  # null: the file cannot be read
        ("duration_seconds", pa.float64()),  # of the part, where the clip is one
        ("source_fps", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("rotation_degrees", pa.int32()),
        ("capture_time", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("probe_error", pa.string()),  # null: nothing is wrong as far as headers tell
    ]
)
_FINE_CLIP_ID = r"^[^\pZ\p{Cc}\x{FFFE}\x{FFFF}]+$"  # RE2's \s is ASCII alone, Python's is not
MANIFEST_SUFFIXES = (".parquet", ".csv", ".jsonl")


def manifest_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Make a manifest of rows; columns that a row lacks are null."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=MANIFEST_SCHEMA)


def write_manifest(manifest: pa.Table, uri: str | Path) -> None:
    """Write a manifest as Parquet; it is there whole or not at all.

    Raises:
        DataError: If it cannot be written there.
    """
    content = pa.BufferOutputStream()
    pq.write_table(manifest, content, compression="zstd")
    try:
        write_bytes(uri, content.getvalue())
    except OSError as error:
        raise DataError(f"manifest {uri}: cannot be written: {short_reason(error)}") from error


def read_manifest(uri: str | Path) -> pa.Table:
    """Read a manifest; columns beside ``uri`` may be absent.

    A clip without an id is named after its file (and part). Relative paths count from the
    manifest's folder if the file is there, else from the working directory; from a remote
    manifest's folder in any case.

    Raises:
        DataError: If it cannot be read, has no ``uri``, or has a row that makes no sense.
    """
    try:
        read = _READERS[path_in(uri).suffix.lower()]
    except KeyError:
        raise DataError(f"manifest {uri}: must end in {', '.join(MANIFEST_SUFFIXES)}") from None
    try:
        table = read(pa.BufferReader(read_bytes(uri)))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"manifest {uri}: cannot be read: {short_reason(error)}") from error
    if "uri" not in table.column_names:
        raise DataError(f"manifest {uri}: no column `uri`, has {', '.join(table.column_names)}")
    for name, count in Counter(table.column_names).items():
        if count > 1 and name in MANIFEST_SCHEMA.names:
            raise DataError(f"manifest {uri}: column {name} is there {count} times")
    table = _cast(table, uri)
    suspects = np.flatnonzero(_is_odd(table).to_numpy(zero_copy_only=False))
    for place in suspects.tolist():
        problem = clip_problem(table.slice(place, 1).to_pylist()[0])
        if problem:
            raise DataError(f"manifest {uri}, row {place + 1}: {problem}")
    if len(suspects):
        table = _completed(table, folder_of(uri))
    check_clip_ids(table, source=f"manifest {uri}")
    return table


def check_clip_ids(manifest: pa.Table, *, source: str | Path) -> None:
    """Refuse ids that several clips have.

    Raises:
        DataError: If there are such.
    """
    if pc.count_distinct(manifest["clip_id"]).as_py() < len(manifest):
        repeated = Counter(manifest["clip_id"].to_pylist()).most_common(1)[0][0]
        raise DataError(f"{source}: clip_id {repeated!r} appears more than once")


# Types are given, not guessed: the clip id 00123 is no number, and NA is an id, not null.
_READERS: Mapping[str, Callable[[pa.BufferReader], pa.Table]] = {
    ".parquet": pq.read_table,
    ".csv": lambda file: pacsv.read_csv(
        file,
        convert_options=pacsv.ConvertOptions(
            column_types=MANIFEST_SCHEMA, strings_can_be_null=True, null_values=[""]
        ),
    ),
    ".jsonl": lambda file: pajson.read_json(
        file, parse_options=pajson.ParseOptions(explicit_schema=MANIFEST_SCHEMA)
    ),
}


def _cast(table: pa.Table, uri: str | Path) -> pa.Table:
    columns = {}
    for field in MANIFEST_SCHEMA:
        if field.name not in table.column_names:
            continue
        try:
            column = table[field.name].cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"manifest {uri}: column {field.name}: {error}") from error
        if pa.types.is_floating(field.type) and field.name not in {"start_seconds", "end_seconds"}:
            column = pc.if_else(pc.is_nan(column), None, column)  # what is not known
        columns[field.name] = column
    absent = {
        f.name: pa.nulls(len(table), f.type) for f in MANIFEST_SCHEMA if f.name not in columns
    }
    return pa.table({**columns, **absent}).select(MANIFEST_SCHEMA.names)


def _is_odd(table: pa.Table) -> pa.ChunkedArray:
    """Rows to look at one by one: wrong, or incomplete. None of millions, as a rule."""
    uri, clip_id = table["uri"], table["clip_id"]
    start, end, longest = table["start_seconds"], table["end_seconds"], float(MAX_SECONDS)
    fine = [
        pc.fill_null(pc.match_substring_regex(uri, "^(/|[a-z0-9]+://)"), False),
        pc.fill_null(pc.match_substring_regex(clip_id, _FINE_CLIP_ID), False),
        pc.is_in(table["media"], value_set=pa.array(["video", "image"])),
        pc.fill_null(pc.and_(pc.greater_equal(start, 0.0), pc.less_equal(start, longest)), True),
        pc.fill_null(pc.greater(end, pc.fill_null(start, 0.0)), True),
        pc.fill_null(pc.less_equal(end, longest), True),
    ]
    return pc.invert(reduce(pc.and_, fine))


def _completed(table: pa.Table, folder: str) -> pa.Table:
    rows = table.to_pylist()
    _name_clips(rows)
    for row in rows:
        row["media"] = row["media"] or media_of(row["uri"])
        row["uri"] = _located(row["uri"], folder)
    return manifest_table(rows)


def _name_clips(rows: Sequence[dict[str, Any]]) -> None:
    """Fill in ids that are missing: those of the files, with the part where one is given."""
    uris = list(dict.fromkeys(row["uri"] for row in rows))
    names = clip_ids([FoundFile(uri, str(path_in(uri)), "") for uri in uris])
    name_of = dict(zip(uris, names, strict=True))
    for row in rows:
        if row["clip_id"] is None:
            row["clip_id"] = part_id(name_of[row["uri"]], row["start_seconds"], row["end_seconds"])


def _located(uri: str, folder: str) -> str:
    if "://" in uri or Path(uri).is_absolute():
        return uri
    there = join(folder, uri)
    return there if is_remote(there) or Path(there).exists() else str(Path(uri).resolve())
