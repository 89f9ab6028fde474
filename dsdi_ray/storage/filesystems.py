"""The one place that turns a path or URI into something to read, list or write.

======================  ================================================================
``/a/b``, ``file://``   This machine's files.
``s3://bucket/key``     Credentials, profile, region and endpoint from the usual variables
                        (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ...).
``gs://bucket/key``     Google's application default credentials.
``https://``, ``http:`` One file each, read only.
======================  ================================================================

A public bucket is read without credentials as ``s3://anonymous@bucket/key`` and
``gs://anonymous@bucket/key``: so it stands in the manifest, and every node does as it says. Keys
are written as they are, not percent-encoded. Requests are repeated with growing waits
(:mod:`dsdi_ray.storage.retries`).
"""

import posixpath
import re
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs as pafs

from dsdi_ray.errors import DataError
from dsdi_ray.storage.http_files import HttpFile
from dsdi_ray.storage.object_stores import ObjectFile, resolve_bucket

_WEB = frozenset({"http", "https"})
_BUCKETS = frozenset({"s3", "gs"})


class RemoteFile(Protocol):
    """A file elsewhere.

    Attributes:
        size: In bytes, None where it is not known.
        version: What tells one content from another, such as an ETag; None where there is nothing.
        has_ranges: Whether it can be read from any place.
    """

    size: int | None
    version: str | None
    has_ranges: bool

    def copy_to(self, out: BinaryIO, start: int = 0, stop: int | None = None) -> None:
        """Append bytes ``start`` to ``stop`` to a file."""


class Listing(NamedTuple):
    """What a store's listing says of a file, without a request for the file itself.

    Attributes:
        size: In bytes.
        changed_at: When it was written, in seconds since 1970; None where that is not told.
    """

    size: int
    changed_at: float | None


def is_remote(uri: str | Path) -> bool:
    """Whether a path or URI names something that is not on this machine."""
    return _scheme(str(uri)) not in {"", "file"}


def local_path(uri: str | Path) -> Path:
    """Path of a local file given as a path or a ``file://`` URI."""
    text = str(uri)
    return Path(unquote(urlsplit(text).path)) if _scheme(text) == "file" else Path(text)


def path_in(uri: str | Path) -> PurePosixPath:
    """The path within a URI, or the path itself; for its name and suffix."""
    text = str(uri)
    if _scheme(text) in _WEB:
        return PurePosixPath(unquote(urlsplit(text).path))
    return PurePosixPath(text.partition("://")[2] if is_remote(text) else local_path(text))


def join(folder: str | Path, relative: str) -> str:
    """A path relative to a folder, or what is absolute as it is.

    Raises:
        DataError: If it climbs out of the folder's bucket or web server.
    """
    if _scheme(relative) or Path(relative).is_absolute():
        return relative
    if not is_remote(folder):
        return str((local_path(folder) / relative).resolve())
    scheme, _, rest = str(folder).partition("://")
    root, _, path = rest.partition("/")
    path = posixpath.normpath(posixpath.join(path.lstrip("/"), relative))
    if path == ".." or path.startswith("../"):
        raise DataError(f"{relative}: leads out of {scheme}://{root}, seen from {folder}")
    return f"{scheme}://{posixpath.normpath(f'{root}/{path}')}"


def folder_of(uri: str | Path) -> str:
    """The folder that a file is in."""
    text = str(uri)
    if is_remote(text):
        is_web = _scheme(text) in _WEB
        return (text.partition("?")[0] if is_web else text).rpartition("/")[0]
    return str(local_path(uri).expanduser().parent)


def resolve(uri: str | Path) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and its path there without a slash at the end.

    Raises:
        DataError: If there is no such file system, or it cannot be listed and written.
    """
    text = str(uri)
    scheme = _scheme(text)
    try:
        if scheme in {"", "file"}:
            path = local_path(text).expanduser().resolve().as_posix()
            return pafs.LocalFileSystem(), path.rstrip("/") or "/"
        if scheme in _BUCKETS:
            return resolve_bucket(text)
        if scheme in _WEB:
            raise DataError(f"{text}: web servers are read only, one file at a time")
        filesystem, path = pafs.FileSystem.from_uri(text)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{text}: not a path or URI that can be used: {error}") from error
    return filesystem, path.rstrip("/")


def open_remote(uri: str) -> RemoteFile:
    """Open a remote file for reading.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If it cannot be opened, after retries where these may help.
    """
    return HttpFile(uri) if _scheme(uri) in _WEB else ObjectFile(*resolve(uri))


def read_bytes(uri: str | Path) -> bytes:
    """Read a small file whole.

    Raises:
        OSError: If it cannot be read.
    """
    if not is_remote(uri):
        return local_path(uri).expanduser().read_bytes()
    content = BytesIO()
    open_remote(str(uri)).copy_to(content)
    return content.getvalue()


def write_bytes(uri: str | Path, content: bytes | pa.Buffer) -> None:
    """Write a file that is there whole or not at all; folders are made.

    Raises:
        OSError: If it cannot be written.
        DataError: If nothing can be written there.
    """
    filesystem, path = resolve(uri)
    if is_remote(uri):  # an object appears once all of it has arrived
        with filesystem.open_output_stream(path) as file:
            file.write(content)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)  # it is still there if that failed


def list_files(uri: str) -> Iterator[tuple[str, str, Listing | None]]:
    """List a remote file, folder (whole) or glob.

    Yields each file's URI, its path in the folder, and what the listing says of it, which is None
    on a web server.

    ``*`` and ``?`` stand for anything within a name, ``**`` for any folders; folders that a glob
    matches are listed whole.

    Raises:
        OSError: If it cannot be listed.
    """
    if _scheme(uri) in _WEB:
        yield uri, path_in(uri).name, None
        return
    filesystem, path = resolve(uri)
    prefix = uri.rstrip("/").removesuffix(path)
    info = filesystem.get_file_info(path)
    if info.is_file:
        yield uri, posixpath.basename(path), listing_of(info)
        return
    folder, matches = path, None
    if info.type == pafs.FileType.NotFound and re.search(r"[*?]", path):
        folder = re.split(r"[*?]", path, maxsplit=1)[0].rpartition("/")[0]
        matches = re.compile(_glob_pattern(path))
    selector = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
    for info in filesystem.get_file_info(selector):
        if info.is_file and (matches is None or matches.fullmatch(info.path)):
            relative = info.path.removeprefix(folder).lstrip("/")
            yield f"{prefix}{info.path}", relative, listing_of(info)


def listing_of(info: pafs.FileInfo) -> Listing:
    """What Arrow says of a file."""
    return Listing(info.size, None if info.mtime_ns is None else info.mtime_ns * 1e-9)


def short_reason(error: BaseException) -> str:
    """An error in a few words that are the same for all files that fail for the same reason."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    text = re.sub(r"^When .*? in bucket '[^']*': |: No response body\.?$", "", text)
    return text.splitlines()[0][:300]


def _scheme(uri: str) -> str:
    match = re.match(r"([a-z][a-z0-9+.-]*)://", uri)
    return match[1] if match else ""


def _glob_pattern(glob: str) -> str:
    names = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return "".join(names.get(part, re.escape(part)) for part in parts) + "(?:/.*)?"
