"""Files on real web servers: with parts and without, with ETags and without, when they fail."""

from io import BytesIO

import pytest
from file_servers import CUT, file_server

from dsdi_ray.storage.http_files import HttpFile

CONTENT = bytes(range(256)) * 9_000  # some blocks


@pytest.fixture(autouse=True)
def few_attempts(monkeypatch):
    monkeypatch.setenv("DSDI_MAX_ATTEMPTS", "2")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a b.mp4").write_bytes(CONTENT)
    (tmp_path / "empty.mp4").touch()
    return tmp_path


def read(file: HttpFile, *span: int) -> bytes:
    out = BytesIO()
    file.copy_to(out, *span)
    return out.getvalue()


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_file_is_read_whole_and_known_by_size_and_etag(folder, has_ranges):
    with file_server(folder, has_ranges=has_ranges) as server:
        file = HttpFile(f"{server.url}/a b.mp4")
        assert (file.size, file.has_ranges) == (len(CONTENT), has_ranges)
        assert file.version == HttpFile(f"{server.url}/a%20b.mp4?signature=x%2Fy").version
        assert file.version is not None
        assert read(file) == CONTENT


def test_parts_are_read_from_any_place(folder):
    with file_server(folder) as server:
        file = HttpFile(f"{server.url}/a b.mp4")
        assert read(file, 1000, 1_500_000) == CONTENT[1000:1_500_000]


@pytest.mark.parametrize("has_ranges", [True, False])
def test_an_empty_file_is_no_error(folder, has_ranges):
    with file_server(folder, has_ranges=has_ranges) as server:
        file = HttpFile(f"{server.url}/empty.mp4")
        assert file.size == 0
        assert read(file) == b""


def test_an_answer_that_breaks_off_goes_on_where_it_was(folder):
    with file_server(folder) as server:
        file = HttpFile(f"{server.url}/a b.mp4")
        server.faults = {"a b": [CUT, CUT, CUT, 0]}  # each brings it further, so none is too many
        assert read(file) == CONTENT
        starts = [int(h["Range"][6:].split("-")[0]) for *_, h in server.requests[1:]]
        assert starts == sorted(set(starts))


def test_without_parts_it_starts_again(folder):
    with file_server(folder, has_ranges=False) as server:
        file = HttpFile(f"{server.url}/a b.mp4")
        server.faults = {"a b": [CUT, 0]}
        assert read(file) == CONTENT
        server.faults = {"a b": [CUT, CUT]}
        with pytest.raises(OSError, match="bytes early"):
            read(file)


def test_a_server_that_fails_for_a_while_is_asked_again(folder):
    with file_server(folder) as server:
        server.faults = {"a b": [503, 0]}
        file = HttpFile(f"{server.url}/a b.mp4")
        server.faults = {"a b": [429, 0]}
        assert read(file) == CONTENT


def test_one_that_stays_down_is_an_error_with_its_status(folder):
    with file_server(folder) as server:
        server.faults = {"a b": [500]}
        with pytest.raises(OSError, match=r"HTTP status 500 \(Internal Server Error\)"):
            HttpFile(f"{server.url}/a b.mp4")
    with pytest.raises(OSError, match="refused"):
        HttpFile(f"{server.url}/a b.mp4")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_no_retry_helps_is_asked_for_once(folder, status):
    with file_server(folder) as server:
        server.faults = {"a b": [status]}
        with pytest.raises(OSError, match=f"HTTP status {status}"):
            HttpFile(f"{server.url}/a b.mp4")
        assert len(server.requests) == 1
