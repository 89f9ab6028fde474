"""Labels of images, read from LADI's crowd answers or from a table of one column per class."""

import ast
import csv
import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.method.soft_labels import encode_soft_labels
from dsdi_ray.taxonomy import Taxonomy

_URL_COLUMNS = ("url", "img_url", "image_uuid", "image_url")
_IMAGE_COLUMNS = (
    "image", "local_path", "path", "file", "filename", "file_name", "image_path", "image_id", "url",
    "id", "name",
)  # fmt: skip
_YES = frozenset({"1", "true", "yes", "t", "y"})
_NO = frozenset({"0", "false", "no", "f", "n"})
_SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
           "validation": "validation", "test": "validation"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that was left out: its line in the file, and why."""

    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImageLabels:
    """Labels of N images over C classes.

    Attributes:
        references: How the file names each image (a URL, a path, an id).
        answer_counts: Workers that gave each class, ``[N, C]``; 0 or 1 where labels are given.
        asked: Whether the class's category was asked of the image, ``[N, C]``.
        soft_labels: In [0, 1], ``[N, C]``.
        splits: ``train`` or ``validation`` where the file says so, else None.
        unknown_strings: Answers or columns that the taxonomy does not know, with their number.
        bad_rows: Rows that were left out.
    """

    references: list[str]
    answer_counts: NDArray[np.int32]
    asked: NDArray[np.bool_]
    soft_labels: NDArray[np.float32]
    splits: list[str] | None = None
    unknown_strings: dict[str, int] = field(default_factory=dict)
    bad_rows: list[BadRow] = field(default_factory=list)


def read_labels(path: Path, taxonomy: Taxonomy) -> ImageLabels:
    """Read labels; the header tells which of the two forms the file has.

    Raises:
        DataError: If it is neither, or no row of it can be used.
    """
    separator, header = _sniff(path)
    folded = [name.strip().casefold() for name in header]
    if "answer" in folded:
        return _read_answers(path, separator, folded, taxonomy)
    return _read_columns(path, separator, taxonomy)


def _sniff(path: Path) -> tuple[str, list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"labels {path}: cannot be read: {error}") from error
    if not first.strip():
        raise DataError(f"labels {path}: the file is empty")
    separator = "\t" if first.count("\t") >= max(1, first.count(",")) else ","
    return separator, next(csv.reader([first], delimiter=separator))


def _read_answers(
    path: Path, separator: str, header: Sequence[str], taxonomy: Taxonomy
) -> ImageLabels:
    """LADI v1: one row per worker and task, ``url  WorkerId  Answer``.

    A worker's answer counts once per class and image, also where it was submitted twice. A
    category of which an image has no answer was not asked: that is no "none".
    """
    image_column = next((i for i, name in enumerate(header) if name in _URL_COLUMNS), None)
    if image_column is None:
        raise DataError(f"labels {path}: no column of images, one of {', '.join(_URL_COLUMNS)}")
    answer_column = header.index("answer")
    worker_column = header.index("workerid") if "workerid" in header else None
    votes: dict[str, set[tuple[str, int]]] = {}
    unknown: Counter[str] = Counter()
    bad_rows: list[BadRow] = []
    for line, row in _rows(path, separator):
        try:
            image, strings = row[image_column].strip(), _parse_answer(row[answer_column])
            worker = row[worker_column].strip() if worker_column is not None else str(line)
        except (IndexError, ValueError) as error:
            reason = "too few columns" if isinstance(error, IndexError) else str(error)
            bad_rows.append(BadRow(line=line, reason=reason))
            continue
        indices = {string: taxonomy.index_of(string) for string in strings}
        unknown.update(string for string, index in indices.items() if index is None)
        given = votes.setdefault(image, set())
        given |= {(worker, index) for index in indices.values() if index is not None}
    if not votes:
        raise DataError(f"labels {path}: none of {len(bad_rows)} rows can be used")
    return _labels_of_votes(votes, taxonomy, unknown, bad_rows)


def _labels_of_votes(
    votes: dict[str, set[tuple[str, int]]],
    taxonomy: Taxonomy,
    unknown: Counter[str],
    bad_rows: list[BadRow],
) -> ImageLabels:
    counts = np.zeros((len(votes), len(taxonomy)), dtype=np.int32)
    for i, given in enumerate(votes.values()):
        for _, index in given:
            counts[i, index] += 1
    categories = np.array([c.category for c in taxonomy.classes])
    asked = np.zeros(counts.shape, dtype=np.bool_)
    for category in taxonomy.categories:
        members = categories == category
        asked[:, members] = counts[:, members].any(axis=1, keepdims=True)
    return ImageLabels(
        references=list(votes),
        answer_counts=counts,
        asked=asked,
        soft_labels=encode_soft_labels(counts),
        unknown_strings=dict(unknown.most_common()),
        bad_rows=bad_rows,
    )


def _rows(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows below the header with their line numbers; blank ones are passed over."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        next(reader)
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row


def _parse_answer(text: str) -> list[str]:
    try:
        answer = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"the answer is no Python list: {text[:60]!r}") from None
    if isinstance(answer, str):
        answer = [answer]
    if not isinstance(answer, list) or not all(isinstance(a, str) for a in answer):
        raise ValueError(f"the answer is no list of strings: {text[:60]!r}")
    return answer


def _read_columns(path: Path, separator: str, taxonomy: Taxonomy) -> ImageLabels:
    """A column per class, 0/1, true/false or a soft label in [0, 1]; a blank was not asked."""
    table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    image_column = _image_column(list(table.columns), taxonomy)
    column_of: dict[int, str] = {}
    unknown: Counter[str] = Counter()
    for column in table.columns:
        index = taxonomy.index_of(str(column))
        if index is not None:
            column_of[index] = column
        elif column not in (image_column, "split"):
            unknown[str(column)] += 1
    missing = [name for i, name in enumerate(taxonomy.class_names) if i not in column_of]
    if missing:
        close = difflib.get_close_matches(missing[0], list(unknown), n=1)
        hint = f"; did you mean the column {close[0]!r}?" if close else ""
        raise DataError(
            f"labels {path}: no column for class {missing[0]!r} ({len(missing)} of "
            f"{len(taxonomy)} classes of taxonomy {taxonomy.name} are missing){hint}"
        )
    columns = [table[column_of[i]] for i in range(len(taxonomy))]
    values = np.stack([column.map(_parse_cell).to_numpy(float) for column in columns], axis=1)
    is_bad = (values > 1).any(axis=1)  # _parse_cell marks what it cannot read so
    bad_rows = [
        BadRow(line=int(i) + 2, reason="a label is not 0, 1, true, false or between")
        for i in np.flatnonzero(is_bad)
    ]
    if is_bad.all():
        raise DataError(f"labels {path}: none of {len(table)} rows can be used")
    values, table = values[~is_bad], table[~is_bad]
    asked = ~np.isnan(values)
    soft_labels = np.nan_to_num(values).astype(np.float32)
    return ImageLabels(
        references=table[image_column].str.strip().to_list(),
        answer_counts=(soft_labels >= 0.5).astype(np.int32),
        asked=asked,
        soft_labels=soft_labels,
        splits=_splits(table),
        unknown_strings=dict(unknown),
        bad_rows=bad_rows,
    )


def _image_column(columns: Sequence[str], taxonomy: Taxonomy) -> str:
    by_folded = {c.strip().casefold(): c for c in columns}
    named = next((by_folded[name] for name in _IMAGE_COLUMNS if name in by_folded), None)
    return named or next((c for c in columns if taxonomy.index_of(c) is None), columns[0])


def _splits(table: pd.DataFrame) -> list[str] | None:
    if "split" not in table.columns:
        return None
    return [_SPLITS.get(s.strip().casefold(), "train") for s in table["split"]]


def _parse_cell(text: str) -> float:
    folded = text.strip().casefold()
    if folded in _YES:
        return 1.0
    if folded in _NO:
        return 0.0
    if folded in ("", "nan", "na"):
        return float("nan")
    try:
        value = float(folded)
    except ValueError:
        return 2.0
    return value if 0 <= value <= 1 else 2.0
