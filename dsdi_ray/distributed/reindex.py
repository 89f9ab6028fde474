"""Bring a manifest up to date: files that it knows are kept, new ones are probed and added."""

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dsdi_ray.distributed.index import load_archive, probe_archive, probe_found
from dsdi_ray.storage.filesystems import path_in
from dsdi_ray.storage.manifest import (
    MANIFEST_SUFFIXES,
    manifest_table,
    read_manifest,
    write_manifest,
)
from dsdi_ray.storage.manifest_changes import clips_of_files, files_to_probe
from dsdi_ray.storage.media_files import FoundFile, clip_ids, find_media
from dsdi_ray.storage.parts import part_seconds

_PLACE = ("clip_id", "uri", "media", "start_seconds", "end_seconds")


def update_archive(archive: str, manifest_file: Path, *, write: bool = True) -> pa.Table:
    """Bring an archive's manifest up to date: clips that it has keep their names and facts.

    Files that are gone are left out, new ones are added whole; parts of files that the manifest
    has stay parts.

    Args:
        archive: A folder, file or glob of footage, or a manifest, which is taken as it is.
        manifest_file: The archive's manifest; there may be none yet.
        write: Whether to write it, where it changed.

    Returns:
        The manifest as it is now.

    Raises:
        DataError: If there is no footage, or a manifest cannot be read or written.
    """
    started = time.time()
    before = read_manifest(manifest_file) if manifest_file.is_file() else None
    if path_in(archive).suffix.lower() in MANIFEST_SUFFIXES:
        now = load_archive(archive)
    elif before is None:
        now = probe_archive([archive])
    else:
        written_at = manifest_file.stat().st_mtime
        now = _updated(before, find_media([archive]), written_at=written_at)
    if write:
        if before is None or not now.equals(before):
            write_manifest(now, manifest_file)
        # What is written to a file from here on makes it newer than the manifest.
        os.utime(manifest_file, (started, started))
    return now


def _updated(before: pa.Table, files: Sequence[FoundFile], *, written_at: float) -> pa.Table:
    known = clips_of_files(before, files)
    to_probe = files_to_probe(files, known, written_at=written_at)
    if not to_probe:
        return known
    clips_of: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for clip in clips_of_files(known, to_probe).to_pylist():
        clips_of[clip["uri"]].append(clip)
    new = [file for file in to_probe if file.uri not in clips_of]
    for file, name in zip(new, clip_ids(new, taken=set(known["clip_id"].to_pylist())), strict=True):
        clips_of[file.uri].append({"clip_id": name, "uri": file.uri, "media": file.media})
    rows = [
        _with_facts(clip, facts)
        for file, facts in zip(to_probe, probe_found(to_probe), strict=True)
        for clip in clips_of[file.uri]
    ]
    uris = {file.uri for file in to_probe}
    kept = clips_of_files(known, [file for file in files if file.uri not in uris])
    return pa.concat_tables([kept, manifest_table(rows)])


def _with_facts(clip: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A clip with what was probed of its file now, and nothing of what was probed before."""
    place = {name: clip.get(name) for name in _PLACE}
    seconds = part_seconds(
        facts.get("duration_seconds"), place["start_seconds"], place["end_seconds"]
    )
    return {**place, **facts, "duration_seconds": seconds}
