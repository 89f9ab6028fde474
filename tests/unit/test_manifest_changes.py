import os

import pytest

from dsdi_ray.storage.filesystems import Listing
from dsdi_ray.storage.manifest import MANIFEST_SCHEMA, content_id, manifest_table
from dsdi_ray.storage.manifest_changes import clips_of_files, compare_manifests, files_to_probe
from dsdi_ray.storage.media_files import FoundFile, clip_ids


def manifest(**contents):
    return manifest_table(
        {"clip_id": clip_id, "uri": f"/a/{clip_id}.mp4", "content_id": content}
        for clip_id, content in contents.items()
    )


def test_clips_are_new_changed_or_gone_by_their_ids():
    changes = compare_manifests(
        manifest(same="1", other="2", gone="3", unreadable=None),
        manifest(other="9", same="1", new="3", unreadable=None),
    )
    assert changes.new == ("new",)
    assert changes.changed == ("other",)
    assert changes.gone == ("gone",)
    assert changes.footage == {"new": "new", "other": "changed", "gone": "gone"}


def test_compared_with_no_manifest_all_clips_are_new():
    changes = compare_manifests(MANIFEST_SCHEMA.empty_table(), manifest(b="1", a="2"))
    assert (changes.new, changes.changed, changes.gone) == (("a", "b"), (), ())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"twelve bytes")
    os.utime(path, (1000, 1000))
    return path


def is_probed(path, *, written_at=2000.0, **fields):
    row = {"clip_id": "clip", "uri": str(path), "content_id": content_id(path), **fields}
    found = [FoundFile(str(path), path.name, "video")]
    return files_to_probe(found, manifest_table([row]), written_at=written_at) == found


def test_a_file_that_is_as_the_manifest_has_it_is_not_probed_again(file):
    assert not is_probed(file)


def test_files_that_are_new_larger_newer_or_were_unreadable_are_probed(file):
    assert is_probed(file, uri="/elsewhere/clip.mp4")
    assert is_probed(file, content_id="13-of-another-size")
    assert is_probed(file, written_at=500.0)
    assert is_probed(file, content_id=None)


def test_a_file_that_went_meanwhile_is_left_to_the_prober(file):
    row = {"clip_id": "clip", "uri": str(file), "content_id": content_id(file)}
    file.unlink()
    found = [FoundFile(str(file), file.name, "video")]
    assert files_to_probe(found, manifest_table([row]), written_at=2000.0) == found


@pytest.mark.parametrize(
    ("listing", "is_probed"),
    [
        (Listing(1, 1000.0), False),
        (Listing(2, 1000.0), True),
        (Listing(1, 9000.0), True),
        (Listing(1, 1950.0), True),  # the server's clock may be late
        (Listing(1, None), False),
        (None, False),  # on a web server
    ],
)
def test_a_remote_file_is_probed_again_if_its_listing_shows_a_change(listing, is_probed):
    uri = "s3://bucket/clip.mp4"
    row = {"clip_id": "clip", "uri": uri, "content_id": "1-etag"}
    found = [FoundFile(uri, "clip.mp4", "video", listing)]
    assert files_to_probe(found, manifest_table([row]), written_at=2000.0) == is_probed * found


def test_clips_of_files_are_all_parts_of_these_and_no_others():
    rows = [{"clip_id": f"x@{i}", "uri": "/x.mp4"} for i in range(2)]
    table = manifest_table([*rows, {"clip_id": "y", "uri": "/y.mp4"}])
    found = [FoundFile("/x.mp4", "x.mp4", "video"), FoundFile("/z.mp4", "z.mp4", "video")]
    assert clips_of_files(table, found)["clip_id"].to_pylist() == ["x@0", "x@1"]


def test_new_files_do_not_take_the_names_of_clips_that_are_known():
    files = [FoundFile(f"/b/{name}.mp4", f"b/{name}.mp4", "video") for name in ("x", "y", "z")]
    names = clip_ids(files, taken={"x", "z", "b/z.mp4"})
    assert names[:2] == ["b/x.mp4", "y"]
    assert names[2].startswith("b/z.mp4-")
    assert clip_ids(files) == ["x", "y", "z"]
