"""Find the files of images that label files name by URL, path, file name or id."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dsdi_ray.errors import DataError
from dsdi_ray.storage.media_files import IMAGE_SUFFIXES


@dataclass(frozen=True)
class MatchedImages:
    """Which image is which file.

    Attributes:
        files: Relative path of each image that was found, by image id.
        missing: Why the others were not, by image id.
    """

    files: Mapping[str, str]
    missing: Mapping[str, str]


def find_image_files(folder: Path) -> list[str]:
    """Paths of the images under a folder, relative to it, ascending; hidden ones are left out.

    Raises:
        DataError: If it is not a folder or has no image.
    """
    if not folder.is_dir():
        raise DataError(f"images {folder}: no such folder")
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(parent).relative_to(folder)
        found += [(relative / name).as_posix() for name in files if is_image_name(name)]
    if not found:
        raise DataError(f"images {folder}: no image in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(found)


def is_image_name(path: str) -> bool:
    """Whether a path with ``/`` is that of an image; hidden files and folders are not."""
    parts = PurePosixPath(path)
    is_hidden = any(part.startswith(".") for part in parts.parts)
    return parts.suffix.lower() in IMAGE_SUFFIXES and not is_hidden


def match_images(image_ids: Sequence[str], files: Sequence[str]) -> MatchedImages:
    """Match images to files by the tail of their paths.

    The file must have the image's name (its stem, where an id has no image suffix). Of several,
    the one that shares most folders from the end counts; a tie is no match, and neither is a file
    that several images could be.

    Args:
        image_ids: Names of :func:`dsdi_ray.storage.image_labels.image_id_of`.
        files: Relative paths with ``/``.
    """
    by_name, by_stem = defaultdict(list), defaultdict(list)
    for file in files:
        path = PurePosixPath(file)
        by_name[path.name].append(file)
        by_stem[path.stem].append(file)
    claims: dict[str, list[tuple[int, str]]] = defaultdict(list)
    missing: dict[str, str] = {}
    for image_id in image_ids:
        path = PurePosixPath(image_id)
        has_suffix = path.suffix.lower() in IMAGE_SUFFIXES
        candidates = by_name.get(path.name, []) if has_suffix else by_stem.get(path.name, [])
        ranked = sorted(((_closeness(image_id, f), f) for f in candidates), reverse=True)
        if not ranked:
            missing[image_id] = "no such file"
        elif len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            missing[image_id] = f"several files could be it: {ranked[0][1]}, {ranked[1][1]}"
        else:
            (num_shared, _), file = ranked[0]
            claims[file].append((num_shared, image_id))
    return _settle(claims, missing)


def _closeness(image_id: str, file: str) -> tuple[int, bool]:
    ours, theirs = PurePosixPath(image_id).parent.parts, PurePosixPath(file).parent.parts
    num_shared = 0
    for a, b in zip(reversed(ours), reversed(theirs), strict=False):
        if a != b:
            break
        num_shared += 1
    return num_shared, num_shared == len(theirs)


def _settle(claims: Mapping[str, list[tuple[int, str]]], missing: dict[str, str]) -> MatchedImages:
    found = {}
    for file, claimants in claims.items():
        closest = max(num_shared for num_shared, _ in claimants)
        winners = [image_id for num_shared, image_id in claimants if num_shared == closest]
        if len(winners) == 1:
            found[winners[0]] = file
        for _, image_id in claimants:
            if [image_id] != winners:
                missing[image_id] = f"the file of its name could be another image's: {file}"
    return MatchedImages(dict(sorted(found.items())), dict(sorted(missing.items())))
