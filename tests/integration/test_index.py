"""Indexing an archive on a real local Ray."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsdi_ray.distributed.index import index_archive, load_archive
from dsdi_ray.errors import DataError
from dsdi_ray.storage.manifest import MANIFEST_SCHEMA, read_manifest
from dsdi_ray.storage.parts import Windows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def write_video(path: Path, num_pictures: int = 20, **options: str) -> None:
    import av

    with av.open(str(path), "w", options=options) as container:
        container.metadata["creation_time"] = "2020-09-01T12:00:00Z"
        container.metadata["location"] = "+48.8583+002.2945/"
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(num_pictures):
            picture = np.full((48, 64, 3), i * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    write_video(folder / "flight one.mp4")
    Image.new("RGB", (80, 60)).save(folder / "still.jpg")
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("not media")
    return folder


def by_id(manifest) -> dict:
    return {row["clip_id"]: row for row in manifest.to_pylist()}


def test_every_file_is_a_row_and_the_unreadable_say_why(archive, tmp_path):
    out = tmp_path / "out/manifest.parquet"
    summary = index_archive([str(archive)], out=out)
    rows = by_id(read_manifest(out))
    assert sorted(rows) == ["empty", "flight_one", "still"]
    assert rows["empty"]["probe_error"] == "the file is empty (0 bytes)"
    video = rows["flight_one"]
    assert (video["media"], video["codec"], video["width"], video["height"]) == (
        "video",
        "h264",
        64,
        48,
    )
    assert video["duration_seconds"] == pytest.approx(2.0)
    assert video["source_fps"] == pytest.approx(10.0)
    assert (video["latitude"], video["longitude"]) == (48.8583, 2.2945)
    assert video["capture_time"].startswith("2020-09-01T12:00:00")
    assert video["rotation_degrees"] == 0
    assert (rows["still"]["media"], rows["still"]["width"]) == ("image", 80)
    assert (summary.num_clips, summary.num_unreadable, summary.manifest) == (3, 1, str(out))
    assert summary.hours == pytest.approx(2 / 3600)


def test_a_folder_is_loaded_as_its_manifest_would_be(archive, tmp_path):
    index_archive([str(archive)], out=tmp_path / "m.parquet")
    direct, written = load_archive(str(archive)), load_archive(str(tmp_path / "m.parquet"))
    assert direct.schema == MANIFEST_SCHEMA
    assert direct.equals(written)


def test_a_list_written_by_hand_is_probed_once_per_file_and_what_it_says_stays(archive, tmp_path):
    uri = archive / "flight one.mp4"
    (tmp_path / "parts.csv").write_text(
        f"clip_id,uri,start_seconds,end_seconds,latitude\n007,{uri},0,1,1.5\n008,{uri},1,2,\n"
    )
    rows = by_id(load_archive(str(tmp_path / "parts.csv")))
    assert sorted(rows) == ["007", "008"]
    assert rows["007"]["content_id"] == rows["008"]["content_id"] is not None
    assert (rows["007"]["latitude"], rows["008"]["latitude"]) == (1.5, 48.8583)
    assert rows["008"]["start_seconds"] == 1.0


def test_an_absent_file_of_a_list_is_a_row_with_a_reason(tmp_path):
    (tmp_path / "m.csv").write_text("uri\n/nowhere/a.mp4\n")
    (row,) = load_archive(str(tmp_path / "m.csv")).to_pylist()
    assert row["probe_error"] == "cannot be read: No such file or directory"


def test_videos_are_cut_into_windows_and_the_rest_stays_whole(archive, tmp_path):
    out = tmp_path / "m.parquet"
    windows = Windows(length_seconds=0.8, overlap_seconds=0.1)
    summary = index_archive([str(archive)], out=out, windows=windows)
    rows = by_id(read_manifest(out))
    parts = {i: (r["start_seconds"], r["end_seconds"]) for i, r in rows.items() if "@" in i}
    assert parts == {
        "flight_one@0-0.8": (0.0, 0.8),
        "flight_one@0.7-1.5": (0.7, 1.5),
        "flight_one@1.4-": (1.4, None),
    }
    assert {"empty", "still"} < rows.keys()
    assert rows["flight_one@1.4-"]["duration_seconds"] == pytest.approx(0.6)
    assert summary.hours == pytest.approx(2.2 / 3600)


def test_a_file_of_unknown_length_is_left_whole_and_counted(archive, tmp_path):
    write_video(archive / "stream.mkv", live="1")  # as it is sent on: without a length
    windows = Windows(length_seconds=1, overlap_seconds=0)
    summary = index_archive([str(archive)], out=tmp_path / "m.parquet", windows=windows)
    rows = by_id(read_manifest(tmp_path / "m.parquet"))
    assert (summary.num_unknown, summary.num_unreadable) == (1, 1)
    assert (rows["stream"]["duration_seconds"], rows["stream"]["probe_error"]) == (None, None)


def test_shots_that_end_after_their_file_are_counted_and_no_failure(archive, tmp_path):
    (tmp_path / "shots.csv").write_text(
        "file,start_seconds,end_seconds\n"
        "flight one,0,2.1\nflight one,1,2.2\nflight one,3,3.5\nflight one,1,\n"
    )
    shots = tmp_path / "shots.csv"
    summary = index_archive([str(archive)], out=tmp_path / "m.parquet", shots=shots)
    assert (summary.num_clips, summary.num_unreadable, summary.num_past_end) == (4, 0, 2)


def test_shots_of_a_list_are_the_clips(archive, tmp_path):
    (tmp_path / "shots.csv").write_text(
        "file,start_seconds,end_seconds,clip_id\n"
        "flight one.mp4,00:00:00,00:00:00.500,first\nflight one,1.5,,\n"
    )
    index_archive([str(archive)], out=tmp_path / "m.parquet", shots=tmp_path / "shots.csv")
    rows = by_id(read_manifest(tmp_path / "m.parquet"))
    assert sorted(rows) == ["first", "flight_one@1.5-"]
    assert rows["first"]["end_seconds"] == 0.5
    assert rows["first"]["content_id"] == rows["flight_one@1.5-"]["content_id"] is not None
    with (tmp_path / "shots.csv").open("a") as file:
        file.write("flight one,0,1,first\n")
    with pytest.raises(DataError, match="shot list .*: clip_id 'first' appears more than once"):
        index_archive([str(archive)], out=tmp_path / "m.parquet", shots=tmp_path / "shots.csv")


def test_a_folder_without_media_is_the_users_mistake(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no video or image in it"):
        index_archive([str(tmp_path / "empty")], out=tmp_path / "m.parquet")
    with pytest.raises(DataError, match=r"must end in \.parquet"):
        index_archive([str(tmp_path)], out=tmp_path / "m.csv")


def test_all_real_samples_are_indexed(shared_data, tmp_path):
    paths = [str(shared_data / "clips"), str(shared_data / "torture")]
    summary = index_archive(paths, out=tmp_path / "m.parquet")
    rows = read_manifest(tmp_path / "m.parquet").to_pylist()
    videos = [r for r in rows if "reference" not in r["uri"]]
    assert len(videos) == 107
    assert all(r["content_id"] for r in videos)
    assert len({r["clip_id"] for r in rows}) == len(rows)
    assert summary.num_unreadable == sum(r["probe_error"] is not None for r in rows)
