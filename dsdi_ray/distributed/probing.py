"""Probe files, near and far, in processes that may crash.

A remote file is not fetched whole: what its headers say stands at its ends, so these are copied,
with a hole between them, and more only where that does not do.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import ray

from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.errors import DecodeError, FetchError
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.content_ids import EDGE_BYTES
from dsdi_ray.storage.filesystems import is_remote
from dsdi_ray.storage.local_copies import LocalCopy, fetch, local_file, open_for_fetching
from dsdi_ray.storage.scratch import Scratch
from dsdi_ray.vision.decode import DecodeSettings
from dsdi_ray.vision.decode_process import DecodeProcess

_FILES_PER_TASK = 64
_FILES_AT_ONCE = 8  # waiting for a server costs no CPU
_MORE_BYTES = (8 * 2**20, None)  # of each end where the first MiB does not do; then all
_VIDEO_FACTS = ("duration_seconds", "width", "rotation_degrees")

File = tuple[str, str]  # URI and kind of media


def probe_files(files: Sequence[File]) -> list[dict[str, Any]]:
    """Facts of each file, in order: its content_id and what its headers say, or probe_error."""
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


def _probe_part(files: Sequence[File]) -> list[dict[str, Any]]:
    facts: list[dict[str, Any]] = []
    with ExitStack() as stack:
        process = stack.enter_context(DecodeProcess(DecodeSettings()))
        threads = stack.enter_context(ThreadPoolExecutor(_FILES_AT_ONCE))
        scratch = None
        if any(is_remote(uri) for uri, _ in files):
            scratch = stack.enter_context(Scratch())
        for i in range(0, len(files), _FILES_AT_ONCE):
            group = files[i : i + _FILES_AT_ONCE]
            copies = list(threads.map(partial(_copy_ends, scratch), [uri for uri, _ in group]))
            for (uri, media), copy in zip(group, copies, strict=True):
                facts.append(_probe_copy(process, scratch, uri, media, copy))
    return facts


def _copy_ends(
    scratch: Scratch | None, uri: str, edge_bytes: int | None = EDGE_BYTES
) -> LocalCopy | str:
    """A copy to probe, or why there is none."""
    try:
        if scratch is None or not is_remote(uri):
            return local_file(uri)
        return fetch(uri, open_for_fetching(uri), scratch, edge_bytes=edge_bytes)
    except FetchError as problem:
        return str(problem)


def _probe_copy(
    process: DecodeProcess, scratch: Scratch | None, uri: str, media: str, copy: LocalCopy | str
) -> dict[str, Any]:
    edges = iter(_MORE_BYTES)
    while not isinstance(copy, str):
        facts = _facts(process, copy, media)
        if is_remote(uri):
            copy.path.unlink()
        if copy.is_whole or _says_enough(facts, media):
            return {"content_id": copy.content_id, **facts}
        copy = _copy_ends(scratch, uri, next(edges))
    return {"content_id": None, "probe_error": copy}


def _says_enough(facts: Mapping[str, Any], media: str) -> bool:
    """Whether the ends of a file did: all videos have these facts, most say them there."""
    is_complete = media == "image" or all(facts.get(name) is not None for name in _VIDEO_FACTS)
    return not facts["probe_error"] and is_complete


def _facts(process: DecodeProcess, copy: LocalCopy, media: str) -> dict[str, Any]:
    try:
        return process.probe(str(copy.path), media)
    except DecodeError as problem:
        return {"probe_error": f"the prober {problem}"}
