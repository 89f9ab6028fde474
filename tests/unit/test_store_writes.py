"""Writes that fail: tried again while that may help, then a clear error and nothing half-written."""

import errno
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs as pafs

from dsdi_ray.errors import StoreError
from dsdi_ray.storage.retries import Retries
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.store_compact import compact_store
from dsdi_ray.storage.store_files import StoreFiles
from dsdi_ray.taxonomy import taxonomy_from_dict

TWO = taxonomy_from_dict({"name": "two", "classes": ["flood", "fire"]})
FAST = Retries(max_attempts=4, first_pause_seconds=0.001, max_pause_seconds=0.002)
ROWS = pa.table({"a": list(range(1000))})


class Unreliable(pafs.FileSystemHandler):
    """A file system of which the first writes fail; everything else is the local one's."""

    def __init__(self, num_failures: int, error: OSError, type_name: str = "unreliable") -> None:
        self.local = pafs.LocalFileSystem()
        self.num_failures = num_failures
        self.error = error
        self.type_name = type_name
        self.written: list[str] = []
        self.moved: list[str] = []

    def get_type_name(self):
        return self.type_name

    def open_output_stream(self, path, metadata):
        self.written.append(path)
        if len(self.written) <= self.num_failures:
            raise self.error
        if "s3" in self.type_name:  # objects need no folder
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        return self.local.open_output_stream(path)

    def move(self, src, dest):
        self.moved.append(dest)
        self.local.move(src, dest)

    def get_file_info(self, paths):
        return self.local.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self.local.get_file_info(selector)

    def create_dir(self, path, recursive):
        assert "s3" not in self.type_name, "an object store is asked for no folder"
        self.local.create_dir(path, recursive=recursive)

    def delete_file(self, path):
        self.local.delete_file(path)

    def open_input_stream(self, path):
        return self.local.open_input_stream(path)

    def open_input_file(self, path):
        return self.local.open_input_file(path)

    def normalize_path(self, path):
        return path

    def _unused(self, *_args):
        raise NotImplementedError

    copy_file = delete_dir = delete_dir_contents = delete_root_dir_contents = _unused
    open_append_stream = _unused


def files_on(handler: Unreliable, root: Path) -> StoreFiles:
    return StoreFiles(pafs.PyFileSystem(handler), str(root), FAST)


def read_back(files: StoreFiles, folder: str) -> pa.Table:
    (part,) = files.parts(folder)
    return pq.read_table(part.path)


@pytest.mark.parametrize(
    "error",
    [OSError(5, "Input/output error"), OSError("AWS Error SLOW_DOWN (HTTP status 503)")],
    ids=["eio", "503"],
)
def test_a_write_that_fails_for_a_while_is_tried_again(tmp_path: Path, error: OSError) -> None:
    handler = Unreliable(3, error)
    files = files_on(handler, tmp_path)
    files.write_part("x", ROWS)
    assert len(handler.written) == 4
    assert read_back(files, "x") == ROWS


def test_a_write_that_never_succeeds_says_what_why_and_what_next(tmp_path: Path) -> None:
    handler = Unreliable(99, OSError(28, "No space left on device"))
    files = files_on(handler, tmp_path)
    with pytest.raises(
        StoreError, match=r"x/part-.* cannot be written: .*No space left.*attempts: 4.*same command"
    ):
        files.write_part("x", ROWS)
    assert len(handler.written) == 4
    assert files.parts("x") == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_waiting_does_not_mend_is_not_tried_again(tmp_path: Path, number: int) -> None:
    handler = Unreliable(99, OSError(number, os.strerror(number)))
    with pytest.raises(StoreError, match=os.strerror(number)):
        files_on(handler, tmp_path).write_part("x", ROWS)
    assert len(handler.written) == 1


def test_a_file_in_place_of_the_store_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="file/s/store.json cannot be written"):
        ScoreStore.open_or_create(str(tmp_path / "file/s"), TWO)


def test_object_stores_are_written_to_under_the_final_name(tmp_path: Path) -> None:
    handler = Unreliable(1, OSError("timeout"), type_name="s3")
    files = files_on(handler, tmp_path)
    files.write_part("x", ROWS)
    assert handler.moved == []
    assert len(set(handler.written)) == 1, "tried again under the same name"
    assert read_back(files, "x") == ROWS


def test_other_file_systems_are_written_to_under_a_temporary_name(tmp_path: Path) -> None:
    handler = Unreliable(0, OSError("none"))
    files = files_on(handler, tmp_path)
    files.write_part("x", ROWS)
    assert "/_writing-part-" in handler.written[0]
    assert handler.moved == [files.parts("x")[0].path]


def test_a_store_on_an_unreliable_file_system_is_written_and_compacted(tmp_path: Path) -> None:
    store = ScoreStore.open_or_create(str(tmp_path), TWO)
    handler = Unreliable(2, OSError(5, "Input/output error"), type_name="fsspec+s3")
    store.__dict__["files"] = files_on(handler, tmp_path)
    for clip_id in "ab":
        now = datetime(2026, 1, 1, tzinfo=UTC)
        row = {"clip_id": clip_id, "content_id": clip_id, "span": "all", "member_ids": []}
        store.write_outcomes([{**row, "decode_id": "d", "status": "ok", "finished_at": now}])
    handler.num_failures = len(handler.written) + 1  # of the compaction, the first
    compact_store(store)
    assert len(store.files.parts("outcomes")) == 1
    assert store.latest_outcomes()["clip_id"].to_pylist() == ["a", "b"]


FULL = """
import resource, sys
import numpy as np, pyarrow as pa
from pyarrow import fs
from dsdi_ray.errors import StoreError
from dsdi_ray.storage.retries import Retries
from dsdi_ray.storage.store_files import StoreFiles

retries = Retries(max_attempts=2, first_pause_seconds=0.001)
files = StoreFiles(fs.LocalFileSystem(), sys.argv[1], retries)
rows = pa.table({"a": np.random.default_rng(0).random(100_000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    files.write_part("x", rows)
except StoreError as error:
    assert "cannot be written" in str(error), error
    assert not files.parts("x") and not files.temporaries()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    files.write_part("x", rows)
    assert len(files.parts("x")) == 1
    print("refused, then written")
"""


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY,
    reason="files are limited here already",
)
def test_a_disk_that_takes_no_more_leaves_nothing_half_written(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "refused, then written\n", done.stderr
