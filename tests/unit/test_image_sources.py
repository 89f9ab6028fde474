"""Images in folders, tars and at addresses, and how they are read."""

import tarfile

import pytest
from PIL import Image

from dsdi_ray.errors import DataError, FetchError
from dsdi_ray.storage.filesystems import Listing
from dsdi_ray.storage.image_sources import ImageFile, locate_images, read_image, read_images


def locate(ids, *sources):
    return locate_images({image_id: image_id for image_id in ids}, sources)


def write(file, content=b"content"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def make_tar(path, files, **options):
    with tarfile.open(path, "w", **options) as tar:
        for file, name in files:
            tar.add(file, name)


class TestTars:
    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_members_are_found_and_read_by_their_offset(self, tmp_path, form):
        long_name = f"./Images/{'x' * 90}/{'y' * 90}/b.JPG"
        files = [(write(tmp_path / "a", b"first"), "Images/1/a.jpg"), (tmp_path / "a", "notes.txt"),
                 (write(tmp_path / "b", b"second" * 1000), long_name),
                 (tmp_path / "a", "Images/1/._a.jpg")]  # fmt: skip
        make_tar(tmp_path / "images.tar", files, format=form)
        located = locate(["FEMA/Images/1/a.jpg", "b.JPG", "c.jpg"], tmp_path / "images.tar")
        assert {i: read_image(f) for i, f in located.files.items()} == {
            "FEMA/Images/1/a.jpg": b"first",
            "b.JPG": b"second" * 1000,
        }
        assert located.missing == {"c.jpg": "no such file"}

    def test_what_is_no_plain_tar_is_refused(self, tmp_path):
        write(tmp_path / "text.tar", b"x" * 2000)
        with pytest.raises(DataError, match="text.tar: cannot be read"):
            locate(["a.jpg"], tmp_path / "text.tar")
        with pytest.raises(DataError, match="none.tar: cannot be read"):
            locate(["a.jpg"], tmp_path / "none.tar")
        make_tar(tmp_path / "empty.tar", [])
        with pytest.raises(DataError, match="no image in it"):
            locate(["a.jpg"], tmp_path / "empty.tar")

    def test_a_tar_that_was_cut_short_is_refused(self, tmp_path):
        make_tar(tmp_path / "t.tar", [(write(tmp_path / "a", b"x" * 50_000), "a.jpg")] * 2)
        content = (tmp_path / "t.tar").read_bytes()
        (tmp_path / "t.tar").write_bytes(content[:60_000])
        with pytest.raises(DataError, match="unexpected end of data"):
            locate(["a.jpg"], tmp_path / "t.tar")

    def test_a_member_that_is_no_longer_there_is_an_error(self, tmp_path):
        file = write(tmp_path / "t.tar", b"12345")
        with pytest.raises(OSError, match="ends 2 bytes early"):
            read_image(ImageFile(str(file), 3, 7))


def test_of_several_sources_the_first_that_has_an_image_counts(tmp_path):
    for name in ("one/a.jpg", "two/a.jpg", "two/b.jpg"):
        write(tmp_path / name, name.encode())
    located = locate(["a.jpg", "b.jpg"], tmp_path / "one", tmp_path / "two")
    contents = {image_id: read_image(file) for image_id, file in located.files.items()}
    assert contents == {"a.jpg": b"one/a.jpg", "b.jpg": b"two/b.jpg"}


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("s3://anonymous@ladi/Images", "s3://anonymous@ladi/Images/FEMA_CAP/1/2/a.jpg"),
        ("s3://ladi", "s3://ladi/Images/FEMA_CAP/1/2/a.jpg"),
        ("https://host/Images/", "https://host/Images/FEMA_CAP/1/2/a.jpg"),
    ],
)
def test_images_under_an_address_are_found_without_a_request(source, address):
    located = locate(["Images/FEMA_CAP/1/2/a.jpg"], source)
    assert located.files == {"Images/FEMA_CAP/1/2/a.jpg": ImageFile(address)}


def test_web_servers_cannot_be_searched():
    with pytest.raises(DataError, match="no image in it|cannot be read"):
        locate(["elsewhere/a.jpg"], "https://host/Images")


def test_a_path_may_say_more_than_an_id(tmp_path):
    write(tmp_path / "1" / "a.jpg")
    located = locate_images({"c0ffee": "Images/1/a.jpg"}, [tmp_path])
    assert located.files["c0ffee"].uri == str(tmp_path / "1" / "a.jpg")


def test_stamps_follow_what_can_be_seen_of_a_change(tmp_path):
    file = ImageFile(str(write(tmp_path / "a.jpg")))
    first = file.stamp
    write(tmp_path / "a.jpg", b"other and longer")
    assert file.stamp != first
    assert ImageFile("s3://bucket/a.jpg").stamp == ("s3://bucket/a.jpg", None)
    listed = ImageFile("s3://bucket/a.jpg", listing=Listing(5, 1000.0))
    assert listed.stamp == ("s3://bucket/a.jpg", None, 5, 1000.0)
    assert ImageFile(str(tmp_path / "gone.jpg")).stamp[-1] == -1


def test_many_images_are_read_in_order_and_what_fails_is_an_error(tmp_path):
    files = []
    for i in range(40):
        file = tmp_path / f"{i:02d}.png"
        if i % 7:
            Image.new("L", (1, 1), i).save(file)
        files.append(ImageFile(str(file)))
    contents = list(read_images(files))
    for i, content in enumerate(contents):
        if i % 7:
            assert content == (tmp_path / f"{i:02d}.png").read_bytes()
        else:
            assert isinstance(content, FileNotFoundError)


def test_a_server_that_is_not_there_is_an_error_that_may_pass(monkeypatch):
    monkeypatch.setenv("DSDI_MAX_ATTEMPTS", "1")
    (error,) = read_images([ImageFile("http://127.0.0.1:9/a.jpg")])
    assert isinstance(error, FetchError)
