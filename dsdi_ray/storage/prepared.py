"""Prepared sets: what training reads, images and soft labels in Parquet.

A folder of ``prepared.yaml`` (written last: without it a set is not complete), ``report.json`` and
``images-*.parquet``, whose rows ascend by image id from file to file.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.taxonomy import Taxonomy, taxonomy_from_dict

TRAIN, VALIDATION = "train", "validation"
SPEC_FILE, REPORT_FILE = "prepared.yaml", "report.json"
_SHARDS = "images-*.parquet"
_FORMAT, _VERSION = "dsdi_ray prepared set", 2


def prepared_schema(num_classes: int) -> pa.Schema:
    """Columns of the image files, for C classes."""
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("jpeg", pa.binary()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("soft_label", pa.list_(pa.float32(), num_classes)),
            ("answer_counts", pa.list_(pa.int32(), num_classes)),
            ("num_asked", pa.list_(pa.int32(), num_classes)),  # workers, about the class's category
            ("split", pa.string()),  # train or validation
            ("group", pa.string()),  # event or flight, null: unknown
            ("capture_time", pa.string()),  # ISO 8601
            ("latitude", pa.float64()),
            ("longitude", pa.float64()),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class PreparedSet:
    """A complete prepared set.

    Attributes:
        path: Its folder.
        taxonomy: Of the label vectors.
        prepared_id: Hash of image ids, image bytes, labels, splits and taxonomy.
        inputs_id: Hash of what it was made of and with which settings.
        encoding: ``max_count`` (soft labels made of answer counts) or ``as_given``.
        settings: Short side, validation fraction, split seed, what is split.
        counts: Images in all, per split, missing, unreadable; bad rows.
    """

    path: Path
    taxonomy: Taxonomy
    prepared_id: str
    inputs_id: str
    encoding: str
    settings: Mapping[str, Any]
    counts: Mapping[str, int]

    @classmethod
    def open(cls, path: Path) -> "PreparedSet":
        """Open a set.

        Raises:
            DataError: If the folder is not a complete prepared set of this version.
            TaxonomyError: If its taxonomy is broken.
        """
        spec_file = path / SPEC_FILE
        try:
            spec = yaml.safe_load(spec_file.read_text("utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{path}: not a prepared set (no {SPEC_FILE}); `dsdi prepare` makes one"
            ) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"{spec_file}: cannot be read: {error}") from error
        if not isinstance(spec, dict) or spec.get("format") != _FORMAT:
            raise DataError(f"{spec_file}: not the description of a prepared set")
        if spec.get("version") != _VERSION:
            raise DataError(f"{spec_file}: {_say_version(spec.get('version'))}; prepare again")
        try:
            return cls(
                path=path,
                taxonomy=taxonomy_from_dict(spec["taxonomy"], source=str(spec_file)),
                prepared_id=str(spec["prepared_id"]),
                inputs_id=str(spec["inputs_id"]),
                encoding=str(spec["encoding"]),
                settings=dict(spec["settings"]),
                counts=dict(spec["counts"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{spec_file}: lacks {error}") from error

    @property
    def num_images(self) -> int:
        return self.counts["images"]

    @cached_property
    def report(self) -> Mapping[str, Any]:
        """What was found and left out on the way.

        Raises:
            DataError: If ``report.json`` is gone or broken.
        """
        try:
            report: Mapping[str, Any] = json.loads((self.path / REPORT_FILE).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / REPORT_FILE}: cannot be read: {error}") from error
        return report

    def read(self, columns: Sequence[str] | None = None, split: str | None = None) -> pa.Table:
        """Read rows, ascending by image id.

        Args:
            columns: Of :func:`prepared_schema`, all by default; without ``jpeg`` it is quick.
            split: ``train`` or ``validation``, both by default.

        Raises:
            DataError: If a column or a split is unknown, or image files are gone or damaged.
        """
        schema = prepared_schema(len(self.taxonomy))
        names = list(schema.names if columns is None else columns)
        unknown = [name for name in names if name not in schema.names]
        if unknown:
            raise DataError(f"{self.path}: no column {unknown[0]!r}, has {', '.join(schema.names)}")
        if split not in {None, TRAIN, VALIDATION}:
            raise DataError(f"split must be {TRAIN} or {VALIDATION}, got {split!r}")
        wanted = None if split is None else [("split", "=", split)]
        expected = self.num_images if split is None else self.counts[split]
        try:
            parts = [
                pq.read_table(file, columns=names, filters=wanted, partitioning=None)
                for file in sorted(self.path.glob(_SHARDS))
            ]
            target = pa.schema([schema.field(name) for name in names])
            table = pa.concat_tables(
                [part.cast(target) for part in parts] or [target.empty_table()]
            )
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: an image file cannot be read: {error}") from error
        if len(table) != expected:
            raise DataError(
                f"{self.path}: has {len(table)} rows, {SPEC_FILE} says {expected}; prepare again"
            )
        return table


def labels_matrix(table: pa.Table, column: str) -> NDArray[Any]:
    """A column of vectors, such as ``soft_label``, as an array, ``[N, C]``."""
    vectors = table[column]
    num_classes = vectors.type.list_size
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in vectors.chunks]
    empty = np.empty(0, dtype=vectors.type.value_type.to_pandas_dtype())
    return np.concatenate([empty, *chunks]).reshape(len(table), num_classes)


def vectors_column(values: NDArray[Any], value_type: pa.DataType) -> pa.FixedSizeListArray:
    """An array, ``[N, C]``, as a column of vectors."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), type=value_type)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def write_shard(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, file: Path) -> None:
    """Write an image file, under a temporary name first; writing it again changes nothing."""
    temporary = file.with_name(f".{file.name}.tmp")
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    pq.write_table(table, temporary, compression="zstd", use_dictionary=["split", "group"])
    temporary.rename(file)


def content_hash(images: Sequence[tuple[str, str]], labels: pa.Table, taxonomy: Taxonomy) -> str:
    """Hash of what a network learns from; see :attr:`PreparedSet.prepared_id`.

    Args:
        images: Image id and hash of the stored bytes, ascending, ``[N]``.
        labels: Columns soft_label, answer_counts, num_asked, split and group in the same order.
        taxonomy: Of the labels.
    """
    digest = hashlib.sha256(taxonomy.taxonomy_id.encode())
    digest.update(json.dumps(list(images)).encode())
    for column in ("soft_label", "answer_counts", "num_asked"):
        digest.update(labels_matrix(labels, column).tobytes())
    for column in ("split", "group"):
        digest.update(json.dumps(labels[column].to_pylist()).encode())
    return digest.hexdigest()[:24]


def _say_version(version: object) -> str:
    if version == 1:
        return f"made by an earlier version ({_FORMAT} version 1, without numbers of workers asked)"
    return f"version must be {_VERSION}, got {version}"


def complete_set(out: Path, *, inputs_id: str, overwrite: bool) -> PreparedSet | None:
    """The set that is at ``out`` already, if it was made of the same; None if one may be written.

    Raises:
        DataError: If there is something else that may not be replaced.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, must be a folder that is new, empty or a prepared set")
    names = {file.name for file in out.iterdir()} if out.exists() else set()
    if not names:
        return None
    if SPEC_FILE not in names:
        raise DataError(f"{out}: is not empty and not a prepared set; choose another folder")
    strangers = names - {SPEC_FILE, REPORT_FILE} - {f.name for f in out.glob(_SHARDS)}
    try:
        existing = PreparedSet.open(out)
    except DataError:
        existing = None
    if existing is not None and existing.inputs_id == inputs_id:
        return existing
    if not overwrite:
        raise DataError(
            f"{out}: holds a prepared set of other answers, images or settings; "
            "choose another folder or --overwrite"
        )
    if strangers:
        raise DataError(f"{out}: holds other files ({min(strangers)}) and is not overwritten")
    return None


def publish_set(
    folder: Path, out: Path, *, spec: Mapping[str, Any], report: Mapping[str, Any]
) -> PreparedSet:
    """Complete a set that was written to a temporary folder and move it to its place.

    Args:
        folder: Holds the image files.
        out: Where the set goes; a set that is there is replaced.
        spec: Every field of :class:`PreparedSet` but the path, the taxonomy as a mapping.
        report: The content of ``report.json``.
    """
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    described = {"format": _FORMAT, "version": _VERSION, **spec}
    text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=100)
    (folder / SPEC_FILE).write_text(text, "utf-8")
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return PreparedSet.open(out)
