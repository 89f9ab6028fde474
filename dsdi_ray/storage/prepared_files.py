"""Write a prepared set: its images part by part, then the rest, then the whole to its place.

Until then the parts are in a hidden folder beside it that is named after what the set is made of.
Each is marked by a file of outcomes, so that a preparation that was cut off goes on after them.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dsdi_ray.errors import DataError
from dsdi_ray.storage.prepared import (
    FORMAT,
    IMAGE_FILES,
    IMAGES_SCHEMA,
    LABELS_FILE,
    REPORT_FILE,
    SPEC_FILE,
    VERSION,
    PreparedSet,
    labels_matrix,
)
from dsdi_ray.storage.unfinished import unfinished_beside
from dsdi_ray.taxonomy import Taxonomy

STORED, MISSING, UNREADABLE, UNFETCHED = "stored", "missing", "unreadable", "unfetched"
DUPLICATE = "duplicate"  # of an image that the set has already
OUTCOME_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("status", pa.string()),  # one of the above
        ("reason", pa.string()),  # why it is not stored
        ("jpeg_sha256", pa.string()),
        ("source_sha1", pa.string()),
        ("capture_time", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
    ]
)
_ID_CHARACTERS = 12
_OUTCOME_FILES = "outcomes-*.parquet"


@dataclass(frozen=True)
class PartialSet:
    """Parts of a set that is being made.

    Attributes:
        folder: Where they are.
    """

    folder: Path

    @classmethod
    def of(cls, out: Path, inputs_id: str) -> "PartialSet":
        """The parts of a set that goes to ``out`` and is made of those inputs, if any."""
        return cls(out.with_name(f".{out.name}.{inputs_id[:_ID_CHARACTERS]}.partial"))

    def begin(self, out: Path) -> None:
        """Make the folder; parts of other sets that were to go to the same place are removed."""
        for other in unfinished_beside(out, num_id_characters=_ID_CHARACTERS, suffix="partial"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Remove all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def outcomes(self) -> pa.Table:
        """Outcomes of the parts that are complete, in the order of the rows."""
        files = sorted(self.folder.glob(_OUTCOME_FILES))
        parts = [pq.read_table(file, partitioning=None) for file in files]
        return pa.concat_tables([OUTCOME_SCHEMA.empty_table(), *parts])

    def write_part(
        self, first_row: int, images: Sequence[Mapping[str, Any]], outcomes: pa.Table
    ) -> None:
        """Write a part: its images, then the outcomes that mark it as complete.

        Writing it again changes nothing, even at the same time.
        """
        if images:
            write_images(images, self.folder / f"images-{first_row:08d}.parquet")
        _write_table(outcomes, self.folder / f"outcomes-{first_row:08d}.parquet")

    def take_images(self, prepared: PreparedSet) -> None:
        """Take over the images of another set: the same files, or copies on another disk."""
        for file in sorted(prepared.path.glob(IMAGE_FILES)):
            target = self.folder / file.name
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(file)
            except OSError:
                shutil.copyfile(file, target)

    def publish(
        self, out: Path, *, labels: pa.Table, spec: Mapping[str, Any], report: Mapping[str, Any]
    ) -> PreparedSet:
        """Complete the set and move it to its place, see :func:`publish_set`."""
        prepared = publish_set(self.folder, out, labels=labels, spec=spec, report=report)
        for file in [*out.glob(_OUTCOME_FILES), *out.glob(".*.tmp")]:
            file.unlink()
        return prepared


def write_images(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write an image file of :data:`~dsdi_ray.storage.prepared.IMAGES_SCHEMA`; other keys are left."""
    _write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=IMAGES_SCHEMA), file)


def content_hash(jpeg_sha256: Sequence[str], labels: pa.Table, taxonomy: Taxonomy) -> str:
    """Hash of what a network learns from; see :attr:`PreparedSet.prepared_id`.

    Args:
        jpeg_sha256: Hashes of the stored bytes, ``[N]``.
        labels: Of the same images, see :func:`~dsdi_ray.storage.prepared.labels_schema`.
        taxonomy: Of the labels.
    """
    digest = hashlib.sha256(taxonomy.taxonomy_id.encode())
    digest.update(json.dumps(list(jpeg_sha256)).encode())
    for column in ("soft_label", "answer_counts", "num_asked"):
        digest.update(labels_matrix(labels, column).tobytes())
    for column in ("image_id", "split", "group"):
        digest.update(json.dumps(labels[column].to_pylist()).encode())
    return digest.hexdigest()[:24]


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
    parts = {
        file.name for files in (IMAGE_FILES, _OUTCOME_FILES, ".*.tmp") for file in out.glob(files)
    }
    strangers = names - {SPEC_FILE, REPORT_FILE, LABELS_FILE} - parts
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
    folder: Path,
    out: Path,
    *,
    labels: pa.Table,
    spec: Mapping[str, Any],
    report: Mapping[str, Any],
) -> PreparedSet:
    """Complete a set that was written to a temporary folder and move it to its place.

    Args:
        folder: Holds the image files.
        out: Where the set goes; a set that is there is replaced.
        labels: See :func:`~dsdi_ray.storage.prepared.labels_schema`.
        spec: Every field of :class:`PreparedSet` but the path, the taxonomy as a mapping.
        report: The content of ``report.json``.
    """
    _write_table(labels, folder / LABELS_FILE)
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    described = {"format": FORMAT, "version": VERSION, **spec}
    text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=100)
    (folder / SPEC_FILE).write_text(text, "utf-8")
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return PreparedSet.open(out)


def _write_table(table: pa.Table, file: Path) -> None:
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.rename(file)
