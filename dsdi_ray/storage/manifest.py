"""Manifests: the clips of an archive, one row each, with what was probed.

Written as Parquet; Parquet, CSV and JSONL are read, with at least a ``uri`` column. A clip may be
a part of a longer file (``start_seconds``, ``end_seconds``).
"""

import glob
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from dsdi_ray.errors import DataError

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
VIDEO_SUFFIXES = frozenset(
    [
        ".3g2",
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".dv",
        ".f4v",
        ".flv",
        ".h264",
        ".h265",
        ".hevc",
        ".ivf",
        ".m2ts",
        ".m2v",
        ".m4v",
        ".mj2",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpe",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogv",
        ".ps",
        ".rm",
        ".rmvb",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    ]
)
IMAGE_SUFFIXES = frozenset([".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])
MANIFEST_SUFFIXES = (".parquet", ".csv", ".jsonl")

_EDGE_BYTES = 2**20


@dataclass(frozen=True)
class FoundFile:
    """A file of an archive: its path, the path that names it among others, and its kind."""

    path: Path
    relative: str
    media: str


def find_media(paths: Sequence[str]) -> list[FoundFile]:
    """Expand files, folders (searched whole) and globs into media files, in order, each once.

    In folders, files count by their suffix and hidden ones do not; a file named outright counts
    whatever it is called.

    Raises:
        DataError: If a path matches nothing.
    """
    found: dict[Path, FoundFile] = {}
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            files = [
                (f, f.relative_to(path)) for f in sorted(path.rglob("*")) if _is_media(f, path)
            ]
        elif path.is_file():
            files = [(path, Path(path.name))]
        else:
            matches = sorted(glob.glob(str(path), recursive=True))
            files = [(f, Path(f.name)) for f in map(Path, matches) if f.is_file()]
        if not files:
            raise DataError(f"{text}: no such file or folder, or no video or image in it")
        for file, relative in files:
            resolved = file.resolve()
            media = "image" if file.suffix.lower() in IMAGE_SUFFIXES else "video"
            found.setdefault(resolved, FoundFile(resolved, relative.as_posix(), media))
    return list(found.values())


def clip_ids(files: Sequence[FoundFile]) -> list[str]:
    """Name clips: the file's stem; its relative path where stems clash; a hash where those do.

    Blanks become ``_``, since TREC's ids have none.
    """
    stems = [_without_blanks(Path(f.relative).stem) for f in files]
    relatives = [_without_blanks(f.relative) for f in files]
    stem_count, relative_count = Counter(stems), Counter(relatives)
    ids = []
    for file, stem, relative in zip(files, stems, relatives, strict=True):
        if stem_count[stem] == 1:
            ids.append(stem)
        elif relative_count[relative] == 1:
            ids.append(relative)
        else:
            ids.append(f"{relative}-{hashlib.sha256(str(file.path).encode()).hexdigest()[:8]}")
    return ids


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

    Raises:
        DataError: If it cannot be read, has no ``uri``, or names a clip twice.
    """
    readers = {".parquet": pq.read_table, ".csv": pacsv.read_csv, ".jsonl": pajson.read_json}
    try:
        table = readers[path.suffix.lower()](path)
    except KeyError:
        raise DataError(f"manifest {path}: must end in {', '.join(MANIFEST_SUFFIXES)}") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"manifest {path}: cannot be read: {error}") from error
    if "uri" not in table.column_names:
        raise DataError(f"manifest {path}: no column `uri`, has {', '.join(table.column_names)}")
    table = _conform(table, path)
    repeated = [c for c, n in Counter(table["clip_id"].to_pylist()).items() if n > 1]
    if repeated:
        raise DataError(f"manifest {path}: clip_id {repeated[0]!r} appears more than once")
    return table


def _conform(table: pa.Table, path: Path) -> pa.Table:
    columns = {}
    for field in MANIFEST_SCHEMA:
        if field.name in table.column_names:
            try:
                columns[field.name] = table[field.name].cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DataError(f"manifest {path}: column {field.name}: {error}") from error
        else:
            columns[field.name] = pa.nulls(len(table), field.type)
    uris = columns["uri"].to_pylist()
    if columns["clip_id"].null_count == len(table):
        files = [FoundFile(Path(u), u, "") for u in uris]
        columns["clip_id"] = pa.array(clip_ids(files), pa.string())
    media = ["image" if Path(u).suffix.lower() in IMAGE_SUFFIXES else "video" for u in uris]
    given = columns["media"].to_pylist()
    columns["media"] = pa.array([g or m for g, m in zip(given, media, strict=True)], pa.string())
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def _is_media(file: Path, root: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    suffix = file.suffix.lower()
    return (
        (suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES) and file.is_file() and not is_hidden
    )


def _without_blanks(text: str) -> str:
    return re.sub(r"\s+", "_", text)
