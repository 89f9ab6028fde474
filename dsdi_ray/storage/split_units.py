"""What stays on one side of the split: an image, its flight, its event or its folder."""

import re
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import PurePosixPath

from dsdi_ray.errors import DataError

_LADI_PATH = re.compile(r"(?:^|/)(FEMA_CAP/[^/]+)/([^/]+)/[^/]+$")
_NUMBER = re.compile(r"#\d+$")  # of a flight of several

Units = list[str | None]  # per image; None: a unit of its own


def split_units(
    split: str,
    *,
    paths: Sequence[str],
    given_groups: Sequence[str | None] | None,
    capture_times: Sequence[str | None],
    max_gap_minutes: float,
) -> Units:
    """The unit of each image.

    Args:
        split: ``random``: each image by itself; ``event`` or ``flight``: as the label file's column
            of groups says, else by LADI's paths ``FEMA_CAP/<event>/<flight>/<file>``; ``folder``;
            ``given``: the label file's groups, where it has them.
        paths: Of the images, ``[N]``.
        given_groups: The label file's groups, ``[N]``, None if it has none.
        capture_times: ISO 8601, ``[N]``.
        max_gap_minutes: A longer pause between two images begins a new flight; so does none where
            the time of any of a flight's images is unknown.

    Raises:
        DataError: If the images have no such unit.
    """
    if split == "flight":
        return _flights(_named(split, paths, given_groups), capture_times, max_gap_minutes)
    if split == "event":
        return _named(split, paths, given_groups)
    if split == "folder":
        return [_folder(path) for path in paths]
    return list(given_groups) if split == "given" and given_groups else [None] * len(paths)


def unit_names(split: str, *, image_ids: Sequence[str], groups: Sequence[str | None]) -> set[str]:
    """All names by which units of some images may go.

    That of an image's group, without the number of a flight, and that which its own path tells:
    groups that share a picture are joined and called after one of them.

    Args:
        split: As in :func:`split_units`.
        image_ids: Their paths, as far as they are known, ``[N]``.
        groups: As the set has them, ``[N]``.
    """
    names = {None if group is None else _NUMBER.sub("", group) for group in groups}
    if split in _UNIT_OF_PATH:
        matches = [_LADI_PATH.search(image_id) for image_id in image_ids]
        names |= {_UNIT_OF_PATH[split](match) for match in matches if match}
    elif split == "folder":
        names |= {_folder(image_id) for image_id in image_ids}
    return {name for name in names if name is not None}


def unit_among(path: str, names: Container[str]) -> str | None:
    """The longest run of folders on a path that is one of some units; None if none is."""
    folders = PurePosixPath(path.lstrip("/")).parts[:-1]
    for length in range(len(folders), 0, -1):
        for start in range(len(folders) - length + 1):
            name = "/".join(folders[start : start + length])
            if name in names:
                return name
    return None


def _folder(path: str) -> str | None:
    return path.rpartition("/")[0] or None


def _named(split: str, paths: Sequence[str], given_groups: Sequence[str | None] | None) -> Units:
    if given_groups is not None:
        return list(given_groups)
    unit_of = _UNIT_OF_PATH[split]
    matches = [_LADI_PATH.search(path) for path in paths]
    if not any(matches):
        raise DataError(
            f"split {split}: the label file has no column event, flight or group, and no image a "
            f"path FEMA_CAP/<event>/<flight>/<file>, such as {paths[0]}; try folder"
        )
    return [None if match is None else unit_of(match) for match in matches]


_UNIT_OF_PATH: Mapping[str, Callable[[re.Match[str]], str]] = {
    "event": lambda match: match[1],
    "flight": lambda match: f"{match[1]}/{match[2]}",
}


def _flights(units: Units, capture_times: Sequence[str | None], max_gap_minutes: float) -> Units:
    images_of = defaultdict(list)
    for place, unit in enumerate(units):
        if unit is not None:
            images_of[unit].append(place)
    flights = list(units)
    for unit, places in images_of.items():
        times = {place: _parsed(capture_times[place]) for place in places}
        known = [(time, place) for place, time in times.items() if time is not None]
        if len(known) == len(places):
            for place, number in _numbered(sorted(known), timedelta(minutes=max_gap_minutes)):
                flights[place] = f"{unit}#{number}" if number else unit
    return flights


def _numbered(images: Sequence[tuple[datetime, int]], gap: timedelta) -> list[tuple[int, int]]:
    numbered = [(images[0][1], 0)]
    for (before, _), (time, place) in pairwise(images):
        numbered.append((place, numbered[-1][1] + (time - before > gap)))
    return numbered


def _parsed(time: str | None) -> datetime | None:
    try:
        return None if time is None else datetime.fromisoformat(time).replace(tzinfo=None)
    except ValueError:
        return None
