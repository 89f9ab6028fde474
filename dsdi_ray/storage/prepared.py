"""Prepared sets: what training reads, images and soft labels in Parquet.

A folder of ``images-*.parquet`` (the pictures, ascending by image id from file to file; those with
pseudo-labels come after the others, see :mod:`dsdi_ray.storage.pseudo_set`),
``labels.parquet`` (all else of each image, in the same order), ``report.json`` and
``prepared.yaml``, which is written last: without it a set is not complete.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.sampling import assign_splits
from dsdi_ray.storage.split_units import unit_names
from dsdi_ray.taxonomy import Taxonomy, taxonomy_from_dict

TRAIN, VALIDATION = "train", "validation"
_NEW_COLUMNS = ("source_sha1", "pseudo_labelled_by")  # older sets lack them: null
SPEC_FILE, REPORT_FILE, LABELS_FILE = "prepared.yaml", "report.json", "labels.parquet"
IMAGE_FILES = "images-*.parquet"
FORMAT, VERSION = "dsdi_ray prepared set", 2
IMAGES_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("jpeg", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


def labels_schema(num_classes: int) -> pa.Schema:
    """Columns of the labels, for C classes."""
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("soft_label", pa.list_(pa.float32(), num_classes)),
            ("answer_counts", pa.list_(pa.int32(), num_classes)),
            ("num_asked", pa.list_(pa.int32(), num_classes)),  # workers, about the class's category
            ("split", pa.string()),  # train or validation
            ("group", pa.string()),  # what a split keeps together, null: the image by itself
            ("capture_time", pa.string()),  # ISO 8601
            ("latitude", pa.float64()),
            ("longitude", pa.float64()),
            ("source_sha1", pa.string()),  # of the file that the picture was made of
            ("pseudo_labelled_by", pa.string()),  # id of an ensemble, null: by people
        ]
    )


def prepared_schema(num_classes: int) -> pa.Schema:
    """Columns of a set, for C classes: of its images and of its labels."""
    return pa.unify_schemas([IMAGES_SCHEMA, labels_schema(num_classes)])


@dataclass(frozen=True, kw_only=True)
class PreparedSet:
    """A complete prepared set.

    Attributes:
        path: Its folder.
        taxonomy: Of the label vectors.
        prepared_id: Hash of image ids, image bytes, labels, splits and taxonomy.
        inputs_id: Hash of what it was made of and with which settings.
        encoding: ``max_count`` (soft labels made of answer counts) or ``as_given``.
        settings: Short side, and how it was split.
        counts: Images in all, per split, missing, unreadable; bad rows; pseudo-labelled images if any.
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
        if not isinstance(spec, dict) or spec.get("format") != FORMAT:
            raise DataError(f"{spec_file}: not the description of a prepared set")
        if spec.get("version") != VERSION:
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

    @property
    def num_pseudo_labelled(self) -> int:
        """Images that an ensemble has labelled, not people."""
        return self.counts.get("pseudo_labelled", 0)

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
        """Read rows, ascending by image id, pseudo-labelled ones after the others.

        Args:
            columns: Of :func:`prepared_schema`, all by default; without pictures it is quick.
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
        try:
            table = pq.read_table(self.path / LABELS_FILE, partitioning=None)
            for name in _NEW_COLUMNS:
                if name not in table.column_names:
                    table = table.append_column(name, pa.nulls(len(table), pa.string()))
            pictures = [name for name in names if name in {"jpeg", "width", "height"}]
            if pictures:
                table = _joined(table, self._read_images(pictures))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: a file cannot be read: {error}") from error
        if len(table) != self.num_images:
            raise DataError(
                f"{self.path}: has {len(table)} rows, {SPEC_FILE} says {self.num_images}; "
                "prepare again"
            )
        if split is not None:
            table = table.filter(pc.equal(table["split"], split))
        return table.select(names).cast(pa.schema([schema.field(name) for name in names]))

    def num_smaller(self, side_px: int) -> int:
        """Images whose short side is below a size, in pixels.

        Raises:
            DataError: If image files are gone or damaged.
        """
        sizes = self.read(["width", "height"])
        short_sides = pc.min_element_wise(sizes["width"], sizes["height"])
        return int(pc.sum(pc.less(short_sides, side_px), min_count=0).as_py())

    def _read_images(self, columns: Sequence[str]) -> pa.Table:
        files = sorted(self.path.glob(IMAGE_FILES))
        parts = [pq.read_table(f, columns=["image_id", *columns], partitioning=None) for f in files]
        empty = pa.schema([IMAGES_SCHEMA.field(name) for name in ("image_id", *columns)])
        return pa.concat_tables([empty.empty_table(), *parts])

    def split_again(self, seed: int) -> list[str | None]:
        """Hold other images back than the set does; what it keeps together stays so.

        Args:
            seed: Which ones.

        Returns:
            Train or validation, in the order of the rows; None for pseudo-labelled images whose
            unit is held back: they are of neither part.

        Raises:
            ConfigError: If the labels themselves said which images are held back.
            DataError: If the labels are gone or damaged.
        """
        if self.settings.get("split") == "given":
            raise ConfigError(
                f"split_seed: the labels of {self.path} say which images are held back; "
                "set split_seed=null to keep to it, or prepare with another --split"
            )
        table = self.read(["image_id", "group", "pseudo_labelled_by"])
        is_labelled = pc.is_null(table["pseudo_labelled_by"])
        labelled, others = table.filter(is_labelled), table.filter(pc.invert(is_labelled))
        image_ids, groups = labelled["image_id"].to_pylist(), labelled["group"].to_pylist()
        is_validation = assign_splits(
            image_ids,
            validation_fraction=float(self.settings.get("validation_fraction", 0.2)),
            seed=seed,
            groups=groups,
        )
        held_back = unit_names(
            str(self.settings.get("split")),
            image_ids=list(compress(image_ids, is_validation)),
            groups=list(compress(groups, is_validation)),
        )
        splits = [VALIDATION if held else TRAIN for held in is_validation]
        return splits + [None if g in held_back else TRAIN for g in others["group"].to_pylist()]


def _joined(labels: pa.Table, images: pa.Table) -> pa.Table:
    if labels["image_id"].to_pylist() != images["image_id"].to_pylist():
        raise ValueError(f"{len(labels)} labels, {len(images)} images, not of the same")
    for name in images.column_names[1:]:
        labels = labels.append_column(name, images[name])
    return labels


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


def _say_version(version: object) -> str:
    if version == 1:
        return f"made by an earlier version ({FORMAT} version 1, without numbers of workers asked)"
    return f"version must be {VERSION}, got {version}"
