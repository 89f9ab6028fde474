"""Find the video and image files of an archive and name them."""

import glob
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from dsdi_ray.errors import DataError
from dsdi_ray.storage.filesystems import (
    Listing,
    is_remote,
    list_files,
    local_path,
    path_in,
    short_reason,
)

_VIDEO_NAMES = """
    3g2 3gp 3gpp 264 265 360 amv asf av1 avc avi bdmv dav divx dv f4v flv h264 h265 hevc insv ivf
    lrv m1v m2t m2ts m2v m4v mj2 mjpeg mjpg mkv mod mov mp2 mp4 mpe mpeg mpegts mpg mpv mts mxf nut
    obu ogm ogv ps qt rm rmvb tod tp trp ts vob vro webm wmv wtv y4m
"""
_IMAGE_NAMES = "bmp jfif jpe jpeg jpg png tif tiff webp"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO_NAMES.split())
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _IMAGE_NAMES.split())

# Blanks separate the columns of run files; XML has no control characters, nor the last two.
NOT_IN_CLIP_IDS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ufffe\uffff]+")


@dataclass(frozen=True)
class FoundFile:
    """A file of an archive.

    Attributes:
        uri: Absolute path or URI.
        relative: The path that names it among others.
        media: ``video`` or ``image``.
        listing: What a bucket's listing says of it; None elsewhere.
        problem: Why it cannot be read, where that shows without opening it.
    """

    uri: str
    relative: str
    media: str
    listing: Listing | None = None
    problem: str | None = None


def find_media(paths: Sequence[str]) -> list[FoundFile]:
    """Expand files, folders (searched whole), globs and URIs of these into media files, each once.

    In folders, files count by their suffix and hidden ones do not; a file named outright counts
    whatever it is called, and so do those that a glob names by their suffix (``*.dat``). Links are
    followed; what cannot be read or listed on the way is there with its problem.

    Raises:
        DataError: If a path matches nothing or cannot be listed.
    """
    found: dict[str, FoundFile] = {}
    for text in paths:
        try:
            files = _remote_files(text) if is_remote(text) else _local_files(text)
        except OSError as error:
            raise DataError(f"{text}: cannot be listed: {short_reason(error)}") from error
        if not files:
            raise DataError(f"{text}: no such file or folder, or no video or image in it")
        for file in files:
            found.setdefault(file.uri, file)
    return list(found.values())


def clip_ids(files: Sequence[FoundFile], *, taken: AbstractSet[str] = frozenset()) -> list[str]:
    """Name clips: the file's stem; its relative path where stems clash; a hash where those do.

    Blanks and control characters become ``_``, since run files allow none in ids.

    Args:
        files: To be named.
        taken: Names that other clips have.
    """
    stems = [without_blanks(PurePosixPath(f.relative).stem) for f in files]
    relatives = [without_blanks(f.relative) for f in files]
    stem_count, relative_count = Counter([*stems, *taken]), Counter([*relatives, *taken])
    ids: list[str] = []
    for file, stem, relative in zip(files, stems, relatives, strict=True):
        if stem_count[stem] == 1:
            ids.append(stem)
        elif relative_count[relative] == 1:
            ids.append(relative)
        else:
            ids.append(f"{relative}-{_path_hash(file)}")
    num_named = Counter([*ids, *taken])  # one file's stem may be another's path
    return [
        clip_id if num_named[clip_id] == 1 else f"{clip_id}-{_path_hash(file)}"
        for clip_id, file in zip(ids, files, strict=True)
    ]


def media_of(uri: str) -> str:
    """``image`` or ``video``, by a file's suffix."""
    return "image" if path_in(uri).suffix.lower() in IMAGE_SUFFIXES else "video"


def _local_files(text: str) -> list[FoundFile]:
    path = local_path(text).expanduser()
    is_glob = glob.has_magic(text) and not os.path.exists(path)  # noqa: PTH110 (Path's may raise)
    if is_glob or not (path.is_dir() or path.is_file()):
        return list(_matches(str(path)))
    if path.is_file():
        return [_local_file(path, Path(path.name))]
    os.scandir(path).close()  # raises: a folder that was named outright must be listed
    return list(_files_in(path, path))


def _local_file(path: Path, relative: Path, problem: str | None = None) -> FoundFile:
    """A local file; one whose name is no text has its odd bytes escaped, and cannot be read."""
    name = os.fsencode(relative.as_posix()).decode("utf-8", "backslashreplace")
    # What cannot be read may be a link to itself, which cannot be resolved.
    place = path.parent.resolve() / path.name if problem else path.resolve()
    uri = str(place)
    if not _is_utf8(uri):
        uri, problem = place.as_uri(), "its name is not UTF-8; rename it"
    return FoundFile(uri, name, media_of(name), problem=problem)


def _matches(pattern: str) -> Iterator[FoundFile]:
    """A glob's files; folders that it matches are searched whole."""
    names_suffix = _names_suffix(pattern)
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):
        if os.path.isdir(match):  # noqa: PTH112 (Path's raises where it may not look)
            if "**" not in pattern:
                yield from _files_in(match, match.parent)
        elif names_suffix or _is_media(PurePath(match.name)):
            yield from _if_file(match, Path(match.name))


def _files_in(folder: Path, root: Path) -> Iterator[FoundFile]:
    """A folder's files, and folders in it that cannot be listed; linked folders count once."""
    paths: list[Path] = []
    unlisted: dict[Path, OSError] = {}
    seen: set[str] = set()
    tops = [folder]
    for top in tops:  # which grow; links come last, so that files keep the names of their own place
        walk = os.walk(top, onerror=lambda error: unlisted.update({Path(error.filename): error}))
        for place, folders, names in walk:
            real = os.path.realpath(place)
            visible = [] if real in seen else [n for n in folders if not n.startswith(".")]
            links = [n for n in visible if os.path.islink(os.path.join(place, n))]  # noqa: PTH114, PTH118
            tops += [Path(place, name) for name in sorted(links)]
            folders[:] = sorted(set(visible) - set(links))
            paths += [Path(place, name) for name in names if real not in seen]
            seen.add(real)
    for path in sorted([*paths, *unlisted]):
        if path in unlisted:
            problem = f"the folder cannot be listed: {short_reason(unlisted[path])}"
            yield _local_file(path, path.relative_to(root), problem)
        elif _is_media(path.relative_to(folder)):
            yield from _if_file(path, path.relative_to(root))


def _if_file(path: Path, relative: Path) -> Iterator[FoundFile]:
    """A file, or a link of a media file's name that leads nowhere; nothing for what is neither."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            yield _local_file(path, relative)
    except FileNotFoundError:
        if path.is_symlink() and _is_media(PurePath(path.name)):
            yield _local_file(path, relative, "a link to a file that is not there")
    except OSError as error:
        yield _local_file(path, relative, f"cannot be read: {short_reason(error)}")


def _remote_files(uri: str) -> list[FoundFile]:
    takes_any = bool(re.search(r"[*?]", uri)) and _names_suffix(uri)
    return [
        FoundFile(found, relative, media_of(relative), listing)
        for found, relative, listing in sorted(list_files(uri))
        if found == uri or takes_any or _is_media(PurePosixPath(relative))
    ]


def _is_utf8(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)


def _names_suffix(pattern: str) -> bool:
    return bool(PurePosixPath(pattern).suffix.strip(".*?[]"))


def _path_hash(file: FoundFile) -> str:
    return hashlib.sha256(file.uri.encode()).hexdigest()[:8]


def _is_media(relative: PurePath) -> bool:
    suffix = relative.suffix.lower()
    is_hidden = any(part.startswith(".") for part in relative.parts)
    return (suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES) and not is_hidden


def without_blanks(text: str) -> str:
    """A name as run files can hold it: blanks and control characters become ``_``."""
    return NOT_IN_CLIP_IDS.sub("_", text)
