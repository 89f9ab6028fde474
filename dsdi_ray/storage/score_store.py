"""The score store: frame-level logits and clip outcomes, in Parquet, append-only.

Layout::

    STORE/store.json                                        format version and taxonomy
    STORE/logits/decode_id=D/member_id=M/part-*.parquet     one row per frame
    STORE/outcomes/part-*.parquet                           one row per clip and attempt

A logits row is keyed by (content_id, span, decode_id, member_id, frame_index); a row that appears
twice counts once, so a write may be repeated. An outcome is written after all logits of its clip,
so it also marks them as complete: logits without an outcome are of a job that was cut off and are
never ranked. Files are written under a temporary name and renamed; nothing is changed in place.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs as pafs

from dsdi_ray.errors import DataError
from dsdi_ray.storage.filesystems import resolve
from dsdi_ray.taxonomy import Taxonomy, check_same_taxonomy, taxonomy_from_dict

FORMAT_VERSION = 1
WHOLE_FILE = "all"
_MARKER = "store.json"

Status = Literal["ok", "partial", "failed"]

OUTCOME_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("content_id", pa.string()),  # null where the file could not be read at all
        ("span", pa.string()),
        ("decode_id", pa.string()),
        ("member_ids", pa.list_(pa.string())),  # those that this attempt scored
        ("status", pa.string()),
        ("error", pa.string()),  # why it failed, or what a partial clip lacks
        ("note", pa.string()),  # why the second decoder was used, and the like
        ("decoder", pa.string()),
        ("frames_expected", pa.int32()),
        ("frames_scored", pa.int32()),
        ("attempts", pa.int32()),
        ("seconds", pa.float64()),  # of decoding, wall clock
        ("finished_at", pa.timestamp("us", tz="UTC")),
    ]
)


def span_key(start_seconds: float | None, end_seconds: float | None) -> str:
    """The part of a file that a clip is, as a stable key: ``all``, ``12.5-15``, ``12.5-end``."""
    if start_seconds is None and end_seconds is None:
        return WHOLE_FILE
    end = "end" if end_seconds is None else f"{end_seconds:.10g}"
    return f"{start_seconds or 0.0:.10g}-{end}"


def logits_schema(num_classes: int) -> pa.Schema:
    """Schema of a logits file; float32, since half precision would turn noise of 1e-6 into 1e-3."""
    return pa.schema(
        [
            ("content_id", pa.string()),
            ("span", pa.string()),
            ("frame_index", pa.int32()),  # k: the picture on screen at k / fps
            ("time_seconds", pa.float64()),  # k / fps, from the clip's start
            ("logits", pa.list_(pa.float32(), num_classes)),
        ]
    )


@dataclass(frozen=True)
class ScoreStore:
    """A score store at a path or URI; see the module's text. Safe to send to other processes."""

    uri: str
    taxonomy: Taxonomy

    @staticmethod
    def open(uri: str) -> "ScoreStore":
        """Open a store that exists.

        Raises:
            DataError: If there is none, or one of another format version.
        """
        filesystem, root = resolve(uri)
        try:
            with filesystem.open_input_stream(f"{root}/{_MARKER}") as file:
                marker = json.loads(file.read())
        except FileNotFoundError as error:
            raise DataError(f"no score store at {uri}: {_MARKER} is missing") from error
        except (OSError, ValueError) as error:
            raise DataError(f"score store {uri}: {_MARKER} cannot be read: {error}") from error
        if marker.get("format") != FORMAT_VERSION:
            raise DataError(
                f"score store {uri}: format {marker.get('format')!r}, this version reads "
                f"{FORMAT_VERSION}"
            )
        return ScoreStore(uri, taxonomy_from_dict(marker["taxonomy"], source=f"{uri}/{_MARKER}"))

    @staticmethod
    def open_or_create(uri: str, taxonomy: Taxonomy, *, write: bool = True) -> "ScoreStore":
        """Open a store, or begin one for a taxonomy; without ``write``, only in memory.

        Raises:
            TaxonomyError: If the store is of another taxonomy.
            DataError: If it cannot be read or written.
        """
        filesystem, root = resolve(uri)
        if filesystem.get_file_info(f"{root}/{_MARKER}").type != pafs.FileType.NotFound:
            store = ScoreStore.open(uri)
            check_same_taxonomy(store.taxonomy, taxonomy, what="the ensemble")
            return store
        if not write:
            return ScoreStore(uri, taxonomy)
        marker = {"format": FORMAT_VERSION, "taxonomy": taxonomy.to_dict()}
        try:
            filesystem.create_dir(root, recursive=True)
            with filesystem.open_output_stream(f"{root}/{_MARKER}") as file:
                file.write(json.dumps(marker, indent=1).encode())
        except OSError as error:
            raise DataError(f"score store {uri}: cannot be written: {error}") from error
        return ScoreStore(uri, taxonomy)

    @cached_property
    def _location(self) -> tuple[pafs.FileSystem, str]:
        return resolve(self.uri)

    def write_logits(self, decode_id: str, member_id: str, rows: pa.Table) -> None:
        """Append frame rows of one member (schema :func:`logits_schema`)."""
        self._append(f"logits/decode_id={decode_id}/member_id={member_id}", rows)

    def write_outcomes(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append outcomes (keys of :data:`OUTCOME_SCHEMA`); a clip's logits must be written."""
        if rows:
            self._append("outcomes", pa.Table.from_pylist(list(rows), schema=OUTCOME_SCHEMA))

    def outcomes(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All outcome rows, oldest attempts included."""
        filesystem, root = self._location
        folder = f"{root}/outcomes"
        if filesystem.get_file_info(folder).type == pafs.FileType.NotFound:
            table = OUTCOME_SCHEMA.empty_table()
            return table.select(list(columns)) if columns else table
        dataset = pads.dataset(
            folder, schema=OUTCOME_SCHEMA, format="parquet", filesystem=filesystem
        )
        return dataset.to_table(columns=list(columns) if columns else None)

    def latest_outcomes(self) -> pa.Table:
        """One row per clip, its newest, ordered by clip_id."""
        return newest_per_clip(self.outcomes())

    def logits_files(self, decode_id: str, member_ids: Iterable[str]) -> list[str]:
        """Files that hold the logits of these members, as paths of the store's file system."""
        filesystem, root = self._location
        paths: list[str] = []
        for member_id in member_ids:
            folder = f"{root}/logits/decode_id={decode_id}/member_id={member_id}"
            selector = pafs.FileSelector(folder, allow_not_found=True)
            found = (info.path for info in filesystem.get_file_info(selector))
            paths.extend(sorted(p for p in found if "/part-" in p))
        return paths

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The file system that :meth:`logits_files` speaks of."""
        return self._location[0]

    def _append(self, folder: str, table: pa.Table) -> None:
        filesystem, root = self._location
        name = f"{uuid.uuid4().hex}.parquet"
        final = f"{root}/{folder}/part-{name}"
        temporary = f"{root}/{folder}/_writing-{name}"  # readers pass over names with a leading _
        filesystem.create_dir(f"{root}/{folder}", recursive=True)
        pq.write_table(table, temporary, filesystem=filesystem, compression="zstd")
        filesystem.move(temporary, final)


def newest_per_clip(outcomes: pa.Table) -> pa.Table:
    """Keep the newest outcome of each clip, ordered by clip_id."""
    newest_first = outcomes.sort_by([("clip_id", "ascending"), ("finished_at", "descending")])
    ids = newest_first["clip_id"].combine_chunks()
    if len(ids) < 2:
        return newest_first
    is_first = pc.not_equal(ids[1:], ids[:-1])
    return newest_first.filter(pa.concat_arrays([pa.array([True]), is_first]))


def scored_pairs(outcomes: pa.Table, decode_id: str) -> pa.Table:
    """The (content_id, span, member_id) that are complete under these decode settings.

    A clip that failed gives no pair: see :func:`failed_contents`.
    """
    done = outcomes.filter(
        (pc.field("decode_id") == decode_id) & pc.field("status").isin(["ok", "partial"])
    )
    members = done["member_ids"].combine_chunks()
    repeats = pc.list_parent_indices(members)
    pairs = done.select(["content_id", "span"]).take(repeats)
    pairs = pairs.append_column("member_id", pc.list_flatten(members))
    return pairs.group_by(["content_id", "span", "member_id"]).aggregate([])


def failed_contents(outcomes: pa.Table, decode_id: str) -> pa.Table:
    """The (content_id, span) of which no frame decodes under these settings."""
    failed = outcomes.filter(
        (pc.field("decode_id") == decode_id)
        & (pc.field("status") == "failed")
        & pc.field("content_id").is_valid()
    )
    return failed.group_by(["content_id", "span"]).aggregate([])


def frame_rows(
    *,
    content_ids: Sequence[str],
    spans: Sequence[str],
    frame_indices: Sequence[NDArray[np.int32]],
    times_seconds: Sequence[NDArray[np.float64]],
    logits: Sequence[NDArray[np.float32]],
) -> pa.Table:
    """Lay out chunks of frames as rows of a logits file.

    Args:
        content_ids: Content per chunk.
        spans: Span per chunk.
        frame_indices: Per chunk, ``[T]``.
        times_seconds: Per chunk, ``[T]``.
        logits: Per chunk, ``[T, C]``.
    """
    lengths = [len(indices) for indices in frame_indices]
    flat = np.concatenate(logits).astype(np.float32, copy=False)
    schema = logits_schema(flat.shape[1])
    return pa.table(
        [
            pa.array(np.repeat(np.array(content_ids, dtype=object), lengths), pa.string()),
            pa.array(np.repeat(np.array(spans, dtype=object), lengths), pa.string()),
            pa.array(np.concatenate(frame_indices), pa.int32()),
            pa.array(np.concatenate(times_seconds), pa.float64()),
            pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1]),
        ],
        schema=schema,
    )
