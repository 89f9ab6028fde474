"""The score store: frame-level logits and clip outcomes, in Parquet, append-only.

Layout::

    STORE/store.json                                        format version and taxonomy
    STORE/logits/decode_id=D/member_id=M/part-*.parquet     one row per frame
    STORE/outcomes/part-*.parquet                           one row per clip and attempt

A logits row is keyed by (content_id, span, decode_id, member_id, frame_index); a row that appears
twice counts once, so a write may be repeated. An outcome is written after all logits of its clip,
so it also marks them as complete: logits without an outcome are of a job that was cut off and are
never ranked. Nothing is changed in place; see :mod:`dsdi_ray.storage.store_files`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyarrow import fs as pafs

from dsdi_ray.errors import DataError
from dsdi_ray.storage.filesystems import resolve
from dsdi_ray.storage.retries import Retries
from dsdi_ray.storage.score_rows import OUTCOME_SCHEMA, content_keys
from dsdi_ray.storage.store_files import StoreFiles, reading
from dsdi_ray.taxonomy import Taxonomy, check_same_taxonomy, taxonomy_from_dict

FORMAT_VERSION = 1
OUTCOMES = "outcomes"
LOGITS = "logits"
_MARKER = "store.json"

Status = Literal["ok", "partial", "failed"]
T = TypeVar("T")


def logits_folder(decode_id: str, member_id: str) -> str:
    """Where a store keeps the logits of a member, from its root."""
    return f"{LOGITS}/decode_id={decode_id}/member_id={member_id}"


@dataclass(frozen=True)
class ScoreStore:
    """A score store at a path or URI; see the module's text. Safe to send to other processes."""

    uri: str
    taxonomy: Taxonomy
    retries: Retries = Retries()  # noqa: RUF009 - it is frozen

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
            DataError: If it cannot be read.
            StoreError: If it cannot be written.
        """
        filesystem, root = resolve(uri)
        if filesystem.get_file_info(f"{root}/{_MARKER}").type != pafs.FileType.NotFound:
            store = ScoreStore.open(uri)
            check_same_taxonomy(store.taxonomy, taxonomy, what="the ensemble")
            return store
        store = ScoreStore(uri, taxonomy)
        if write:
            marker = {"format": FORMAT_VERSION, "taxonomy": taxonomy.to_dict()}
            store.files.write_bytes(_MARKER, json.dumps(marker, indent=1).encode())
        return store

    @cached_property
    def files(self) -> StoreFiles:
        """The store's files."""
        return StoreFiles(*resolve(self.uri), self.retries)

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The file system that :meth:`logits_files` speaks of."""
        return self.files.filesystem

    def write_logits(self, decode_id: str, member_id: str, rows: pa.Table) -> None:
        """Append frame rows of one member, see :func:`~dsdi_ray.storage.score_rows.logits_schema`.

        Raises:
            StoreError: If they cannot be written.
        """
        self.files.write_part(logits_folder(decode_id, member_id), rows)

    def write_outcomes(self, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
        """Append outcomes (:data:`OUTCOME_SCHEMA`); a clip's logits must be written before.

        Raises:
            StoreError: If they cannot be written.
        """
        if not isinstance(rows, pa.Table):
            rows = pa.Table.from_pylist(list(rows), schema=OUTCOME_SCHEMA)
        if len(rows):
            self.files.write_part(OUTCOMES, rows)

    def read_outcomes(self, read: Callable[[pads.Dataset], T]) -> T:
        """Give the outcomes to a function, which is called again where a merge ran meanwhile.

        Raises:
            StoreError: If they are damaged or cannot be read.
        """

        def read_once() -> T:
            paths = [info.path for info in self.files.parts(OUTCOMES)]
            dataset = pads.FileSystemDataset.from_paths(
                paths,
                schema=OUTCOME_SCHEMA,
                format=pads.ParquetFileFormat(),
                filesystem=self.filesystem,
            )
            return read(dataset)

        return reading(read_once, what=f"{self.uri}/{OUTCOMES}")

    def outcomes(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All outcome rows, oldest attempts included."""
        names = list(columns or OUTCOME_SCHEMA.names)
        return self.read_outcomes(lambda dataset: dataset.to_table(columns=names))

    def latest_outcomes(self) -> pa.Table:
        """One row per clip, its newest with a frame if it has one, ordered by clip_id.

        What failed since, for other members or for now, is told in its note.
        """
        return latest_per_clip(self.outcomes())

    def logits_files(self, decode_id: str, member_ids: Iterable[str]) -> list[str]:
        """Files that hold the logits of these members, as paths of the store's file system."""
        folders = [logits_folder(decode_id, member_id) for member_id in member_ids]
        return [info.path for folder in folders for info in self.files.parts(folder)]


def newest_per_clip(outcomes: pa.Table) -> pa.Table:
    """Keep the newest outcome of each clip, ordered by clip_id."""
    return _newest(outcomes, outcomes["clip_id"])


def latest_per_clip(outcomes: pa.Table) -> pa.Table:
    """Keep the newest outcome of each clip that has a frame of its file as it is now, or the newest.

    Where others failed since, its note ends with the newest of their reasons.
    """
    newest = newest_per_clip(outcomes)
    failed = newest.filter(pc.field("status") == "failed")
    is_of_failed = pc.is_in(outcomes["clip_id"], value_set=failed["clip_id"].combine_chunks())
    scored = outcomes.filter(pc.and_(is_of_failed, pc.not_equal(outcomes["status"], "failed")))
    scored = _newest(scored, _attempt_keys(scored))
    place = pc.index_in(_attempt_keys(failed), value_set=_attempt_keys(scored))
    failed, place = failed.filter(place.is_valid()), place.drop_null()
    if not len(failed):
        return newest
    scored = scored.take(place)
    since = pc.binary_join_element_wise("a later attempt failed", failed["error"], ": ")
    note = pc.binary_join_element_wise(scored["note"], since, "; ", null_handling="skip")
    scored = scored.set_column(scored.schema.get_field_index("note"), "note", note)
    rest = newest.filter(~pc.field("clip_id").isin(scored["clip_id"].combine_chunks()))
    return pa.concat_tables([rest, scored]).sort_by("clip_id")


def _attempt_keys(outcomes: pa.Table) -> pa.ChunkedArray:
    """Clip, content and settings of each outcome as one string; null where the content is."""
    names = ("clip_id", "decode_id")
    return pc.binary_join_element_wise(
        content_keys(outcomes), *(outcomes[name] for name in names), "\n"
    )


def _newest(outcomes: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    """Keep the newest outcome of each key, ordered by key."""
    rows = pa.table({"key": keys, "finished_at": outcomes["finished_at"]})
    newest_first = pc.sort_indices(
        rows, sort_keys=[("key", "ascending"), ("finished_at", "descending")]
    )
    keys = keys.take(newest_first)
    if len(keys) < 2:
        return outcomes
    is_first = pc.not_equal(keys[1:], keys[:-1]).combine_chunks()
    return outcomes.take(newest_first.filter(pa.concat_arrays([pa.array([True]), is_first])))
