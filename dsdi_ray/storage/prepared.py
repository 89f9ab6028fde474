"""Prepared sets: images at their training size with soft labels and a split, in Parquet."""

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.taxonomy import Taxonomy, taxonomy_from_dict

SET_FILE = "prepared.yaml"
REPORT_FILE = "report.json"
_FORMAT = 1
_ROWS_PER_FILE = 2048
_ROWS_PER_GROUP = 256


def prepared_schema(num_classes: int) -> pa.Schema:
    """Schema of a prepared set's files."""
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("jpeg", pa.binary()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("soft_label", pa.list_(pa.float32(), num_classes)),
            ("answer_counts", pa.list_(pa.int32(), num_classes)),
            ("asked", pa.list_(pa.bool_(), num_classes)),  # the class's category was asked
            ("split", pa.string()),  # train or validation
            ("group", pa.string()),  # event or flight
            ("capture_time", pa.string()),
            ("latitude", pa.float64()),
            ("longitude", pa.float64()),
        ]
    )


@dataclass(frozen=True)
class PreparedSet:
    """A prepared set on disk."""

    path: Path
    taxonomy: Taxonomy
    facts: Mapping[str, Any]

    @staticmethod
    def open(path: Path) -> "PreparedSet":
        """Open a set.

        Raises:
            DataError: If there is none, or it is not complete.
        """
        try:
            data = yaml.safe_load((path / SET_FILE).read_text("utf-8"))
        except FileNotFoundError as error:
            raise DataError(f"{path} is no prepared set: {SET_FILE} is missing") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"prepared set {path}: {SET_FILE} cannot be read: {error}") from error
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise DataError(f"prepared set {path}: {SET_FILE} is not of format {_FORMAT}")
        taxonomy = taxonomy_from_dict(data.pop("taxonomy"), source=str(path / SET_FILE))
        return PreparedSet(path, taxonomy, data)

    @property
    def prepared_id(self) -> str:
        """Hash of the images, labels, split and taxonomy."""
        return str(self.facts["prepared_id"])

    @cached_property
    def _dataset(self) -> pads.Dataset:
        files = sorted(str(f) for f in self.path.glob("images-*.parquet"))
        return pads.dataset(files, schema=prepared_schema(len(self.taxonomy)), format="parquet")

    def read(self, columns: Sequence[str], split: str | None = None) -> pa.Table:
        """Read columns, ordered by image_id.

        Args:
            columns: Names of :func:`prepared_schema`.
            split: ``train`` or ``validation``, None for both.
        """
        condition = pads.field("split") == split if split else None
        return self._dataset.to_table(columns=list(columns), filter=condition)


def labels_matrix(table: pa.Table, column: str) -> NDArray[np.float32]:
    """A column of fixed-size lists as an array, ``[N, C]``."""
    lists = table[column].combine_chunks()
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(table), -1)


class PreparedWriter:
    """Writes a set into a temporary folder, which becomes the set when it is complete."""

    def __init__(self, out: Path, taxonomy: Taxonomy) -> None:
        self._out = out
        self._taxonomy = taxonomy
        self._folder = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.tmp"
        self._folder.mkdir(parents=True)
        self._schema = prepared_schema(len(taxonomy))
        self._num_files = 0
        self._waiting: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; rows must come in the order of image_id."""
        self._waiting.append(dict(row))
        if len(self._waiting) == _ROWS_PER_FILE:
            self._flush()

    def finish(self, facts: Mapping[str, Any], report: Mapping[str, Any]) -> None:
        """Write what is left and put the set in its place."""
        if self._waiting or not self._num_files:
            self._flush()
        content = {"format": _FORMAT, **facts, "taxonomy": self._taxonomy.to_dict()}
        (self._folder / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (self._folder / SET_FILE).write_text(text, "utf-8")
        if self._out.exists():
            shutil.rmtree(self._out)
        self._folder.rename(self._out)

    def _flush(self) -> None:
        table = pa.Table.from_pylist(self._waiting, schema=self._schema)
        file = self._folder / f"images-{self._num_files:05d}.parquet"
        pq.write_table(table, file, row_group_size=_ROWS_PER_GROUP, compression="zstd")
        self._num_files += 1
        self._waiting.clear()
