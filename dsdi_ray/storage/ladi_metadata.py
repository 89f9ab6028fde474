"""LADI's table of images: what is known of each beside its labels.

Columns ``uuid`` (the SHA-1 of the file), ``timestamp``, ``gps_lat``, ``gps_lon``, ``gps_alt``,
``file_size``, ``width``, ``height``, ``s3_path``, ``url``; cells may be empty, and some labelled
images have no row. All but one of ``url`` and ``s3_path`` may be absent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dsdi_ray.errors import DataError
from dsdi_ray.storage.image_labels import TextTable, image_id_of

_PATH_COLUMNS = ("url", "s3_path")


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """What the table says of an image; None where it does not.

    Attributes:
        path: Of the image, without host or bucket.
        sha1: Of its file.
        capture_time: ISO 8601.
        latitude: Degrees north.
        longitude: Degrees east.
    """

    path: str
    sha1: str | None
    capture_time: str | None
    latitude: float | None
    longitude: float | None


def read_metadata(path: Path, image_ids: Sequence[str]) -> Mapping[str, ImageMetadata]:
    """Look images up by their path, or by their uuid where that is all that labels give.

    Rows that name no image are passed over.

    Args:
        path: CSV or TSV; LADI's has half a million rows, of which only those of the images stay.
        image_ids: Names of :func:`dsdi_ray.storage.image_labels.image_id_of`.

    Returns:
        By image id, those that have a row.

    Raises:
        DataError: If the file cannot be read or has no column of paths.
    """
    table = TextTable.open(path)
    if table.column(_PATH_COLUMNS) is None:
        raise DataError(
            f"metadata {path}: needs a column url or s3_path, has {', '.join(table.header)}"
        )
    wanted = set(image_ids)
    found: dict[str, ImageMetadata] = {}
    places = {name.casefold(): place for place, name in enumerate(table.header)}
    for _, cells in table.rows():
        if len(cells) != len(table.header):
            continue
        row = {name: cells[place].strip() for name, place in places.items()}
        try:
            image_path = image_id_of(row.get("url") or row.get("s3_path") or "")
        except ValueError:
            continue
        for image_id in {image_path, row.get("uuid", "")} & wanted:
            found[image_id] = _metadata(row, image_path)
    return found


def _metadata(row: Mapping[str, str], path: str) -> ImageMetadata:
    return ImageMetadata(
        path=path,
        sha1=row.get("uuid", "").lower() or None,
        capture_time=_time(row.get("timestamp", "")),
        latitude=_number(row.get("gps_lat", "")),
        longitude=_number(row.get("gps_lon", "")),
    )


def _time(text: str) -> str | None:
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
