"""What label files say of images, whichever of the formats they have.

Shape letters: N images, C classes.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.method.soft_labels import majority_labels

# In order of preference: what finds a file comes before what is only a name.
IMAGE_COLUMNS = (
    "image",
    "url",
    "img_url",
    "image_url",
    "s3_path",
    "local_path",
    "file",
    "filename",
    "path",
    "image_uuid",
    "uuid",
    "image_id",
)
MAX_EXAMPLES = 3
_SEPARATORS = "\t,;"


@dataclass(frozen=True)
class BadRow:
    """A row that could not be used.

    Attributes:
        line: Its line in the file, from 1.
        reason: What is wrong with it.
    """

    line: int
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageLabels:
    """Labels per image, in the order of the image ids, and what was odd about the file.

    Attributes:
        image_ids: Path part of a URL, path or name, unique and ascending, ``[N]``.
        soft_labels: In [0, 1], ``[N, C]``.
        answer_counts: Workers who named each class, ``[N, C]``.
        num_asked: Workers who were asked about each class's category, ``[N, C]``.
        num_answers: Answers (rows) per image, ``[N]``.
        encoding: ``max_count`` if soft labels were made of counts, ``as_given`` if read.
        groups: Event or flight where known, ``[N]``; None gives each image's folder.
        splits: ``train`` or ``validation`` where the file says so, ``[N]``.
        held_out: Images that the file keeps for testing; they are not among the others.
        unlabelled: Images that were not asked about any class; not among the others either.
        bad_rows: Rows left out.
        num_repeated: Rows by which a worker answered for a second time; they count once.
        unknown_strings: Answers that mean no class, by how often they came.
        unknown_examples: Some images of each.
        ignored_columns: Columns that mean no class.
    """

    image_ids: tuple[str, ...]
    soft_labels: NDArray[np.float32]
    answer_counts: NDArray[np.int32]
    num_asked: NDArray[np.int32]
    num_answers: NDArray[np.int32]
    encoding: str
    groups: tuple[str | None, ...] | None = None
    splits: tuple[str | None, ...]
    held_out: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    bad_rows: tuple[BadRow, ...] = ()
    num_repeated: int = 0
    unknown_strings: Mapping[str, int] = field(default_factory=dict)
    unknown_examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Whether anybody was asked about each class's category, ``[N, C]``."""
        return np.asarray(self.num_asked > 0)

    @property
    def majority(self) -> NDArray[np.bool_]:
        """Classes that most of those asked have named, ``[N, C]``."""
        return majority_labels(self.answer_counts, self.num_asked)

    @property
    def folders(self) -> tuple[str | None, ...]:
        """Folder of each image id, ``[N]``: in LADI the flight's; None where there is none."""
        parents = (i.rpartition("/")[0] for i in self.image_ids)
        return tuple(parent or None for parent in parents)


@dataclass(frozen=True)
class TextTable:
    """A TSV or CSV file whose rows are read one physical line at a time.

    So a stray quote breaks its own row and never the ones after it.

    Attributes:
        path: The file.
        header: Column names.
        separator: Tab, comma or semicolon, whichever the header has most of.
    """

    path: Path
    header: tuple[str, ...]
    separator: str

    @classmethod
    def open(cls, path: Path) -> "TextTable":
        """Read the header.

        Raises:
            DataError: If the file cannot be read or is empty.
        """
        try:
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                line = file.readline()
        except OSError as error:
            raise DataError(f"labels {path}: cannot be read: {error.strerror}") from error
        if not line.strip():
            raise DataError(f"labels {path}: the first line must name the columns, it is empty")
        separator = max(_SEPARATORS, key=line.count)
        return cls(path, tuple(c.strip() for c in _cells(line, separator)), separator)

    def rows(self) -> Iterator[tuple[int, Sequence[str]]]:
        """Line numbers (from 1, the header's) and cells; empty lines are passed over."""
        with self.path.open(encoding="utf-8-sig", errors="replace") as file:
            next(file, None)
            for number, line in enumerate(file, start=2):
                if line.strip():
                    yield number, _cells(line, self.separator)

    def column(self, names: Sequence[str]) -> int | None:
        """Place of the first of some columns that is there; letter case does not matter."""
        folded = [name.casefold() for name in self.header]
        return next((folded.index(n) for n in map(str.casefold, names) if n in folded), None)


def image_id_of(reference: str) -> str:
    """Name an image: the path of its URL without host or bucket, or its path.

    ``s3://ladi/Images/1/a.jpg`` and ``https://ladi.s3.amazonaws.com/Images/1/a.jpg`` are one image.

    Raises:
        ValueError: If nothing is left.
    """
    text = reference.strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        path = text.replace("\\", "/")
    elif scheme in {"http", "https"}:
        path = unquote(urlsplit(text).path)
    else:
        path = rest.partition("/")[2]
    name = PurePosixPath(path.lstrip("/")).as_posix()
    if name in {"", "."}:
        raise ValueError(f"names no image: {reference!r}")
    return name


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [])
    except csv.Error:
        return []
