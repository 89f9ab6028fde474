"""Files of a store: written so that no crash tears one, listed so that merges may run meanwhile.

A part is written once and never changed. On file systems it is written under a temporary name,
forced to the disk and renamed; on object stores, where a rename is a copy and a PUT is all or
nothing, it is written under its own name. A merge writes parts that hold what others hold too, and
only then deletes those: a row may be in two parts for a while, and counts once.
"""

import io
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from dsdi_ray.errors import StoreError

PART = "part-"
MERGED = "part-merged-"  # sorted, each row once
TEMPORARY = "_writing-"  # readers of Parquet pass over names with a leading _
ROWS_PER_GROUP = 32_768  # a group is what a reader of one clip reads: 5 MB of 37 logits

_OBJECT_STORES = {"s3", "s3a", "gcs", "gs", "abfs", "abfss", "az", "adl"}
_LASTING = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_MAX_LISTINGS = 10
_SECONDS_BETWEEN_LISTINGS = 0.1

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a write that fails is tried again, after pauses that double.

    Attributes:
        max_attempts: Attempts in all.
        first_pause_seconds: Pause after the first one; half of each pause is chance.
        max_pause_seconds: No pause is longer.
    """

    max_attempts: int = 8
    first_pause_seconds: float = 1.0
    max_pause_seconds: float = 30.0

    def call(self, write: Callable[[], T], *, what: str) -> T:
        """Call until it succeeds.

        Raises:
            StoreError: If it failed too often, or for a reason that waiting does not mend.
        """
        for attempt in range(1, self.max_attempts + 1):
            try:
                return write()
            except OSError as error:
                if attempt == self.max_attempts or isinstance(error, _LASTING):
                    raise StoreError(
                        f"{what} cannot be written: {error} (attempts: {attempt}); what was "
                        "written before stays, and the same command goes on from there"
                    ) from error
            pause = min(self.max_pause_seconds, self.first_pause_seconds * 2 ** (attempt - 1))
            time.sleep(pause * random.uniform(0.5, 1.0))
        raise AssertionError("max_attempts must be at least 1")


@dataclass(frozen=True)
class StoreFiles:
    """The files below a root of a file system; folders are relative to the root."""

    filesystem: pafs.FileSystem
    root: str
    retries: Retries

    def parts(self, folder: str) -> list[pafs.FileInfo]:
        """The parts of a folder, ordered by name; none where there is no folder.

        A listing takes a while, and a merge may end within it: its sources gone, its result not
        seen. So it counts only if the next one shows no merged part that it lacks.

        Raises:
            StoreError: If merges never cease.
        """
        listed = self._list(folder)
        for _ in range(_MAX_LISTINGS):
            again = self._list(folder)
            if not any(f"/{MERGED}" in path for path in again.keys() - listed.keys()):
                return [listed[path] for path in sorted(listed) if f"/{PART}" in path]
            listed = again
        raise StoreError(f"{self.root}/{folder}: changes faster than it can be listed; try again")

    def temporaries(self) -> list[pafs.FileInfo]:
        """What writes that were cut off left behind, and what is being written."""
        selector = pafs.FileSelector(self.root, recursive=True)
        found = self.filesystem.get_file_info(selector)
        return [info for info in found if info.base_name.startswith(TEMPORARY)]

    def subfolders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, ordered."""
        selector = pafs.FileSelector(f"{self.root}/{folder}", allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.Directory)

    def write_part(self, folder: str, rows: pa.Table, *, is_merged: bool = False) -> str:
        """Write a part; it is there whole or not at all.

        Returns:
            Its path.

        Raises:
            StoreError: If it cannot be written.
        """
        prefix = MERGED if is_merged else PART
        path = f"{self.root}/{folder}/{prefix}{uuid.uuid4().hex}.parquet"
        self.retries.call(lambda: self._write(path, parquet_writer(rows)), what=path)
        return path

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a small file in the root, in place of the one that may be there.

        Raises:
            StoreError: If it cannot be written.
        """
        path = f"{self.root}/{name}"

        def write(file: io.IOBase) -> None:
            file.write(content)

        self.retries.call(lambda: self._write(path, write), what=path)

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files; those that are gone already are no error."""
        for path in paths:
            try:
                self.filesystem.delete_file(path)
            except FileNotFoundError:
                continue

    def _list(self, folder: str) -> dict[str, pafs.FileInfo]:
        selector = pafs.FileSelector(f"{self.root}/{folder}", allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return {info.path: info for info in infos if info.type == pafs.FileType.File}

    def _write(self, path: str, write: Callable[[io.IOBase], None]) -> None:
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/{TEMPORARY}{name}"
        self.filesystem.create_dir(folder, recursive=True)
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            _write_local(Path(temporary), write)
            Path(temporary).replace(path)
            _sync_folders(Path(folder), Path(self.root))
        elif _OBJECT_STORES.intersection(re.split(r"\W+", self.filesystem.type_name)):
            self._put(path, write)
        else:
            self._put(temporary, write)
            self.filesystem.move(temporary, path)

    def _put(self, path: str, write: Callable[[io.IOBase], None]) -> None:
        content = pa.BufferOutputStream()  # whole before the first byte is sent
        write(content)
        with self.filesystem.open_output_stream(path) as file:
            file.write(content.getvalue())


def parquet_writer(rows: pa.Table) -> Callable[[io.IOBase], None]:
    """A function that writes rows to a file as every part is written."""

    def write(file: io.IOBase) -> None:
        pq.write_table(rows, file, compression="zstd", row_group_size=ROWS_PER_GROUP)

    return write


def reading(read: Callable[[], T], *, what: str) -> T:
    """Read files that were listed; once more from the listing on where a merge took one away.

    Raises:
        StoreError: If files vanish every time.
    """
    for _ in range(_MAX_LISTINGS):
        try:
            return read()
        except FileNotFoundError as error:
            vanished = error
        time.sleep(_SECONDS_BETWEEN_LISTINGS)
    raise StoreError(f"{what}: files vanish as fast as they are listed: {vanished}") from vanished


def _write_local(path: Path, write: Callable[[io.IOBase], None]) -> None:
    try:
        with path.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)  # a full disk needs the room
        raise


def _sync_folders(folder: Path, root: Path) -> None:
    """Force the names of new files and folders to the disk, as far down as the root."""
    for place in [folder, *folder.parents]:
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if place == root:
            return
