"""Local copies of remote files, for decoders that read from disk alone."""

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdi_ray.errors import FetchError
from dsdi_ray.storage import content_ids
from dsdi_ray.storage.filesystems import (
    RemoteFile,
    is_remote,
    local_path,
    open_remote,
    path_in,
    short_reason,
)
from dsdi_ray.storage.scratch import Scratch, locked, scratch_root

_SUFFIX_CHARACTERS = 12  # of a name that is anything but one


@dataclass(frozen=True)
class LocalCopy:
    """A file on this machine.

    Attributes:
        path: Where it is.
        content_id: What it holds, or what the file holds that it is a copy of.
        is_whole: False if all but the ends is a hole.
    """

    path: Path
    content_id: str
    is_whole: bool = True


class LocalCopies:
    """Fetches remote files and keeps the last one until another is asked for.

    So the parts of a long file, one after the other, cost one fetch, and the disk holds one file.
    Not for several threads at once.
    """

    def __init__(self) -> None:
        self._scratch: Scratch | None = None
        self._held: LocalCopy | None = None
        self._held_uri = ""

    def get(self, uri: str, *, content_id: str) -> Path:
        """Path of a file of known content: a local one itself, or a copy of a remote one.

        Args:
            uri: Path or URI.
            content_id: What it must hold, see :mod:`dsdi_ray.storage.content_ids`.

        Raises:
            FetchError: If it cannot be had, holds something else, or there is no room for it.
        """
        copy = self._remote_copy(uri, content_id) if is_remote(uri) else local_file(uri)
        _check_unchanged(copy.content_id, content_id)
        return copy.path

    def _remote_copy(self, uri: str, content_id: str) -> LocalCopy:
        file = open_for_fetching(uri)
        known = content_ids.remote_content_id(file)
        if known is not None:
            _check_unchanged(known, content_id)  # before it is fetched
        held = self._held
        if held is None or self._held_uri != uri or known not in {None, held.content_id}:
            self._forget_held()
            self._scratch = self._scratch or Scratch()
            held = fetch(uri, file, self._scratch)
            self._held, self._held_uri = held, uri
        return held

    def _forget_held(self) -> None:
        if self._held is not None:
            self._held.path.unlink(missing_ok=True)
            self._held = None


def local_file(uri: str) -> LocalCopy:
    """A local file as it is; a pipe, which would be waited for without end, is not opened.

    Raises:
        FetchError: If it cannot be read, or is no regular file.
    """
    path = local_path(uri)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FetchError("not a regular file")
        return LocalCopy(path, content_ids.content_id(path))
    except OSError as error:
        raise FetchError(f"cannot be read: {error.strerror}") from error


def open_for_fetching(uri: str) -> RemoteFile:
    """Open a remote file.

    Raises:
        FetchError: If it cannot be opened.
    """
    try:
        return open_remote(uri)
    except Exception as error:  # of whatever library: one bad file never ends a job
        raise FetchError(f"cannot be fetched: {short_reason(error)}") from error


def fetch(
    uri: str, file: RemoteFile, scratch: Scratch, *, edge_bytes: int | None = None
) -> LocalCopy:
    """Copy a remote file, or only so many bytes at each end of it with a hole between them.

    Small files, and those of servers that give no parts, are copied whole.

    Args:
        uri: Where it is.
        file: The same, opened.
        scratch: Where the copy goes.
        edge_bytes: At least :data:`~dsdi_ray.storage.content_ids.EDGE_BYTES`; None for all of it.

    Raises:
        FetchError: If it cannot be read, changes meanwhile, or there is no room for it.
    """
    size = file.size
    ranges = [] if size is None else [(0, size)]
    if edge_bytes is not None and file.has_ranges and size is not None and size > 2 * edge_bytes:
        ranges = [(0, edge_bytes), (size - edge_bytes, size)]
    path = scratch.new_file(path_in(uri).suffix[:_SUFFIX_CHARACTERS], ranges)
    parts: Sequence[tuple[int, int | None]] = ranges or [(0, None)]
    known = content_ids.remote_content_id(file)
    try:
        with path.open("r+b") as out:  # keeps the room that is taken
            for start, stop in parts:
                out.seek(start)
                file.copy_to(out, start, stop)
            out.truncate()
        if content_ids.remote_content_id(open_remote(uri)) != known:
            raise OSError("it changed meanwhile")
        return LocalCopy(path, known or content_ids.content_id(path), is_whole=len(parts) == 1)
    except Exception as error:
        path.unlink(missing_ok=True)
        raise FetchError(f"cannot be fetched: {short_reason(error)}") from error


def cached_file(uri: str, *, key: str) -> Path:
    """A copy of a remote file that stays on this node; one process fetches it, others wait.

    Args:
        uri: Where it is.
        key: What it holds; whoever asks for the same gets the copy that is there.

    Raises:
        FetchError: If it cannot be read, or there is no room for it.
        OSError: If there is no scratch.
    """
    folder = scratch_root() / "kept"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = hashlib.sha256(key.encode()).hexdigest()
    path = folder / f"{name}{path_in(uri).suffix}"
    with locked(folder / f"{name}.lock"):
        if not path.is_file():
            with Scratch() as scratch:
                fetch(uri, open_for_fetching(uri), scratch).path.rename(path)
    return path


def _check_unchanged(found: str, wanted: str) -> None:
    if found != wanted:
        raise FetchError("changed since it was indexed; index again")
