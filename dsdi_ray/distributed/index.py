"""Index an archive: find its media files and probe each in a process that may crash."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.errors import DataError, DecodeError
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.manifest import (
    MANIFEST_SUFFIXES,
    content_id,
    manifest_table,
    read_manifest,
    write_manifest,
)
from dsdi_ray.storage.media_files import clip_ids, find_media
from dsdi_ray.vision.clip_reader import local_path
from dsdi_ray.vision.decode import DecodeSettings
from dsdi_ray.vision.decode_process import DecodeProcess

_FILES_PER_TASK = 64


@dataclass(frozen=True, kw_only=True)
class IndexSummary:
    """What an index found.

    Attributes:
        num_clips: Files, readable or not.
        num_unreadable: Files that cannot be read; the manifest says why.
        hours: Length of the others, as far as their headers tell.
        seconds: Wall clock.
        manifest: The file written.
    """

    num_clips: int
    num_unreadable: int
    hours: float
    seconds: float
    manifest: Path


def index_archive(paths: Sequence[str], *, out: Path) -> IndexSummary:
    """Write a manifest of all media files under some paths.

    Raises:
        DataError: If a path matches nothing or the manifest cannot be written there.
    """
    started = time.monotonic()
    if out.suffix != ".parquet":
        raise DataError(f"the manifest must end in .parquet, got {out}")
    manifest = probe_archive(paths)
    write_manifest(manifest, out)
    durations = [d for d in manifest["duration_seconds"].to_pylist() if d is not None]
    return IndexSummary(
        num_clips=len(manifest),
        num_unreadable=len(manifest) - manifest["probe_error"].null_count,
        hours=sum(durations) / 3600,
        seconds=time.monotonic() - started,
        manifest=out,
    )


def load_archive(archive: str) -> pa.Table:
    """Read a manifest, or probe a folder, file or glob of footage.

    Rows of a manifest that lack their content's identity (lists written by hand) are probed.

    Raises:
        DataError: If there is nothing there.
    """
    path = Path(archive)
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        return probe_archive([archive])
    manifest = read_manifest(path)
    if not pc.any(_is_unknown(manifest)).as_py():
        return manifest
    rows = manifest.to_pylist()
    unknown = [r for r in rows if r["content_id"] is None and r["probe_error"] is None]
    files = list(dict.fromkeys((row["uri"], row["media"]) for row in unknown))
    facts = dict(zip(files, _probe_all(files), strict=True)) if files else {}
    for row in unknown:
        row |= {k: v for k, v in facts[row["uri"], row["media"]].items() if row[k] is None}
    return manifest_table(rows)


def _is_unknown(manifest: pa.Table) -> pa.ChunkedArray:
    return pc.and_(pc.is_null(manifest["content_id"]), pc.is_null(manifest["probe_error"]))


def probe_archive(paths: Sequence[str]) -> pa.Table:
    """Find and probe media files, see :func:`dsdi_ray.storage.manifest.find_media`."""
    files = find_media(paths)
    probed = _probe_all([(str(f.path), f.media) for f in files])
    return manifest_table(
        {"clip_id": i, "uri": str(f.path), "media": f.media, **facts}
        for i, f, facts in zip(clip_ids(files), files, probed, strict=True)
    )


def _probe_all(files: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    num_cpus = max(1, int(cluster_resources().num_cpus))
    size = min(_FILES_PER_TASK, max(1, -(-len(files) // (2 * num_cpus))))
    parts = [files[i : i + size] for i in range(0, len(files), size)]
    results: list[list[dict[str, Any]]] = [[] for _ in parts]
    most_at_once = 2 * num_cpus
    running: dict[Any, int] = {}
    probe_part = ray.remote(num_cpus=1)(_probe_part)
    with progress_bar(total=len(files), description="Indexing", unit="file") as bar:
        for i in range(len(parts) + most_at_once):
            if i < len(parts):
                running[probe_part.remote(parts[i])] = i
            if running and (i >= len(parts) or len(running) >= most_at_once):
                done, _ = ray.wait(list(running), num_returns=1)
                place = running.pop(done[0])
                results[place] = ray.get(done[0])
                bar.update(len(parts[place]))
    return [facts for part in results for facts in part]


def _probe_part(files: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    with DecodeProcess(DecodeSettings()) as process:
        return [_probe_file(process, uri, media) for uri, media in files]


def _probe_file(process: DecodeProcess, uri: str, media: str) -> dict[str, Any]:
    try:
        identity = content_id(local_path(uri))
    except OSError as error:
        return {"content_id": None, "probe_error": f"cannot be read: {error.strerror}"}
    try:
        return {"content_id": identity, **process.probe(uri, media)}
    except DecodeError as problem:
        return {"content_id": identity, "probe_error": f"the prober {problem}"}
