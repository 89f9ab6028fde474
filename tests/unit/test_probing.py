"""Probing remote files by their ends, and by more where these do not do."""

import os

import pytest
from file_servers import file_server
from footage import write_clip

from dsdi_ray.distributed.probing import _probe_part

MIB = 2**20


@pytest.fixture(autouse=True)
def few_attempts(tmp_path, monkeypatch):
    monkeypatch.setenv("DSDI_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("DSDI_SCRATCH_DIR", str(tmp_path / "scratch"))


def free_box(num_bytes: int) -> bytes:
    """A part of an MP4 file that means nothing."""
    if not num_bytes:
        return b""
    return num_bytes.to_bytes(4, "big") + b"free" + os.urandom(num_bytes - 8)


def without_identity(facts: dict) -> dict:
    return {name: value for name, value in facts.items() if name != "content_id"}


def num_bytes_sent(server) -> int:
    spans = (headers["Range"].removeprefix("bytes=").split("-") for *_, headers in server.requests)
    return sum(int(last) + 1 - int(first) for first, last in spans)


@pytest.mark.parametrize(
    ("num_mib_before", "num_mib_behind", "num_mib_sent"),
    [
        (0, 6, 2),
        (3, 14, 2 + 16),  # the index is in neither the first nor the last MiB
        (10, 10, 2 + 16 + 20),  # nor in the 8 MiB at the ends
    ],
)
def test_a_large_files_facts_are_those_of_the_whole(
    tmp_path, num_mib_before, num_mib_behind, num_mib_sent
):
    clip = write_clip(tmp_path / "web" / "a.mp4", seed=1)
    content = clip.read_bytes()
    index = content.rindex(b"moov") - 4
    before, behind = (free_box(n * MIB) for n in (num_mib_before, num_mib_behind))
    clip.write_bytes(content[:index] + before + content[index:] + behind)
    with file_server(clip.parent) as server:
        near, far = _probe_part([(str(clip), "video"), (f"{server.url}/a.mp4", "video")])
    assert near["duration_seconds"] == pytest.approx(1.5)
    assert without_identity(far) == without_identity(near)
    assert far["content_id"].startswith(f"{clip.stat().st_size}-")
    assert num_bytes_sent(server) == pytest.approx(num_mib_sent * MIB, rel=0.02)
    assert not list((tmp_path / "scratch").rglob("*.mp4"))


def test_one_bad_file_of_many_is_a_reason_of_its_own(tmp_path):
    clip = write_clip(tmp_path / "web" / "a.mp4", seed=1)
    with file_server(clip.parent) as server:
        server.faults = {"denied": [403]}
        names = ["a.mp4", "denied.mp4", "gone.mp4"]
        uris = [*(f"{server.url}/{name}" for name in names), "s3://key:secret@bucket/a.mp4"]
        facts = _probe_part([(uri, "video") for uri in [*uris, str(tmp_path / "none.mp4")]])
    assert [f["probe_error"] and f["probe_error"][:60] for f in facts] == [
        None,
        "cannot be fetched: HTTP status 403 (Forbidden)",
        "cannot be fetched: no such file (HTTP status 404)",
        "cannot be fetched: s3://...@bucket/a.mp4: credentials do not",
        "cannot be read: No such file or directory",
    ]
