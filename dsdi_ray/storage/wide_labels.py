"""Wide label tables (CSV or TSV): a row per image, a column per class, as LADI v2 has them.

A cell is 0 or 1, true or false, or a soft value between; blank means that nobody was asked. Values
are labels already, so they are kept as they are and never divided by the largest. An optional
``split`` column (train, validation, test) and ``group`` column (event or flight) are honoured.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsdi_ray.errors import DataError
from dsdi_ray.storage.image_labels import (
    IMAGE_COLUMNS,
    BadRow,
    ImageLabels,
    TextTable,
    image_id_of,
)
from dsdi_ray.taxonomy import Taxonomy

_SPLIT_COLUMNS = ("split",)
_GROUP_COLUMNS = ("group", "event", "flight")
_TEST = "test"
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": _TEST,
    "testing": _TEST,
}
_VALUES = {
    **dict.fromkeys(("true", "t", "yes", "y"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n"), 0.0),
    **dict.fromkeys(("", "na", "n/a", "nan", "null"), math.nan),
}


@dataclass(frozen=True)
class _Columns:
    image: int
    classes: Sequence[int]  # place of each class's column, in the taxonomy's order
    split: int | None
    group: int | None
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    values: Sequence[float]  # nan where blank
    split: str | None
    group: str | None


def read_wide_labels(table: TextTable, taxonomy: Taxonomy) -> ImageLabels:
    """Read a wide table; every class of the taxonomy must have a column.

    ``answer_counts`` is 1 where a value is above a half. Rows that cannot be read, and further
    rows of an image, are listed, never fatal; images of the split ``test`` are held out.

    Raises:
        DataError: If a class has no column or two, or no row can be used.
    """
    columns = _find_columns(table, taxonomy)
    rows: dict[str, _Row] = {}
    bad_rows = []
    for line, cells in table.rows():
        try:
            if len(cells) != len(table.header):
                raise ValueError(f"has {len(cells)} columns, the header {len(table.header)}")
            image_id = image_id_of(cells[columns.image])
            if image_id in rows:
                raise ValueError(f"names the image {image_id} again")
            rows[image_id] = _parse_row(cells, columns, taxonomy)
        except ValueError as error:
            bad_rows.append(BadRow(line, str(error)))
    held_out = sorted(i for i, row in rows.items() if row.split == _TEST)
    blank = sorted(i for i, row in rows.items() if all(map(math.isnan, row.values)))
    image_ids = sorted(set(rows) - {*held_out, *blank})
    if not image_ids:
        first = f"; line {bad_rows[0].line}: {bad_rows[0].reason}" if bad_rows else ""
        raise DataError(
            f"labels {table.path}: no row can be used ({len(bad_rows)} bad, {len(blank)} blank, "
            f"{len(held_out)} of the test split){first}"
        )
    values = np.array([rows[i].values for i in image_ids], dtype=np.float32)
    return ImageLabels(
        image_ids=tuple(image_ids),
        soft_labels=np.nan_to_num(values, nan=0.0),
        answer_counts=(values > 0.5).astype(np.int32),
        num_asked=(~np.isnan(values)).astype(np.int32),
        num_answers=np.ones(len(image_ids), dtype=np.int32),
        encoding="as_given",
        groups=None if columns.group is None else tuple(rows[i].group for i in image_ids),
        splits=tuple(rows[i].split for i in image_ids),
        held_out=tuple(held_out),
        unlabelled=tuple(i for i in blank if i not in set(held_out)),
        bad_rows=tuple(bad_rows),
        ignored_columns=columns.ignored,
    )


def _find_columns(table: TextTable, taxonomy: Taxonomy) -> _Columns:
    image = table.column(IMAGE_COLUMNS) or 0
    split, group = table.column(_SPLIT_COLUMNS), table.column(_GROUP_COLUMNS)
    place_of_class: dict[int, int] = {}
    others = []
    for place, name in enumerate(table.header):
        index = taxonomy.index_of(name)
        if place in {image, split, group}:
            continue
        if index is None:
            others.append(name)
        elif place_of_class.setdefault(index, place) != place:
            twin = table.header[place_of_class[index]]
            raise DataError(
                f"labels {table.path}: columns {twin!r} and {name!r} both mean the class "
                f"{taxonomy.class_names[index]!r}"
            )
    missing = [name for i, name in enumerate(taxonomy.class_names) if i not in place_of_class]
    if missing:
        raise DataError(_say_missing(missing, others, table, taxonomy))
    classes = [place_of_class[i] for i in range(len(taxonomy))]
    known = {name.casefold() for name in IMAGE_COLUMNS}
    ignored = tuple(name for name in others if name and name.casefold() not in known)
    return _Columns(image=image, classes=classes, split=split, group=group, ignored=ignored)


def _say_missing(
    missing: Sequence[str], others: Sequence[str], table: TextTable, taxonomy: Taxonomy
) -> str:
    if len(missing) == len(taxonomy):
        return (
            f"labels {table.path}: neither LADI v1's answers (columns url, WorkerId, Answer) nor a "
            f"table with a column per class of taxonomy {taxonomy.name} ({taxonomy.class_names[0]}, "
            f"...); its columns: {', '.join(table.header)[:200]}"
        )
    near = difflib.get_close_matches(missing[0], others, n=1)
    hint = f"; did you mean the column {near[0]!r}?" if near else ""
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return (
        f"labels {table.path}: no column for the class {missing[0]!r}{more} of taxonomy "
        f"{taxonomy.name}{hint}"
    )


def _parse_row(cells: Sequence[str], columns: _Columns, taxonomy: Taxonomy) -> _Row:
    values = [
        _parse_value(cells[place], name)
        for place, name in zip(columns.classes, taxonomy.class_names, strict=True)
    ]
    split_text = cells[columns.split].strip().casefold() if columns.split is not None else ""
    if split_text and split_text not in _SPLITS:
        raise ValueError(f"split must be train, validation or test, got {split_text!r}")
    group = cells[columns.group].strip() if columns.group is not None else ""
    return _Row(values, _SPLITS.get(split_text), group or None)


def _parse_value(text: str, class_name: str) -> float:
    folded = text.strip().casefold()
    if folded in _VALUES:
        return _VALUES[folded]
    try:
        value = float(folded)
    except ValueError:
        value = math.inf
    if not 0 <= value <= 1:
        raise ValueError(f"{class_name} must be in [0, 1] or true or false, got {text!r}")
    return value
