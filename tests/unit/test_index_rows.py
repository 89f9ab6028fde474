"""The rows that an index makes of files that were found and probed."""

from dsdi_ray.distributed import index
from dsdi_ray.storage.media_files import FoundFile
from dsdi_ray.storage.parts import Windows


def test_a_file_with_a_problem_is_not_opened_and_its_row_says_why(monkeypatch):
    monkeypatch.setattr(index, "probe_files", lambda files: [{"content_id": f[0]} for f in files])
    files = [
        FoundFile("/x/a.mp4", "a.mp4", "video"),
        FoundFile("file:///x/b%FF.mp4", r"b\xff.mp4", "video", problem="its name is not UTF-8"),
        FoundFile("/x/c.mp4", "c.mp4", "video"),
    ]
    assert index.probe_found(files) == [
        {"content_id": "/x/a.mp4"},
        {"content_id": None, "probe_error": "its name is not UTF-8"},
        {"content_id": "/x/c.mp4"},
    ]


def test_a_file_of_absurd_length_is_one_row_that_says_so():
    facts = {"content_id": "7-a", "duration_seconds": 1e15, "probe_error": None}
    file = FoundFile("/x/a.mp4", "a.mp4", "video")
    (row,) = index._clips_of("a", file, facts, Windows(length_seconds=60), None)
    assert (row["clip_id"], row["start_seconds"], row["end_seconds"]) == ("a", None, None)
    assert row["probe_error"].startswith("its length of 1e+15 s")
    assert row["duration_seconds"] is None
