"""Manifests: the clips of an archive, one row each, with what was probed.

Written as Parquet; Parquet, CSV and JSONL are read, with at least a ``uri`` column. A clip may be
a part of a longer file (``start_seconds``, ``end_seconds``).
"""

import hashlib
import math
import re
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
from dsdi_ray.storage.media_files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    FoundFile,
    clip_ids,
    media_of,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "MANIFEST_SCHEMA",
    "MANIFEST_SUFFIXES",
    "VIDEO_SUFFIXES",
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
        ("duration_seconds", pa.float64()),
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
MANIFEST_SUFFIXES = (".parquet", ".csv", ".jsonl")

_EDGE_BYTES = 2**20


def content_id(path: Path) -> str:
    """Identity of a file's content: its size and a hash of its first and last MiB.

    Raises:
        OSError: If it cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_EDGE_BYTES))
        if size > _EDGE_BYTES:
            file.seek(max(_EDGE_BYTES, size - _EDGE_BYTES))
            digest.update(file.read())
    return f"{size}-{digest.hexdigest()[:24]}"


def manifest_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Make a manifest of rows; columns that a row lacks are null."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=MANIFEST_SCHEMA)


def write_manifest(manifest: pa.Table, path: Path) -> None:
    """Write a manifest as Parquet, under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(manifest, temporary, compression="zstd")
    temporary.rename(path)


def read_manifest(path: Path) -> pa.Table:
    """Read a manifest; columns beside ``uri`` may be absent.

    A clip without an id is named after its file (and part). Relative paths count from the
    manifest's folder if the file is there, else from the working directory.

    Raises:
        DataError: If it cannot be read, has no ``uri``, or has a row that makes no sense.
    """
    try:
        table = _READERS[path.suffix.lower()](path)
    except KeyError:
        raise DataError(f"manifest {path}: must end in {', '.join(MANIFEST_SUFFIXES)}") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"manifest {path}: cannot be read: {error}") from error
    if "uri" not in table.column_names:
        raise DataError(f"manifest {path}: no column `uri`, has {', '.join(table.column_names)}")
    table = _cast(table, path)
    suspects = np.flatnonzero(_is_odd(table).to_numpy(zero_copy_only=False))
    for place in suspects.tolist():
        problem = _problem(table.slice(place, 1).to_pylist()[0])
        if problem:
            raise DataError(f"manifest {path}, row {place + 1}: {problem}")
    if len(suspects):
        table = _completed(table, path.parent)
    if pc.count_distinct(table["clip_id"]).as_py() < len(table):
        repeated = Counter(table["clip_id"].to_pylist()).most_common(1)[0][0]
        raise DataError(f"manifest {path}: clip_id {repeated!r} appears more than once")
    return table


# Types are given, not guessed: the clip id 00123 is no number.
_READERS: Mapping[str, Callable[[Path], pa.Table]] = {
    ".parquet": pq.read_table,
    ".csv": lambda path: pacsv.read_csv(
        path,
        convert_options=pacsv.ConvertOptions(
            column_types=MANIFEST_SCHEMA, strings_can_be_null=True
        ),
    ),
    ".jsonl": lambda path: pajson.read_json(
        path, parse_options=pajson.ParseOptions(explicit_schema=MANIFEST_SCHEMA)
    ),
}


def _cast(table: pa.Table, path: Path) -> pa.Table:
    columns = {}
    for field in MANIFEST_SCHEMA:
        if field.name not in table.column_names:
            continue
        try:
            columns[field.name] = table[field.name].cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"manifest {path}: column {field.name}: {error}") from error
    absent = {
        f.name: pa.nulls(len(table), f.type) for f in MANIFEST_SCHEMA if f.name not in columns
    }
    return pa.table({**columns, **absent}).select(MANIFEST_SCHEMA.names)


def _is_odd(table: pa.Table) -> pa.ChunkedArray:
    """Rows to look at one by one: wrong, or incomplete. None of millions, as a rule."""
    uri, clip_id = table["uri"], table["clip_id"]
    start, end = table["start_seconds"], table["end_seconds"]
    fine = [
        pc.fill_null(pc.match_substring_regex(uri, "^(/|[a-z0-9]+://)"), False),
        pc.fill_null(pc.match_substring_regex(clip_id, r"^\S+$"), False),
        pc.is_in(table["media"], value_set=pa.array(["video", "image"])),
        pc.fill_null(pc.and_(pc.greater_equal(start, 0.0), pc.is_finite(start)), True),
        pc.fill_null(pc.greater(end, pc.fill_null(start, 0.0)), True),
    ]
    return pc.invert(reduce(pc.and_, fine))


def _problem(row: Mapping[str, Any]) -> str | None:
    start, end, clip_id = row["start_seconds"], row["end_seconds"], row["clip_id"]
    if not row["uri"]:
        return "uri must not be empty"
    if row["media"] not in {None, "video", "image"}:
        return f"media must be video or image, got {row['media']!r}"
    if start is not None and not 0 <= start < math.inf:
        return f"start_seconds must be 0 or more, got {start}"
    if end is not None and not end > (start or 0.0):
        return f"end_seconds must be above start_seconds ({start or 0.0:g}), got {end}"
    if clip_id is not None and (not clip_id or re.search(r"\s", clip_id)):
        return f"clip_id must have no blanks (run files separate by them), got {clip_id!r}"
    return None


def _completed(table: pa.Table, folder: Path) -> pa.Table:
    rows = table.to_pylist()
    _name_clips(rows)
    for row in rows:
        row["media"] = row["media"] or media_of(row["uri"])
        row["uri"] = _located(row["uri"], folder)
    return manifest_table(rows)


def _name_clips(rows: Sequence[dict[str, Any]]) -> None:
    """Fill in ids that are missing: those of the files, with the part where one is given."""
    uris = list(dict.fromkeys(row["uri"] for row in rows))
    names = clip_ids([FoundFile(Path(uri), uri, "") for uri in uris])
    name_of = dict(zip(uris, names, strict=True))
    for row in rows:
        if row["clip_id"] is None:
            start, end = row["start_seconds"], row["end_seconds"]
            is_whole = start is None and end is None
            part = "" if is_whole else f"@{start or 0.0:g}-{'' if end is None else f'{end:g}'}"
            row["clip_id"] = name_of[row["uri"]] + part


def _located(uri: str, folder: Path) -> str:
    path = Path(uri)
    if "://" in uri or path.is_absolute():
        return uri
    return str((folder / path if (folder / path).exists() else path).resolve())
