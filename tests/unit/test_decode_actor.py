"""The decode actor without Ray: what cannot be had is an outcome that another try may mend."""

import pyarrow as pa
import pytest
from file_servers import file_server
from footage import write_clip

from dsdi_ray.distributed.decode_actor import DecodeClips
from dsdi_ray.storage.content_ids import content_id, remote_content_id
from dsdi_ray.storage.filesystems import open_remote
from dsdi_ray.vision.decode import DecodeSettings


@pytest.fixture(autouse=True)
def few_attempts(tmp_path, monkeypatch):
    monkeypatch.setenv("DSDI_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("DSDI_SCRATCH_DIR", str(tmp_path / "scratch"))


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "web" / "a.mp4", seed=1, num_pictures=30)


def decode(*items: dict) -> list[dict]:
    whole = {"media": "video", "start_seconds": None, "end_seconds": None, "member_ids": ["m"]}
    actor = DecodeClips(DecodeSettings(), {"m": 32})
    tables = actor(pa.Table.from_pylist([{"work_id": 0, **whole, **item} for item in items]))
    return pa.concat_tables(tables).to_pylist()


def test_a_clip_that_is_the_one_that_was_indexed_is_decoded(clip):
    *chunks, last = decode({"uri": str(clip), "content_id": content_id(clip)})
    assert sum(len(chunk["frame_indices"]) for chunk in chunks) == 10
    assert (last["outcome"]["status"], last["outcome"]["is_transient"]) == ("ok", False)


def test_a_remote_clip_gives_the_frames_of_the_local_one(clip):
    near = decode({"uri": str(clip), "content_id": content_id(clip)})
    with file_server(clip.parent) as server:
        uri = f"{server.url}/a.mp4"
        far = decode({"uri": uri, "content_id": remote_content_id(open_remote(uri))})
    assert [row["frames"] for row in far] == [row["frames"] for row in near]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.mp4", "changed since it was indexed; index again"),
        ("gone.mp4", "cannot be read: No such file or directory"),
    ],
)
def test_another_file_or_none_fails_for_now_and_the_next_clip_is_decoded(clip, name, reason):
    first, *_, last = decode(
        {"uri": str(clip.with_name(name)), "content_id": "9-then"},
        {"uri": str(clip), "content_id": content_id(clip)},
    )
    assert first["outcome"]["error"].startswith(reason)
    assert (first["outcome"]["status"], first["outcome"]["is_transient"]) == ("failed", True)
    assert last["outcome"]["status"] == "ok"


def test_a_node_that_is_not_set_up_fails_the_clip_for_now_with_the_reason(clip, monkeypatch):
    with file_server(clip.parent) as server:
        uri = f"{server.url}/a.mp4"
        far = {"uri": uri, "content_id": remote_content_id(open_remote(uri))}
        monkeypatch.setenv("DSDI_SCRATCH_GIB", "lots")
        first, *_, last = decode(
            far,
            {"uri": str(clip), "content_id": content_id(clip)},
        )
    reason = "cannot be decoded: DSDI_SCRATCH_GIB must be a number above 0, got 'lots'"
    assert (first["outcome"]["error"], first["outcome"]["is_transient"]) == (reason, True)
    assert last["outcome"]["status"] == "ok"


def test_a_server_that_is_down_fails_for_now(clip):
    with file_server(clip.parent) as server:
        server.faults = {"a.mp4": [502]}
        (row,) = decode({"uri": f"{server.url}/a.mp4", "content_id": "9-then"})
    assert row["outcome"]["error"] == "cannot be fetched: HTTP status 502 (Bad Gateway)"
    assert row["outcome"]["is_transient"]
