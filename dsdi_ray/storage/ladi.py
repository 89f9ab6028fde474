"""LADI v1's crowd answers: one row per (image, worker, task), counted per image and class.

The columns are ``url``, ``WorkerId`` and ``Answer``; other releases have ``image_uuid`` or
``img_url`` in place of ``url``. ``Answer`` is the repr of a Python list of strings such as
``['damage:flood/water', 'damage:washout']``. One task asks about one category; a category without
rows was not asked, which is not the same as a no.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.method.soft_labels import encode_soft_labels
from dsdi_ray.storage.image_labels import (
    IMAGE_COLUMNS,
    MAX_EXAMPLES,
    BadRow,
    ImageLabels,
    TextTable,
    image_id_of,
)
from dsdi_ray.storage.wide_labels import read_wide_labels
from dsdi_ray.taxonomy import Taxonomy

_ANSWER_COLUMNS = ("Answer",)
_WORKER_COLUMNS = ("WorkerId", "worker_id", "worker")


def read_answers(path: Path, taxonomy: Taxonomy) -> ImageLabels:
    """Read a label file; its header decides whether it is LADI v1's answers or a wide table.

    Raises:
        DataError: If it cannot be read, is of neither form, or has no usable row.
    """
    table = TextTable.open(path)
    if table.column(_ANSWER_COLUMNS) is not None:
        return read_ladi_answers(table, taxonomy)
    return read_wide_labels(table, taxonomy)


def read_ladi_answers(table: TextTable, taxonomy: Taxonomy) -> ImageLabels:
    """Count LADI v1's answers per image.

    A worker counts once per image and class, however often one answer or several rows of that
    worker name it; a file without worker ids, or a row without one, is a new worker each. An
    unknown string counts for no class, but if its prefix is a category's (``damage:...``), the
    worker was asked about that category. Rows that cannot be read are listed, never fatal.

    Raises:
        DataError: If a column is missing, no row can be read, or no string means a class.
    """
    image, answer = table.column(IMAGE_COLUMNS), table.column(_ANSWER_COLUMNS)
    worker = table.column(_WORKER_COLUMNS)
    if image is None or answer is None:
        raise DataError(
            f"answers {table.path}: needs a column `Answer` and one of url, image_uuid or img_url, "
            f"has {', '.join(table.header)}"
        )
    tally = _Tally(taxonomy)
    bad_rows = []
    for line, cells in table.rows():
        try:
            if len(cells) != len(table.header):
                raise ValueError(f"has {len(cells)} columns, the header {len(table.header)}")
            strings = _parse_answer(cells[answer])
            image_id = image_id_of(cells[image])
        except ValueError as error:
            bad_rows.append(BadRow(line, str(error)))
            continue
        name = cells[worker].strip() if worker is not None else ""
        tally.add(image_id, name or f"line {line}", strings)
    _check_not_empty(tally, bad_rows, table.path)
    return tally.labels(tuple(bad_rows))


@dataclass
class _Tally:
    taxonomy: Taxonomy
    votes: set[tuple[str, str, int]] = field(default_factory=set)  # image, worker, class
    asked: set[tuple[str, str, str]] = field(default_factory=set)  # image, worker, category
    num_answers: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    num_repeated: int = 0

    def __post_init__(self) -> None:
        self._category_by_prefix = _category_by_prefix(self.taxonomy)

    def add(self, image_id: str, worker: str, strings: frozenset[str]) -> None:
        self.num_answers[image_id] += 1
        categories = set()
        for string in strings:
            index = self.taxonomy.index_of(string)
            if index is None:
                self._add_unknown(image_id, string)
                category = self._category_by_prefix.get(_prefix(string))
            else:
                self.votes.add((image_id, worker, index))
                category = self.taxonomy.classes[index].category
            if category is not None:
                categories.add((image_id, worker, category))
        self.num_repeated += bool(categories & self.asked)
        self.asked |= categories

    def _add_unknown(self, image_id: str, string: str) -> None:
        self.unknown[string] += 1
        examples = self.examples[string]
        if len(examples) < MAX_EXAMPLES and image_id not in examples:
            examples.append(image_id)

    def labels(self, bad_rows: tuple[BadRow, ...]) -> ImageLabels:
        labelled = {image_id for image_id, _, _ in self.asked}
        image_ids = sorted(labelled)
        row = {image_id: i for i, image_id in enumerate(image_ids)}
        shape = (len(image_ids), len(self.taxonomy))
        categories = list(self.taxonomy.categories)
        counts = _count(((row[i], c) for i, _, c in self.votes), shape)
        asked_by_category = _count(
            ((row[i], categories.index(c)) for i, _, c in self.asked), (shape[0], len(categories))
        )
        category_of_class = [categories.index(c.category) for c in self.taxonomy.classes]
        return ImageLabels(
            image_ids=tuple(image_ids),
            soft_labels=encode_soft_labels(counts),
            answer_counts=counts,
            num_asked=asked_by_category[:, category_of_class],
            num_answers=np.array([self.num_answers[i] for i in image_ids], dtype=np.int32),
            encoding="max_count",
            splits=(None,) * len(image_ids),
            unlabelled=tuple(sorted(set(self.num_answers) - labelled)),
            bad_rows=bad_rows,
            num_repeated=self.num_repeated,
            unknown_strings=dict(sorted(self.unknown.items(), key=lambda kv: (-kv[1], kv[0]))),
            unknown_examples=dict(self.examples),
        )


def _count(places: Iterable[tuple[int, int]], shape: tuple[int, int]) -> NDArray[np.int32]:
    counts = np.zeros(shape, dtype=np.int32)
    pairs = np.array(list(places), dtype=np.int64).reshape(-1, 2)
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    return counts


@lru_cache(maxsize=65536)  # a few hundred distinct answers make up all of LADI
def _parse_answer(text: str) -> frozenset[str]:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"the answer is no Python list of strings: {text[:80]!r}") from None
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list | tuple | set) or not all(isinstance(s, str) for s in strings):
        raise ValueError(f"the answer is no Python list of strings: {text[:80]!r}")
    if not any(s.strip() for s in strings):
        raise ValueError("the answer is empty")
    return frozenset(s.strip() for s in strings if s.strip())


def _category_by_prefix(taxonomy: Taxonomy) -> Mapping[str, str]:
    categories = defaultdict(set)
    for c in taxonomy.classes:
        for spelling in (c.name, *c.aliases):
            if _prefix(spelling):
                categories[_prefix(spelling)].add(c.category)
    return {prefix: next(iter(names)) for prefix, names in categories.items() if len(names) == 1}


def _prefix(spelling: str) -> str:
    prefix, colon, _ = spelling.partition(":")
    return prefix.strip().casefold() if colon else ""


def _check_not_empty(tally: _Tally, bad_rows: list[BadRow], path: Path) -> None:
    if not tally.num_answers:
        first = f"; line {bad_rows[0].line}: {bad_rows[0].reason}" if bad_rows else ""
        raise DataError(f"answers {path}: no row can be read ({len(bad_rows)} bad){first}")
    if not tally.votes:
        common = ", ".join(repr(s) for s, _ in tally.unknown.most_common(3))
        raise DataError(
            f"answers {path}: no answer means a class of taxonomy {tally.taxonomy.name}, "
            f"the most common are {common}"
        )
