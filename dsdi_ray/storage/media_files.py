"""Find the video and image files of an archive and name them."""

import glob
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdi_ray.errors import DataError

_VIDEO_NAMES = """
    3g2 3gp 3gpp 264 265 360 amv asf av1 avc avi bdmv dav divx dv f4v flv h264 h265 hevc insv ivf
    lrv m1v m2t m2ts m2v m4v mj2 mjpeg mjpg mkv mod mov mp2 mp4 mpe mpeg mpegts mpg mpv mts mxf nut
    obu ogm ogv ps qt rm rmvb tod tp trp ts vob vro webm wmv wtv y4m
"""
_IMAGE_NAMES = "bmp jfif jpe jpeg jpg png tif tiff webp"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO_NAMES.split())
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _IMAGE_NAMES.split())


@dataclass(frozen=True)
class FoundFile:
    """A file of an archive: its path, the path that names it among others, and its kind."""

    path: Path
    relative: str
    media: str


def find_media(paths: Sequence[str]) -> list[FoundFile]:
    """Expand files, folders (searched whole) and globs into media files, in order, each once.

    In folders, files count by their suffix and hidden ones do not; a file named outright counts
    whatever it is called, and so do those that a glob names by their suffix (``*.dat``).

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
            files = _matches(str(path))
        if not files:
            raise DataError(f"{text}: no such file or folder, or no video or image in it")
        for file, relative in files:
            resolved = file.resolve()
            one = FoundFile(resolved, relative.as_posix(), media_of(file.name))
            found.setdefault(resolved, one)
    return list(found.values())


def clip_ids(files: Sequence[FoundFile]) -> list[str]:
    """Name clips: the file's stem; its relative path where stems clash; a hash where those do.

    Blanks become ``_``, since TREC's ids have none.
    """
    stems = [_without_blanks(Path(f.relative).stem) for f in files]
    relatives = [_without_blanks(f.relative) for f in files]
    stem_count, relative_count = Counter(stems), Counter(relatives)
    ids: list[str] = []
    for file, stem, relative in zip(files, stems, relatives, strict=True):
        if stem_count[stem] == 1:
            ids.append(stem)
        elif relative_count[relative] == 1:
            ids.append(relative)
        else:
            ids.append(f"{relative}-{_path_hash(file)}")
    num_named = Counter(ids)  # one file's stem may be another's path
    return [
        clip_id if num_named[clip_id] == 1 else f"{clip_id}-{_path_hash(file)}"
        for clip_id, file in zip(ids, files, strict=True)
    ]


def media_of(uri: str) -> str:
    """``image`` or ``video``, by a file's suffix."""
    return "image" if Path(uri).suffix.lower() in IMAGE_SUFFIXES else "video"


def _matches(pattern: str) -> list[tuple[Path, Path]]:
    """A glob's files; folders that it matches are searched whole."""
    names_suffix = bool(Path(pattern).suffix.strip(".*?[]"))
    files: list[tuple[Path, Path]] = []
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):
        if match.is_dir() and "**" not in pattern:
            inside = [f for f in sorted(match.rglob("*")) if _is_media(f, match)]
            files += [(f, f.relative_to(match.parent)) for f in inside]
        elif match.is_file() and (names_suffix or _is_media(match, match.parent)):
            files.append((match, Path(match.name)))
    return files


def _path_hash(file: FoundFile) -> str:
    return hashlib.sha256(str(file.path).encode()).hexdigest()[:8]


def _is_media(file: Path, root: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    suffix = file.suffix.lower()
    return (
        (suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES) and file.is_file() and not is_hidden
    )


def _without_blanks(text: str) -> str:
    return re.sub(r"\s+", "_", text)
