"""Paths and URIs: joined, split, listed, written, refused."""

import time
from pathlib import Path

import boto3
import pytest
from file_servers import file_server, s3_server
from pyarrow import fs as pafs

from dsdi_ray.errors import DataError
from dsdi_ray.storage.filesystems import (
    folder_of,
    is_remote,
    join,
    list_files,
    local_path,
    open_remote,
    path_in,
    read_bytes,
    resolve,
    write_bytes,
)
from dsdi_ray.storage.media_files import clip_ids, find_media


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "user"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ENDPOINT_URL", url),
        ):
            patch.setenv(name, value)
        host = url.removeprefix("http://")
        pafs.S3FileSystem(
            endpoint_override=host, scheme="http", region="us-east-1", allow_bucket_creation=True
        ).create_dir("bucket")
        for key in ("a#b? c%20d.mp4", "x/one.ts", "x/.trash/two.ts", "x/n.txt", "x/2/one.mov"):
            write_bytes(f"s3://bucket/films/{key}", key.encode())
        yield url


class TestNames:
    def test_local_and_remote_are_told_apart(self):
        assert not any(map(is_remote, ("a.mp4", "/x/a.mp4", "file:///x/a.mp4", Path("a"))))
        assert all(map(is_remote, ("s3://b/a", "gs://b/a", "https://h/a", "http://h/a")))

    def test_file_uris_are_paths(self):
        assert local_path("file:///x/a%20b.mp4") == Path("/x/a b.mp4")

    @pytest.mark.parametrize(
        ("folder", "relative", "expected"),
        [
            ("s3://b/ensembles/two", "../../members/a", "s3://b/members/a"),
            ("s3://b/e", "..", "s3://b"),
            ("https://h", "m.yaml", "https://h/m.yaml"),
            ("s3://anonymous@b/e/", "member.yaml", "s3://anonymous@b/e/member.yaml"),
            ("https://h/e", "m.yaml", "https://h/e/m.yaml"),
            ("s3://b/e", "gs://other/m", "gs://other/m"),
            ("s3://b/e", "/local/m", "/local/m"),
            ("/x/e", "../m", "/x/m"),
        ],
    )
    def test_relative_paths_count_from_their_folder(self, folder, relative, expected):
        assert join(folder, relative) == expected

    @pytest.mark.parametrize("folder", ["s3://b/e", "https://h/e/", "gs://b"])
    @pytest.mark.parametrize("relative", ["../../m/a", "../..", "x/../../../other/a"])
    def test_a_relative_path_never_leads_to_another_bucket_or_host(self, folder, relative):
        with pytest.raises(DataError, match=r"leads out of (s3|gs|https)://[bh], seen from"):
            join(folder, relative)

    def test_a_web_addresss_query_is_no_part_of_the_name(self):
        assert path_in("https://h/x/a%20b.mp4?sig=1/2.jpg").name == "a b.mp4"
        assert path_in("s3://b/x/a?b.mp4").name == "a?b.mp4"
        assert folder_of("https://h/x/m.csv?sig=a/b") == "https://h/x"
        assert folder_of("s3://b/why?/m.csv") == "s3://b/why?"


class TestResolve:
    def test_local_paths(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert resolve("scores")[1] == str(tmp_path / "scores")
        assert resolve(f"file://{tmp_path}/a%20b/")[1] == str(tmp_path / "a b")

    def test_credentials_in_a_uri_are_refused_and_not_repeated(self):
        with pytest.raises(DataError, match="credentials do not belong in a URI") as caught:
            resolve("s3://AKIA:hush@bucket/key")
        assert "hush" not in str(caught.value)

    def test_google_cloud_storage_is_there(self):
        filesystem, path = resolve("gs://anonymous@bucket/a/b/")
        assert isinstance(filesystem, pafs.GcsFileSystem)
        assert path == "bucket/a/b"

    def test_web_servers_cannot_be_written(self):
        with pytest.raises(DataError, match="read only"):
            write_bytes("https://h/m.parquet", b"")

    def test_an_unknown_scheme_is_named(self):
        with pytest.raises(DataError, match="ftp://h/x: not a path or URI that can be used"):
            resolve("ftp://h/x")


class TestBuckets:
    def test_keys_are_taken_as_they_are(self, s3):
        uri = "s3://bucket/films/a#b? c%20d.mp4"
        assert read_bytes(uri) == b"a#b? c%20d.mp4"
        assert open_remote(uri).size == 14
        assert open_remote(uri).version

    def test_folders_are_searched_like_local_ones(self, s3):
        found = find_media(["s3://bucket/films"])
        assert [f.relative for f in found] == ["a#b? c%20d.mp4", "x/2/one.mov", "x/one.ts"]
        assert clip_ids(found) == ["a#b?_c%20d", "x/2/one.mov", "x/one.ts"]
        assert find_media(["s3://bucket/films/x/n.txt"])[0].uri == "s3://bucket/films/x/n.txt"

    @pytest.mark.parametrize(
        ("glob", "names"),
        [
            ("films/x/*.ts", ["one.ts"]),
            ("films/*/?ne.*", ["one.ts"]),
            ("films/**/*.mov", ["2/one.mov"]),
            ("films/x*", ["x/2/one.mov", "x/one.ts"]),
            ("films/x/*.txt", ["n.txt"]),
        ],
    )
    def test_globs(self, s3, glob, names):
        assert [f.uri.rpartition(n)[1] for f, n in zip(
            find_media([f"s3://bucket/{glob}"]), names, strict=True
        )] == names  # fmt: skip

    def test_what_is_public_is_read_without_credentials_and_nothing_else_is(self, s3):
        boto3.client("s3", endpoint_url=s3, region_name="us-east-1").put_object_acl(
            Bucket="bucket", Key="films/x/one.ts", ACL="public-read"
        )
        public, private = "films/x/one.ts", "films/x/2/one.mov"
        assert read_bytes(f"s3://anonymous@bucket/{public}") == b"x/one.ts"
        with pytest.raises(OSError, match="ACCESS_DENIED"):
            read_bytes(f"s3://anonymous@bucket/{private}")
        assert read_bytes(f"s3://bucket/{private}") == b"x/2/one.mov"

    def test_a_listing_tells_size_and_time_of_change(self, s3):
        (found,) = find_media(["s3://bucket/films/x/2"])
        assert found.listing.size == len(b"x/2/one.mov")
        assert abs(found.listing.changed_at - time.time()) < 600
        (named,) = find_media(["s3://bucket/films/x/2/one.mov"])
        assert named.listing == found.listing

    def test_anonymous_is_kept_in_what_is_listed(self, s3):
        uris = [uri for uri, *_ in list_files("s3://anonymous@bucket/films/x")]
        assert "s3://anonymous@bucket/films/x/one.ts" in uris

    @pytest.mark.parametrize("uri", ["s3://bucket/none", "s3://nowhere/x", "s3://bucket/*.avi"])
    def test_nothing_found_is_named(self, s3, uri):
        with pytest.raises(DataError, match="no such file or folder"):
            find_media([uri])


def test_a_file_on_a_web_server_is_found_by_its_address(tmp_path):
    (tmp_path / "a b.mp4").write_bytes(b"x")
    with file_server(tmp_path) as server:
        (found,) = find_media([f"{server.url}/a%20b.mp4?sig=1"])
        assert (found.relative, found.media) == ("a b.mp4", "video")
        assert read_bytes(found.uri) == b"x"


def test_what_is_written_is_there_whole(tmp_path):
    write_bytes(tmp_path / "new" / "a", b"1")
    write_bytes(f"file://{tmp_path}/new/a", b"2")
    assert read_bytes(tmp_path / "new" / "a") == b"2"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a"]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "a", b"1")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
