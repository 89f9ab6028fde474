"""A member's logits of the images that its training held back: ``validation.parquet`` in its bundle.

A row per image, ascending by image id: its labels in the recipe's encoding, which of them somebody
was asked about, and the member's logits. The file's metadata says of which member, taxonomy,
prepared set, split and epoch they are. Members that were validated on the same images can be
compared and joined without a network or a picture (:mod:`dsdi_ray.storage.member_library`).

Shapes: N images, C classes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.storage.filesystems import join, read_bytes, short_reason, write_bytes
from dsdi_ray.storage.prepared import labels_matrix, vectors_column
from dsdi_ray.storage.store_files import encoding_of

VALIDATION_FILE = "validation.parquet"
_FORMAT = "dsdi_ray validation logits 1"
_PREFIX = "dsdi_ray."
_FACTS = ("member_id", "taxonomy_id", "prepared_id", "split_seed", "epoch")
_VECTORS = {"soft_label": pa.float32(), "is_asked": pa.bool_(), "logits": pa.float32()}


@dataclass(frozen=True, kw_only=True)
class ValidationLogits:
    """What a member says of the images that its training held back.

    Attributes:
        image_ids: Distinct names, ``[N]``.
        groups: What splits keep together, ``[N]``; None: the image by itself.
        soft_labels: In the encoding of the member's recipe, ``[N, C]``, float32.
        is_asked: Classes that count in its loss, ``[N, C]``; all, where its recipe does not mask.
        logits: Before the sigmoid, ``[N, C]``, float32.
        member_id: Of the member.
        taxonomy_id: Of the classes.
        prepared_id: Of the set that the images are of.
        split_seed: That held them back; None: the set's own split.
        epoch: After which the member was taken, from 1.
    """

    image_ids: Sequence[str]
    groups: Sequence[str | None]
    soft_labels: NDArray[np.float32]
    is_asked: NDArray[np.bool_]
    logits: NDArray[np.float32]
    member_id: str
    taxonomy_id: str
    prepared_id: str
    split_seed: int | None
    epoch: int


def validation_schema(num_classes: int) -> pa.Schema:
    """Columns of the file, for C classes; ``group`` may be absent in a file of other makers."""
    vectors = [(name, pa.list_(kind, num_classes)) for name, kind in _VECTORS.items()]
    return pa.schema([("image_id", pa.string()), ("group", pa.string()), *vectors])


def write_validation(member: Path, validation: ValidationLogits) -> None:
    """Write the file into a member's bundle; it is there whole or not at all.

    Raises:
        ValueError: If shapes differ.
    """
    shape = (len(validation.image_ids), validation.logits.shape[1])
    arrays = (validation.soft_labels, validation.is_asked, validation.logits)
    if any(array.shape != shape for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"labels, asked and logits must be of shape {shape}, got {shapes}")
    vectors = {
        name: vectors_column(array, kind)
        for (name, kind), array in zip(_VECTORS.items(), arrays, strict=True)
    }
    schema = validation_schema(shape[1])
    columns = {"image_id": list(validation.image_ids), "group": list(validation.groups), **vectors}
    facts = {name: json.dumps(getattr(validation, name)) for name in _FACTS}
    notes = {f"{_PREFIX}{name}": text for name, text in {"format": _FORMAT, **facts}.items()}
    content = pa.BufferOutputStream()
    table = pa.table(columns, schema=schema.with_metadata(notes))
    pq.write_table(table, content, **encoding_of(schema))
    write_bytes(member / VALIDATION_FILE, content.getvalue())


def read_validation(member: str | Path) -> ValidationLogits:
    """Read the file of a member's bundle.

    Raises:
        DataError: If there is none, or it is damaged or of another form.
    """
    source = join(member, VALIDATION_FILE)
    try:
        table = pq.read_table(pa.BufferReader(read_bytes(source)))
    except FileNotFoundError as error:
        raise DataError(
            f"member {member} has no {VALIDATION_FILE}: it was imported, trained without images "
            "that are held back, or by an earlier version; train it again to select it"
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{source}: cannot be read: {short_reason(error)}") from error
    facts = _facts_of(table, source)
    table = _checked(table, source)
    return ValidationLogits(
        image_ids=table["image_id"].to_pylist(),
        groups=table["group"].to_pylist(),
        soft_labels=labels_matrix(table, "soft_label"),
        is_asked=labels_matrix(table, "is_asked"),
        logits=labels_matrix(table, "logits"),
        **facts,
    )


def _facts_of(table: pa.Table, source: str) -> dict[str, Any]:
    notes = {key.decode(): text.decode() for key, text in (table.schema.metadata or {}).items()}
    if notes.get(f"{_PREFIX}format") != _FORMAT:
        raise DataError(f"{source}: is not of format {_FORMAT!r}")
    try:
        return {name: json.loads(notes[f"{_PREFIX}{name}"]) for name in _FACTS}
    except (KeyError, ValueError) as error:
        raise DataError(f"{source}: its metadata lacks {error}") from error


def _checked(table: pa.Table, source: str) -> pa.Table:
    """The columns of the schema, their types and values as they must be."""
    if "group" not in table.column_names:
        table = table.append_column("group", pa.nulls(len(table), pa.string()))
    missing = {"image_id", *_VECTORS} - set(table.column_names)
    if missing:
        has = ", ".join(table.column_names)
        raise DataError(f"{source}: no column `{min(missing)}`, has {has}")
    logits = table.schema.field("logits").type
    if not pa.types.is_fixed_size_list(logits):
        raise DataError(f"{source}: column `logits` must be of vectors of one size, got {logits}")
    columns = {}
    for field in validation_schema(logits.list_size):
        try:
            column = columns[field.name] = table[field.name].cast(field.type)
        except pa.ArrowException as error:
            got = table.schema.field(field.name).type
            raise DataError(
                f"{source}: column `{field.name}` must be {field.type}, got {got}"
            ) from error
        if field.name != "group" and any(_has_nulls(chunk) for chunk in column.chunks):
            raise DataError(f"{source}: column `{field.name}` has nulls")
    if len(set(table["image_id"].to_pylist())) != len(table) or not len(table):
        raise DataError(f"{source}: must have images, each once")
    return pa.table(columns)


def _has_nulls(chunk: pa.Array) -> bool:
    is_vector = pa.types.is_fixed_size_list(chunk.type)
    return bool(chunk.null_count or (is_vector and chunk.flatten().null_count))
