"""Parts of files as clips: windows of one length, or the shots of a list."""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dsdi_ray.errors import DataError
from dsdi_ray.storage.filesystems import folder_of, join, read_bytes, short_reason
from dsdi_ray.storage.media_files import NOT_IN_CLIP_IDS, FoundFile

MAX_SECONDS = 1_000_000_000  # no film lasts thirty years
MAX_WINDOWS = 100_000  # of one file: more are a mistake, or a header that is damaged
_UNKNOWN_FPS = 10.0  # slow, so that little is held against a file of unknown rate
_ROUNDING_SECONDS = 1e-3  # of a container's length: less than that beyond it shows no picture

Part = tuple[float | None, float | None]  # start and end in seconds, None for the file's own


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of one length that follow each other, each with a share of the one before.

    Attributes:
        length_seconds: Length of each; the last one ends with its file.
        overlap_seconds: How much of the one before each repeats.

    Raises:
        DataError: If there are none such.
    """

    length_seconds: float
    overlap_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.length_seconds < math.inf:
            raise DataError(f"windows must be longer than 0 s, got {self.length_seconds:g}")
        if not 0 <= self.overlap_seconds < self.length_seconds:
            raise DataError(
                f"windows of {self.length_seconds:g} s must overlap by 0 s or more, but less than "
                f"their length, got {self.overlap_seconds:g}"
            )

    def problem(self, duration_seconds: float | None) -> str | None:
        """Why a file is not cut into windows: it has too many of them."""
        if duration_seconds is None or self._num_steps(duration_seconds) <= MAX_WINDOWS:
            return None
        return (
            f"its length of {duration_seconds:g} s, if that is true, makes more than "
            f"{MAX_WINDOWS:,} windows"
        )

    def parts(self, duration_seconds: float | None) -> list[Part]:
        """The windows of a file; one that is no longer than a window, or of unknown length, is whole.

        So is one that has a problem.
        """
        if (
            duration_seconds is None
            or duration_seconds <= self.length_seconds + _ROUNDING_SECONDS
            or self.problem(duration_seconds)
        ):
            return [(None, None)]
        step = self.length_seconds - self.overlap_seconds
        starts = [round(i * step, 6) for i in range(math.ceil(self._num_steps(duration_seconds)))]
        ends = [round(start + self.length_seconds, 6) for start in starts[:-1]]
        return list(zip(starts, [*ends, None], strict=True))

    def _num_steps(self, duration_seconds: float) -> float:
        # The last window is the first to reach the end; it needs a picture that is its own.
        reach = duration_seconds - _ROUNDING_SECONDS - self.overlap_seconds
        return reach / (self.length_seconds - self.overlap_seconds)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A part of a file that a list names.

    Attributes:
        file: Path or URI, or just the name of the file.
        start_seconds: None for the file's start.
        end_seconds: None for its end.
        clip_id: None to name it after the file and the part.
    """

    file: str
    start_seconds: float | None
    end_seconds: float | None
    clip_id: str | None


def part_id(name: str, start_seconds: float | None, end_seconds: float | None) -> str:
    """Name a part after its file: ``name@12.5-60``, ``name@60-`` to the end, ``name`` if whole."""
    if start_seconds is None and end_seconds is None:
        return name
    return (
        f"{name}@{start_seconds or 0.0:.10g}-{'' if end_seconds is None else f'{end_seconds:.10g}'}"
    )


def part_seconds(
    duration_seconds: float | None, start_seconds: float | None, end_seconds: float | None
) -> float | None:
    """Length of a part, as far as the length of its file is known."""
    ends = [end for end in (duration_seconds, end_seconds) if end is not None]
    return max(0.0, min(ends) - (start_seconds or 0.0)) if ends else None


def num_past_end(manifest: pa.Table) -> int:
    """Number of clips that are to end a picture or more after their file does, where that is known."""
    wanted = pc.subtract(manifest["end_seconds"], pc.fill_null(manifest["start_seconds"], 0.0))
    too_long = pc.subtract(wanted, manifest["duration_seconds"])
    picture = pc.divide(1.0, pc.fill_null(manifest["source_fps"], _UNKNOWN_FPS))
    is_past = pc.greater(too_long, pc.add(picture, _ROUNDING_SECONDS))
    return int(pc.sum(is_past).as_py() or 0)


def num_of_unknown_length(manifest: pa.Table) -> int:
    """Number of videos that can be read and whose length is not known."""
    is_readable_video = pc.and_(
        pc.equal(manifest["media"], "video"), pc.is_null(manifest["probe_error"])
    )
    is_unknown = pc.and_(is_readable_video, pc.is_null(manifest["duration_seconds"]))
    return int(pc.sum(is_unknown).as_py() or 0)


def clip_problem(row: Mapping[str, Any]) -> str | None:
    """Why a manifest's row makes no sense, None if it does."""
    start, end, clip_id = row["start_seconds"], row["end_seconds"], row["clip_id"]
    if not row["uri"]:
        return "uri must not be empty"
    if row["media"] not in {None, "video", "image"}:
        return f"media must be video or image, got {row['media']!r}"
    if start is not None and not 0 <= start <= MAX_SECONDS:
        return f"start_seconds must be 0 or more and at most {MAX_SECONDS}, got {start}"
    if end is not None and not (start or 0.0) < end <= MAX_SECONDS:
        return (
            f"end_seconds must be above start_seconds ({start or 0.0:g}) and at most "
            f"{MAX_SECONDS}, got {end}"
        )
    if clip_id is not None and (not clip_id or NOT_IN_CLIP_IDS.search(clip_id)):
        return (
            "clip_id must have no blanks (run files separate by them) or control characters, "
            f"got {clip_id!r}"
        )
    return None


def seconds_of(text: str) -> float:
    """Seconds of ``83.5``, ``1:23.5`` or ``00:01:23.5``.

    Raises:
        ValueError: If it is none of these.
    """
    match = re.fullmatch(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d+)?)", text.strip())
    if match is None or (match[2] is not None and float(match[3]) >= 60):
        raise ValueError(f"must be seconds, MM:SS or HH:MM:SS.mmm, got {text!r}")
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + float(match[3])


def read_shots(uri: str | Path) -> list[Shot]:
    """Read a shot list: CSV with ``uri`` or ``file``, ``start_seconds``, ``end_seconds``, ``clip_id``.

    The last one may be absent. Times are seconds or HH:MM:SS.mmm; an empty one is the file's own.

    Raises:
        DataError: If it cannot be read, or has a row that makes no sense.
    """
    try:
        lines = csv.DictReader(io.StringIO(read_bytes(uri).decode("utf-8-sig"), newline=""))
        columns, rows = set(lines.fieldnames or ()), list(lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"shot list {uri}: cannot be read: {short_reason(error)}") from error
    if not {"start_seconds", "end_seconds"} <= columns or not {"uri", "file"} & columns:
        raise DataError(
            f"shot list {uri}: needs the columns uri or file, start_seconds and end_seconds, has "
            f"{', '.join(sorted(columns)) or 'none'}"
        )
    if not rows:
        raise DataError(f"shot list {uri}: has no shots, only a header")
    shots = []
    for place, row in enumerate(rows, start=1):
        try:
            shots.append(_shot(row))
        except ValueError as error:
            raise DataError(f"shot list {uri}, row {place}: {error}") from error
    return shots


def shots_by_file(
    shots: Sequence[Shot], files: Sequence[FoundFile], *, source: str | Path
) -> dict[FoundFile, list[Shot]]:
    """Find the file of each shot: by its URI, its path (from the list's folder too), or its name.

    Raises:
        DataError: If a shot is of none of the files, or of several.
    """
    by_name: defaultdict[str, list[FoundFile]] = defaultdict(list)
    for file in files:
        path = PurePosixPath(file.relative)
        for name in {file.uri, file.relative, path.name, path.stem}:
            by_name[name].append(file)
    found: defaultdict[FoundFile, list[Shot]] = defaultdict(list)
    for place, shot in enumerate(shots, start=1):
        absolute = join(folder_of(source), shot.file)
        matches = by_name.get(absolute) or by_name.get(shot.file) or []
        if len(matches) != 1:
            listed = f"{len(matches)} of them" if matches else "none of the files that were found"
            raise DataError(f"shot list {source}, row {place}: {shot.file!r} is {listed}")
        found[matches[0]].append(shot)
    return dict(found)


def _shot(row: Mapping[str, str | None]) -> Shot:
    absent = [name for name, text in row.items() if text is None]
    if absent:  # an empty field says that a part ends with its file; one that is cut off, nothing
        raise ValueError(f"is too short, without {', '.join(absent)}")
    start, end = (
        seconds_of(text) if (text := row[name]) else None
        for name in ("start_seconds", "end_seconds")
    )
    file, clip_id = row.get("uri") or row.get("file") or "", row.get("clip_id") or None
    clip = {"uri": file, "media": None, "clip_id": clip_id}
    problem = clip_problem({**clip, "start_seconds": start, "end_seconds": end})
    if problem:
        raise ValueError(problem)
    return Shot(file=file, start_seconds=start, end_seconds=end, clip_id=clip_id)
