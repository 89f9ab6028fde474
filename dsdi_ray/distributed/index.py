"""Index an archive: find its media files, probe each, and cut long ones into parts."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dsdi_ray.distributed.probing import probe_files
from dsdi_ray.errors import DataError
from dsdi_ray.reasons import count_reasons
from dsdi_ray.storage.filesystems import path_in
from dsdi_ray.storage.manifest import (
    MANIFEST_SUFFIXES,
    check_clip_ids,
    manifest_table,
    read_manifest,
    write_manifest,
)
from dsdi_ray.storage.media_files import FoundFile, clip_ids, find_media
from dsdi_ray.storage.parts import (
    Shot,
    Windows,
    num_of_unknown_length,
    num_past_end,
    part_id,
    part_seconds,
    read_shots,
    shots_by_file,
)


@dataclass(frozen=True, kw_only=True)
class IndexSummary:
    """What an index found.

    Attributes:
        num_clips: Files, or parts of them, readable or not.
        num_unreadable: Clips whose file cannot be read; the manifest says why.
        reasons: These by reason, see :func:`dsdi_ray.reasons.count_reasons`.
        num_past_end: Clips whose end lies after that of their file; they are shorter than was said.
        num_unknown: Clips whose length their file does not tell; windows leave such a file whole.
        hours: Length of the others.
        seconds: Wall clock.
        manifest: The file written.
    """

    num_clips: int
    num_unreadable: int
    reasons: Mapping[str, int]
    num_past_end: int
    num_unknown: int
    hours: float
    seconds: float
    manifest: str


def index_archive(
    paths: Sequence[str],
    *,
    out: str | Path,
    windows: Windows | None = None,
    shots: str | Path | None = None,
) -> IndexSummary:
    """Write a manifest of all media files under some paths.

    Args:
        paths: Files, folders and globs, here or at URIs.
        out: Path or URI of the manifest.
        windows: Cut videos that are longer into these.
        shots: A shot list, see :func:`dsdi_ray.storage.parts.read_shots`; its shots are the clips,
            and files without one are left out.

    Raises:
        DataError: If a path matches nothing, the shot list makes no sense, or the manifest cannot
            be written there.
    """
    started = time.monotonic()
    if path_in(out).suffix != ".parquet":
        raise DataError(f"the manifest must end in .parquet, got {out}")
    if windows is not None and shots is not None:
        raise DataError("clips are windows or shots, not both")
    manifest = probe_archive(paths, windows=windows, shots=shots)
    write_manifest(manifest, out)
    errors = manifest["probe_error"].drop_null().to_pylist()
    return IndexSummary(
        num_clips=len(manifest),
        num_unreadable=len(errors),
        num_past_end=num_past_end(manifest),
        num_unknown=num_of_unknown_length(manifest),
        reasons=count_reasons((error, 1) for error in errors),
        hours=(pc.sum(manifest["duration_seconds"]).as_py() or 0.0) / 3600,
        seconds=time.monotonic() - started,
        manifest=str(out),
    )


def load_archive(archive: str) -> pa.Table:
    """Read a manifest, or probe a folder, file or glob of footage, here or at a URI.

    Rows of a manifest that lack their content's identity (lists written by hand) are probed.

    Raises:
        DataError: If there is nothing there.
    """
    if path_in(archive).suffix.lower() not in MANIFEST_SUFFIXES:
        return probe_archive([archive])
    manifest = read_manifest(archive)
    if not pc.any(_is_unknown(manifest)).as_py():
        return manifest
    rows = manifest.to_pylist()
    unknown = [r for r in rows if r["content_id"] is None and r["probe_error"] is None]
    files = list(dict.fromkeys((row["uri"], row["media"]) for row in unknown))
    facts_of = dict(zip(files, probe_files(files), strict=True))
    for row in unknown:
        facts = _facts_of_part(
            facts_of[row["uri"], row["media"]], row["start_seconds"], row["end_seconds"]
        )
        row |= {k: v for k, v in facts.items() if row[k] is None}
    return manifest_table(rows)


def index_once(archive: str, *, out: Path) -> pa.Table:
    """Load the manifest of an archive, which is written if it is not there yet.

    Files that were added since are not found; remove ``out`` for that. One that changed is an
    outcome when it is scored.

    Args:
        archive: A manifest, or footage as :func:`index_archive` takes it.
        out: Manifest to write, ``.parquet``; beside it lies which archive it is of.

    Raises:
        DataError: If there is nothing there.
    """
    if path_in(archive).suffix.lower() in MANIFEST_SUFFIXES:
        return load_archive(archive)
    source = out.with_suffix(".source")
    if not (out.is_file() and source.is_file() and source.read_text("utf-8") == archive):
        source.unlink(missing_ok=True)
        index_archive([archive], out=out)
        source.write_text(archive, "utf-8")
    return load_archive(str(out))


def probe_archive(
    paths: Sequence[str], *, windows: Windows | None = None, shots: str | Path | None = None
) -> pa.Table:
    """Find and probe media files: a manifest, see :func:`index_archive`."""
    files = find_media(paths)
    shots_of: dict[FoundFile, list[Shot]] = {}
    if shots is not None:
        shots_of = shots_by_file(read_shots(shots), files, source=shots)
        files = list(shots_of)
    rows: list[dict[str, Any]] = []
    for name, file, facts in zip(clip_ids(files), files, probe_found(files), strict=True):
        rows += _clips_of(name, file, facts, windows, shots_of.get(file))
    manifest = manifest_table(rows)
    check_clip_ids(manifest, source="the index" if shots is None else f"shot list {shots}")
    return manifest


def probe_found(files: Sequence[FoundFile]) -> list[dict[str, Any]]:
    """Facts of each file, in order; one with a problem is not opened."""
    probed = iter(probe_files([(file.uri, file.media) for file in files if file.problem is None]))
    return [
        next(probed) if file.problem is None else {"content_id": None, "probe_error": file.problem}
        for file in files
    ]


def _clips_of(
    name: str,
    file: FoundFile,
    facts: dict[str, Any],
    windows: Windows | None,
    shots: Sequence[Shot] | None,
) -> Iterator[dict[str, Any]]:
    """The clips of a file: its shots, its windows, or all of it."""
    parts: list[tuple[float | None, float | None, str | None]] = [(None, None, None)]
    if shots:
        parts = [(shot.start_seconds, shot.end_seconds, shot.clip_id) for shot in shots]
    elif windows is not None and file.media == "video":
        seconds = facts.get("duration_seconds")
        parts = [(*part, None) for part in windows.parts(seconds)]
        if problem := windows.problem(seconds):
            facts = {**facts, "duration_seconds": None, "probe_error": problem}
    for start, end, clip_id in parts:
        yield {
            "clip_id": clip_id or part_id(name, start, end),
            "uri": file.uri,
            "media": file.media,
            "start_seconds": start,
            "end_seconds": end,
            **_facts_of_part(facts, start, end),
        }


def _facts_of_part(facts: dict[str, Any], start: float | None, end: float | None) -> dict[str, Any]:
    return {**facts, "duration_seconds": part_seconds(facts.get("duration_seconds"), start, end)}


def _is_unknown(manifest: pa.Table) -> pa.ChunkedArray:
    return pc.and_(pc.is_null(manifest["content_id"]), pc.is_null(manifest["probe_error"]))
