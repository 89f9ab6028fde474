"""Where images are: folders, buckets, web servers and tars; and how their bytes are read."""

import io
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from dsdi_ray.errors import DataError, FetchError
from dsdi_ray.storage.filesystems import (
    Listing,
    is_remote,
    list_files,
    listing_of,
    local_path,
    open_remote,
    path_in,
    resolve,
    short_reason,
)
from dsdi_ray.storage.image_files import find_image_files, is_image_name, match_images

_READS_AHEAD = 8  # images that are fetched while one is decoded; some 100 MB
_NO_SUCH_FILE = "no such file"


@dataclass(frozen=True)
class ImageFile:
    """The bytes of an image.

    Attributes:
        uri: Path or URI of a file.
        start: First byte within it, None for the whole file.
        stop: The byte after the last.
        listing: What a bucket's listing says of the file; None elsewhere.
    """

    uri: str
    start: int | None = None
    stop: int | None = None
    listing: Listing | None = None

    @property
    def stamp(self) -> tuple[object, ...]:
        """What changes with the content, as far as can be told without a request to a server."""
        if is_remote(self.uri):
            return (self.uri, self.start, *(self.listing or ()))
        try:
            facts = local_path(self.uri).stat()
        except OSError:  # a dangling link; that it cannot be read will be said of this image alone
            return (self.uri, self.start, -1)
        return (self.uri, self.start, facts.st_size, facts.st_mtime_ns)


@dataclass(frozen=True)
class LocatedImages:
    """Which image is where.

    Attributes:
        files: Place of each image that was found, by image id, ascending.
        missing: Why the others were not, by image id, ascending.
    """

    files: Mapping[str, ImageFile]
    missing: Mapping[str, str]


def locate_images(paths: Mapping[str, str], sources: Sequence[str | Path]) -> LocatedImages:
    """Find images in the first of several sources that has them.

    A source is a folder, a tar, or a URI of either. Paths that lie under a URI's own path are taken
    to be there, without a look: a label file's URLs need no listing of a bucket of millions. Others
    are matched by the tail of their path, see :func:`~dsdi_ray.storage.image_files.match_images`.

    Args:
        paths: Path of each image as far as it is known, by image id.
        sources: In the order in which they are searched.

    Raises:
        DataError: If a source cannot be listed, or has no image.
    """
    files: dict[str, ImageFile] = {}
    missing = dict.fromkeys(paths, _NO_SUCH_FILE)
    for source in map(str, sources):
        sought = {image_id: path for image_id, path in paths.items() if image_id not in files}
        found = _under_address(sought, source)
        rest = {image_id: path for image_id, path in sought.items() if image_id not in found}
        if rest:
            contents = _contents(source)
            matched = match_images(sorted(set(rest.values())), sorted(contents))
            for image_id, path in rest.items():
                if path in matched.files:
                    found[image_id] = contents[matched.files[path]]
                elif matched.missing[path] != _NO_SUCH_FILE:
                    missing[image_id] = matched.missing[path]
        files |= found
    return LocatedImages(
        files=dict(sorted(files.items())),
        missing={i: reason for i, reason in sorted(missing.items()) if i not in files},
    )


def read_image(file: ImageFile) -> bytes:
    """Read an image.

    Raises:
        FileNotFoundError: If there is none.
        PermissionError: If it may not be read.
        FetchError: If a server, after retries, did not give it: another time it may.
        OSError: If a local file cannot be read.
    """
    if is_remote(file.uri):
        return _fetch(file)
    with local_path(file.uri).open("rb") as stream:
        stream.seek(file.start or 0)
        content = stream.read() if file.stop is None else stream.read(_length(file))
    return _checked(content, file)


def read_images(files: Iterable[ImageFile]) -> Iterator[bytes | OSError | FetchError]:
    """Read images in order, a few ahead of the one that is asked for; what fails is its error."""
    with ThreadPoolExecutor(_READS_AHEAD) as threads:
        ahead: deque[Future[bytes | OSError | FetchError]] = deque()
        for file in files:
            ahead.append(threads.submit(_read_or_error, file))
            if len(ahead) > _READS_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _read_or_error(file: ImageFile) -> bytes | OSError | FetchError:
    try:
        return read_image(file)
    except (OSError, FetchError) as error:
        return error


def _fetch(file: ImageFile) -> bytes:
    content = io.BytesIO()
    try:
        open_remote(file.uri).copy_to(content, file.start or 0, file.stop)
    except FileNotFoundError:
        raise
    except Exception as error:  # of whatever library: one image never ends a job
        reason = short_reason(error)
        if "ACCESS_DENIED" in reason or "HTTP status 403" in reason:
            raise PermissionError(reason) from error
        raise FetchError(f"cannot be fetched: {reason}") from error
    return _checked(content.getvalue(), file)


def _checked(content: bytes, file: ImageFile) -> bytes:
    if file.stop is not None and len(content) != _length(file):
        raise OSError(f"{file.uri} ends {_length(file) - len(content)} bytes early")
    return content


def _length(file: ImageFile) -> int:
    return (file.stop or 0) - (file.start or 0)


def _under_address(paths: Mapping[str, str], source: str) -> dict[str, ImageFile]:
    """The images whose paths say that they are under a URI."""
    if not is_remote(source) or _is_tar(source):
        return {}
    path = path_in(source)
    names = path.parts[1:]  # without bucket or the slash at the start
    prefix = "".join(f"{name}/" for name in names)
    root = source.rstrip("/")
    return {
        image_id: ImageFile(f"{root}/{path.removeprefix(prefix)}")
        for image_id, path in paths.items()
        if "/" in path and path.startswith(prefix) and is_image_name(path)
    }


def _contents(source: str) -> dict[str, ImageFile]:
    """Every image of a source, by its path there."""
    if not is_remote(source) and not _is_tar(source):
        folder = local_path(source).expanduser().resolve()
        return {name: ImageFile(str(folder / name)) for name in find_image_files(folder)}
    try:
        found = dict(_tar_members(source) if _is_tar(source) else _remote_images(source))
    except (OSError, pa.ArrowException, tarfile.TarError) as error:
        raise DataError(f"images {source}: cannot be read: {short_reason(error)}") from error
    if not found:
        raise DataError(f"images {source}: no image in it")
    return found


def _remote_images(source: str) -> Iterator[tuple[str, ImageFile]]:
    for uri, relative, listing in list_files(source):
        if is_image_name(relative):
            yield relative, ImageFile(uri, listing=listing)


def _tar_members(uri: str) -> Iterator[tuple[str, ImageFile]]:
    """The images of a tar that is not compressed, from a scan of its headers."""
    filesystem, path = resolve(uri)
    place, listing = path, None
    if is_remote(uri):
        place, listing = uri, listing_of(filesystem.get_file_info(path))
    with (
        filesystem.open_input_file(path) as stream,
        tarfile.open(fileobj=stream, mode="r:") as tar,
    ):
        for member in tar:
            name = PurePosixPath(member.name.lstrip("/")).as_posix()
            if member.isreg() and not member.issparse() and is_image_name(name):
                end = member.offset_data + member.size
                yield name, ImageFile(place, member.offset_data, end, listing)


def _is_tar(source: str) -> bool:
    is_folder = not is_remote(source) and local_path(source).expanduser().is_dir()
    return path_in(source).suffix.lower() == ".tar" and not is_folder
