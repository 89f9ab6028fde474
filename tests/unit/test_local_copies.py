"""Copies of remote files: fetched once, checked, bounded, cleaned up after whoever was killed."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from file_servers import file_server

from dsdi_ray.errors import ConfigError, FetchError
from dsdi_ray.storage import scratch as scratch_module
from dsdi_ray.storage.content_ids import content_id, remote_content_id
from dsdi_ray.storage.filesystems import open_remote
from dsdi_ray.storage.local_copies import LocalCopies, cached_file, fetch, open_for_fetching
from dsdi_ray.storage.scratch import Scratch

CONTENT = os.urandom(300_000)
MIB = 2**20


@pytest.fixture(autouse=True)
def scratch_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DSDI_SCRATCH_DIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("DSDI_MAX_ATTEMPTS", "1")
    return tmp_path / "scratch"


@pytest.fixture
def web(tmp_path):
    (tmp_path / "web").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "web" / name).write_bytes(name.encode() + CONTENT)
    return tmp_path / "web"


@pytest.fixture
def small_disk(scratch_folder, monkeypatch):
    """A disk with room for 5 MiB of scratch beside what stays free."""

    def usage(_):
        taken = sum(p.stat().st_blocks * 512 for p in scratch_folder.rglob("*") if p.is_file())
        return SimpleNamespace(free=2**30 + 5 * MIB - taken)

    monkeypatch.setattr(
        scratch_module, "shutil", SimpleNamespace(disk_usage=usage, rmtree=shutil.rmtree)
    )


def files_in(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


def identity(uri: str) -> str:
    found = remote_content_id(open_remote(uri))
    assert found is not None
    return found


class TestLocalCopies:
    def test_a_local_file_is_its_own_copy(self, web, scratch_folder):
        path = web / "a.mp4"
        assert LocalCopies().get(str(path), content_id=content_id(path)) == path
        assert not scratch_folder.exists()

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_what_is_no_regular_file_is_not_opened(self, tmp_path, make):
        make(tmp_path / "a.mp4")
        with pytest.raises(FetchError, match="^not a regular file$"):
            LocalCopies().get(str(tmp_path / "a.mp4"), content_id="1-ab")

    def test_a_file_asked_for_again_is_fetched_once_and_makes_room_for_the_next(
        self, web, scratch_folder
    ):
        copies = LocalCopies()
        with file_server(web) as server:
            a, b = f"{server.url}/a.mp4", f"{server.url}/b.mp4"
            for _ in range(3):
                path = copies.get(a, content_id=identity(a))
                assert path.read_bytes() == (web / "a.mp4").read_bytes()
            whole = [h for *_, h in server.requests if h["Range"] != "bytes=0-0"]
            assert len(whole) == 1
            path = copies.get(b, content_id=identity(b))
            assert files_in(scratch_folder) == [path]
            assert path.suffix == ".mp4"

    @pytest.mark.parametrize("is_far", [True, False])
    def test_a_file_that_changed_says_so(self, web, is_far):
        copies = LocalCopies()
        with file_server(web) as server:
            uri = f"{server.url}/a.mp4" if is_far else str(web / "a.mp4")
            known = identity(uri) if is_far else content_id(web / "a.mp4")
            copies.get(uri, content_id=known)
            (web / "a.mp4").write_bytes(b"another film")
            with pytest.raises(FetchError, match="changed since it was indexed.*index again"):
                copies.get(uri, content_id=known)

    def test_without_etags_a_file_is_known_by_its_ends(self, web):
        with file_server(web, has_etags=False) as server:
            uri = f"{server.url}/a.mp4"
            LocalCopies().get(uri, content_id=content_id(web / "a.mp4"))
            with pytest.raises(FetchError, match="changed since it was indexed"):
                LocalCopies().get(uri, content_id="7-of-something-else")

    def test_what_is_gone_is_a_reason(self, web, tmp_path):
        with file_server(web) as server, pytest.raises(FetchError, match="HTTP status 404"):
            LocalCopies().get(f"{server.url}/gone.mp4", content_id="1-x")
        with pytest.raises(FetchError, match="No such file"):
            LocalCopies().get(str(tmp_path / "gone.mp4"), content_id="1-x")

    def test_a_file_that_changes_while_it_is_fetched_is_not_taken(self, web):
        with file_server(web) as server, Scratch() as scratch:
            file = open_for_fetching(f"{server.url}/a.mp4")
            (web / "a.mp4").write_bytes(b"b" + (web / "a.mp4").read_bytes()[1:])
            with pytest.raises(FetchError, match="changed meanwhile"):
                fetch(f"{server.url}/a.mp4", file, scratch)
            assert files_in(scratch.folder) == []

    def test_the_ends_are_copied_with_a_hole_between_them(self, web):
        with file_server(web) as server, Scratch() as scratch:
            uri = f"{server.url}/a.mp4"
            copy = fetch(uri, open_for_fetching(uri), scratch, edge_bytes=1000)
            got, whole = copy.path.read_bytes(), (web / "a.mp4").read_bytes()
            assert not copy.is_whole
            assert (len(got), got[:1000], got[-1000:]) == (len(whole), whole[:1000], whole[-1000:])
            assert not any(got[1000:-1000])

    def test_servers_without_parts_give_the_whole(self, web):
        with file_server(web, has_ranges=False) as server, Scratch() as scratch:
            uri = f"{server.url}/a.mp4"
            assert fetch(uri, open_for_fetching(uri), scratch, edge_bytes=1000).is_whole


class TestScratch:
    def test_more_than_its_limit_is_refused(self, monkeypatch):
        monkeypatch.setenv("DSDI_SCRATCH_GIB", "1e-6")
        with Scratch() as scratch, pytest.raises(FetchError, match="set DSDI_SCRATCH_GIB"):
            scratch.new_file(".mp4", [(0, 2000)])

    def test_more_than_the_disk_has_is_refused(self, monkeypatch):
        monkeypatch.setenv("DSDI_SCRATCH_GIB", "1e9")
        with Scratch() as scratch, pytest.raises(FetchError, match="set DSDI_SCRATCH_DIR"):
            scratch.new_file(".mp4", [(0, 2**58)])

    def test_room_is_taken_before_anything_is_written(self):
        with Scratch() as scratch:
            whole = scratch.new_file(".mp4", [(0, 2 * MIB)])
            ends = scratch.new_file(".mp4", [(0, MIB), (64 * MIB, 65 * MIB)])
            for path in (whole, ends):
                assert 2 * MIB <= path.stat().st_blocks * 512 < 3 * MIB

    def test_no_more_is_promised_than_there_is_however_many_ask(self, small_disk, monkeypatch):
        monkeypatch.setattr(scratch_module, "_MAX_WAIT_SECONDS", 0.2)
        with ExitStack() as stack:
            scratches = [stack.enter_context(Scratch()) for _ in range(8)]

            def take(scratch):
                with suppress(FetchError):
                    return scratch.new_file(".mp4", [(0, 2 * MIB)])

            with ThreadPoolExecutor(8) as threads:
                given = [path for path in threads.map(take, scratches) if path]
            assert len(given) == 2

    def test_who_finds_no_room_waits_for_another_to_be_done(self, small_disk):
        with Scratch() as scratch, ThreadPoolExecutor(1) as thread:
            with Scratch() as other:
                other.new_file(".mp4", [(0, 4 * MIB)])
                waiting = thread.submit(scratch.new_file, ".mp4", [(0, 3 * MIB)])
                with pytest.raises(TimeoutError):
                    waiting.result(timeout=0.3)
            assert waiting.result(timeout=30).stat().st_size == 3 * MIB

    def test_what_no_waiting_can_make_room_for_is_refused_at_once(self, small_disk):
        with Scratch() as scratch, Scratch() as other:
            other.new_file(".mp4", [(0, 4 * MIB)])
            with pytest.raises(FetchError, match="set DSDI_SCRATCH_DIR"):
                scratch.new_file(".mp4", [(0, 6 * MIB)])

    def test_a_file_system_that_cannot_set_room_aside_does_without(
        self, web, small_disk, monkeypatch
    ):
        def refuse(*_):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(os, "posix_fallocate", refuse)
        with file_server(web) as server, Scratch() as scratch:
            uri = f"{server.url}/a.mp4"
            copy = fetch(uri, open_for_fetching(uri), scratch)
            assert copy.path.read_bytes() == (web / "a.mp4").read_bytes()
            with pytest.raises(FetchError, match="no room"):
                scratch.new_file(".mp4", [(0, 6 * MIB)])

    @pytest.mark.parametrize("text", ["much", "0", "-1", "inf"])
    def test_a_limit_that_is_none_is_named(self, monkeypatch, text):
        monkeypatch.setenv("DSDI_SCRATCH_GIB", text)
        with pytest.raises(ConfigError, match=f"DSDI_SCRATCH_GIB must be .* got '{text}'"):
            Scratch()

    def test_a_folder_that_was_tidied_away_is_made_again(self):
        with Scratch() as scratch:
            scratch.folder.rmdir()
            path = scratch.new_file("", [(0, 1)])
            path.write_bytes(b"x")
            assert path.parent == scratch.folder
            assert path.read_bytes() == b"x"

    def test_a_place_that_cannot_be_written_is_named(self, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setenv("DSDI_SCRATCH_DIR", str(tmp_path / "file" / "x"))
        with pytest.raises(FetchError, match="no scratch at .*set DSDI_SCRATCH_DIR"):
            Scratch()

    def test_it_goes_with_its_process_or_when_closed(self, scratch_folder):
        with Scratch() as scratch:
            scratch.new_file("", [(0, 1)]).write_bytes(b"x")
        code = "from dsdi_ray.storage.scratch import Scratch; s = Scratch()"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert [p.name for p in scratch_folder.iterdir()] == ["root.lock"]

    def test_the_next_one_removes_that_of_a_killed_process_and_no_others(self, scratch_folder):
        code = (
            "from dsdi_ray.storage.scratch import Scratch\n"
            "s = Scratch(); s.new_file('', [(0, 1)]).write_bytes(b'x'); print(s.folder)\n"
            "input()"
        )
        pipe = subprocess.PIPE
        started = [
            subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)
            for _ in range(2)
        ]
        killed = started[0]
        folders = [Path(p.stdout.readline().strip()) for p in started]
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert all(files_in(folder) for folder in folders)
        with Scratch() as scratch:
            assert not folders[0].exists()
            assert files_in(folders[1])
            assert scratch.folder.is_dir()
        for process in started:
            process.communicate()


def test_a_cached_file_is_fetched_once_by_whoever_is_first(web, scratch_folder):
    with file_server(web) as server:
        uri = f"{server.url}/a.mp4"
        first = cached_file(uri, key="../../abc")
        num_requests = len(server.requests)
        assert cached_file(uri, key="../../abc") == first
        assert len(server.requests) == num_requests
        assert first.is_relative_to(scratch_folder)
        assert first.read_bytes() == (web / "a.mp4").read_bytes()
