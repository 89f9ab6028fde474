"""Finding media files, naming clips, and manifests in three formats."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.storage.manifest import (
    MANIFEST_SCHEMA,
    _is_odd,
    content_id,
    manifest_table,
    read_manifest,
    write_manifest,
)
from dsdi_ray.storage.media_files import clip_ids, find_media
from dsdi_ray.storage.parts import clip_problem


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    real_scandir = os.scandir

    def scandir(path):
        if Path(path) in folders:
            raise PermissionError(13, "Permission denied", str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)


def ids_of(*arguments: Path | str) -> list[str]:
    return clip_ids(find_media([str(a) for a in arguments]))


class TestFindMedia:
    def test_folders_are_searched_whole_and_case_does_not_matter(self, tmp_path):
        touch(tmp_path / "a.MP4", tmp_path / "deep/er/b.ts", tmp_path / "c.JPG", tmp_path / "d.txt")
        assert {Path(f.relative).name: f.media for f in find_media([str(tmp_path)])} == {
            "a.MP4": "video",
            "b.ts": "video",
            "c.JPG": "image",
        }

    def test_hidden_files_and_folders_are_left_out(self, tmp_path):
        touch(tmp_path / ".a.mp4", tmp_path / ".trash/b.mp4", tmp_path / "c.mp4")
        assert ids_of(tmp_path) == ["c"]

    def test_a_file_named_outright_is_kept_whatever_it_is_called(self, tmp_path):
        touch(tmp_path / "recording.bin", tmp_path / ".hidden.mp4")
        assert ids_of(tmp_path / "recording.bin", tmp_path / ".hidden.mp4") == [
            "recording",
            ".hidden",
        ]

    def test_a_glob_takes_what_its_suffix_names_and_else_only_media(self, tmp_path):
        touch(tmp_path / "a.dat", tmp_path / "b.mp4", tmp_path / "c.txt", tmp_path / "sub/d.mov")
        assert ids_of(tmp_path / "*.dat") == ["a"]
        assert ids_of(tmp_path / "*") == ["b", "d"]

    def test_brackets_in_a_file_name_are_no_glob(self, tmp_path):
        touch(tmp_path / "clip[1].mp4")
        assert ids_of(tmp_path / "clip[1].mp4") == ["clip[1]"]

    def test_a_file_given_twice_counts_once(self, tmp_path):
        touch(tmp_path / "a.mp4")
        assert ids_of(tmp_path, tmp_path / "a.mp4", tmp_path / "*.mp4") == ["a"]

    def test_a_path_that_matches_nothing_is_named(self, tmp_path):
        touch(tmp_path / "notes.txt")
        with pytest.raises(DataError, match="no such file or folder, or no video or image"):
            find_media([str(tmp_path)])

    def test_a_name_that_is_not_utf8_is_a_row_that_says_so(self, tmp_path):
        touch(tmp_path / "bad\udcff.mp4", tmp_path / "bad\udcfe.mp4", tmp_path / "good.mp4")
        found = find_media([str(tmp_path)])
        assert {f.uri: f.problem for f in found} == {
            f"file://{tmp_path}/bad%FE.mp4": "its name is not UTF-8; rename it",
            f"file://{tmp_path}/bad%FF.mp4": "its name is not UTF-8; rename it",
            f"{tmp_path}/good.mp4": None,
        }
        assert clip_ids(found) == [r"bad\xfe", r"bad\xff", "good"]

    def test_a_folder_that_cannot_be_listed_is_a_row_that_says_so(self, tmp_path, monkeypatch):
        touch(tmp_path / "a.mp4", tmp_path / "locked/b.mp4", tmp_path / ".hidden/c.mp4")
        refuse_to_list(monkeypatch, tmp_path / "locked", tmp_path / ".hidden")
        expected = {
            f"{tmp_path}/a.mp4": None,
            f"{tmp_path}/locked": "the folder cannot be listed: Permission denied",
        }
        for path in (tmp_path, f"{tmp_path.parent}/{tmp_path.name[:-1]}?"):
            assert {f.uri: f.problem for f in find_media([str(path)])} == expected

    def test_a_folder_named_outright_that_cannot_be_listed_ends_it(self, tmp_path, monkeypatch):
        refuse_to_list(monkeypatch, tmp_path)
        with pytest.raises(DataError, match=f"^{tmp_path}: cannot be listed: Permission denied"):
            find_media([str(tmp_path)])

    def test_files_that_cannot_be_looked_at_are_rows_that_say_so(self, tmp_path, monkeypatch):
        touch(tmp_path / "a.mp4", tmp_path / "no_x/b.mp4", tmp_path / "no_x/c.txt")
        real_stat = Path.stat

        def refuse(path, **options):
            if path.parent.name == "no_x":
                raise PermissionError(13, "Permission denied", str(path))
            return real_stat(path, **options)

        monkeypatch.setattr(Path, "stat", refuse)
        for path in (tmp_path, tmp_path / "no_x/*", tmp_path / "**/*"):
            found = {Path(f.uri).name: f.problem for f in find_media([str(path)])}
            found.pop("a.mp4", None)
            assert found == {"b.mp4": "cannot be read: Permission denied"}

    def test_linked_folders_are_followed_once_and_files_keep_their_own_place(self, tmp_path):
        touch(tmp_path / "top/z/a.mp4", tmp_path / "elsewhere/b.mp4", tmp_path / "elsewhere/c/d.ts")
        for link, target in (("a_link", "z"), ("far", "../elsewhere"), ("again", "../elsewhere")):
            (tmp_path / "top" / link).symlink_to(target)
        (tmp_path / "top/z/back").symlink_to("..")
        (tmp_path / "elsewhere/c/back").symlink_to(tmp_path / "top")
        (tmp_path / "top/.hidden").symlink_to(tmp_path)
        found = find_media([str(tmp_path / "top")])
        assert [f.relative for f in found] == ["again/b.mp4", "again/c/d.ts", "z/a.mp4"]
        assert found[0].uri == str(tmp_path / "elsewhere/b.mp4")

    def test_links_that_lead_nowhere_are_rows_that_say_so(self, tmp_path):
        touch(tmp_path / "a.mp4")
        for link, target in (
            ("b.mp4", "gone.mp4"),
            ("c.jpg", "c.jpg"),
            ("notes", "gone"),
            ("l", "l"),
        ):
            (tmp_path / link).symlink_to(target)
        expected = {
            "a.mp4": None,
            "b.mp4": "a link to a file that is not there",
            "c.jpg": "cannot be read: Too many levels of symbolic links",
        }
        for path in (tmp_path, tmp_path / "*"):
            assert {Path(f.uri).name: f.problem for f in find_media([str(path)])} == expected
        (named,) = find_media([str(tmp_path / "b.mp4")])
        assert named.problem == expected["b.mp4"]

    def test_every_real_sample_is_found(self, shared_data):
        found = {Path(f.uri).name for f in find_media([str(shared_data / "torture")])}
        assert found == {p.name for p in (shared_data / "torture").iterdir() if p.is_file()}


class TestClipIds:
    def test_files_that_share_a_stem_are_named_by_their_path(self, tmp_path):
        touch(tmp_path / "x/a.mp4", tmp_path / "y/a.mp4", tmp_path / "b.mp4")
        assert ids_of(tmp_path) == ["b", "x/a.mp4", "y/a.mp4"]

    def test_blanks_become_underscores_and_clashes_of_that_are_resolved(self, tmp_path):
        touch(tmp_path / "my clip.mp4", tmp_path / "my_clip.mp4")
        ids = ids_of(tmp_path)
        assert len(set(ids)) == 2
        assert not any(" " in one for one in ids)

    def test_control_characters_become_underscores(self, tmp_path):
        touch(tmp_path / "ctl\x01x.mp4", tmp_path / "del\x7f\x85 x.mp4", tmp_path / "é-日.mp4")
        assert ids_of(tmp_path) == ["ctl_x", "del_x", "é-日"]

    def test_the_same_path_under_two_folders_gets_two_ids(self, tmp_path):
        touch(tmp_path / "x/a.mp4", tmp_path / "y/a.mp4")
        assert len(set(ids_of(tmp_path / "x", tmp_path / "y"))) == 2

    def test_a_stem_that_is_another_files_path_does_not_clash(self, tmp_path):
        touch(tmp_path / "x/a.mp4", tmp_path / "a.mp4", tmp_path / "a.mp4.mkv")
        ids = ids_of(tmp_path)
        assert len(set(ids)) == 3


class TestContentId:
    def test_it_follows_content_not_name_or_time(self, tmp_path):
        (tmp_path / "a").write_bytes(b"1" * 100)
        (tmp_path / "b").write_bytes(b"1" * 100)
        (tmp_path / "c").write_bytes(b"2" * 100)
        a, b, c = (content_id(tmp_path / name) for name in "abc")
        assert a == b != c

    @pytest.mark.parametrize("size", [2**20 - 1, 2**20 + 1, 3 * 2**20])
    def test_a_change_at_the_end_of_a_large_file_shows(self, tmp_path, size):
        data = bytearray(size)
        (tmp_path / "a").write_bytes(data)
        data[-1] = 1
        (tmp_path / "b").write_bytes(data)
        assert content_id(tmp_path / "a") != content_id(tmp_path / "b")


class TestReadManifest:
    def test_what_is_written_is_read(self, tmp_path):
        row = {"clip_id": "a", "uri": "/x/a.mp4", "media": "video", "width": 640, "latitude": 1.5}
        manifest = manifest_table([row])
        write_manifest(manifest, tmp_path / "new/m.parquet")
        assert read_manifest(tmp_path / "new/m.parquet").equals(manifest)
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["m.parquet"]

    def test_csv_ids_keep_their_leading_zeros(self, tmp_path):
        (tmp_path / "m.csv").write_text(
            "clip_id,uri,start_seconds\n00123,/x/a.mp4,\n7,/x/b.mp4,2\n"
        )
        manifest = read_manifest(tmp_path / "m.csv")
        assert manifest["clip_id"].to_pylist() == ["00123", "7"]
        assert manifest["start_seconds"].to_pylist() == [None, 2.0]
        assert manifest.schema == MANIFEST_SCHEMA

    def test_only_empty_csv_ids_are_null(self, tmp_path):
        ids = ["NA", "nan", "null", "None", "N/A"]
        text = "".join(f"{one},/x/{one}.mp4,nan\n" for one in ids)
        (tmp_path / "m.csv").write_text(f'clip_id,uri,latitude\n{text},/x/a.mp4,\n"",/x/b.mp4,1\n')
        manifest = read_manifest(tmp_path / "m.csv")
        assert manifest["clip_id"].to_pylist() == [*ids, "a", "b"]
        assert manifest["latitude"].to_pylist() == [None] * 6 + [1.0]

    def test_a_csv_column_that_is_there_twice_is_named(self, tmp_path):
        (tmp_path / "m.csv").write_text("clip_id,uri,x,clip_id,x\na,/x/a.mp4,1,b,2\n")
        with pytest.raises(DataError, match="column clip_id is there 2 times"):
            read_manifest(tmp_path / "m.csv")

    def test_jsonl_with_uris_alone_gets_ids_and_media(self, tmp_path):
        lines = [json.dumps({"uri": u, "extra": 1}) for u in ("/x/a b.mp4", "/x/c.PNG")]
        (tmp_path / "m.jsonl").write_text("\n".join(lines))
        manifest = read_manifest(tmp_path / "m.jsonl")
        assert manifest["clip_id"].to_pylist() == ["a_b", "c"]
        assert manifest["media"].to_pylist() == ["video", "image"]

    def test_parts_of_one_file_get_ids_of_their_own(self, tmp_path):
        text = "uri,start_seconds,end_seconds\n/x/a.mp4,0,10\n/x/a.mp4,10,20.5\n/x/a.mp4,20.5,\n"
        (tmp_path / "m.csv").write_text(text)
        ids = read_manifest(tmp_path / "m.csv")["clip_id"].to_pylist()
        assert ids == ["a@0-10", "a@10-20.5", "a@20.5-"]

    def test_missing_ids_are_filled_in_beside_given_ones(self, tmp_path):
        (tmp_path / "m.csv").write_text("clip_id,uri\nfirst,/x/a.mp4\n,/x/b.mp4\n")
        assert read_manifest(tmp_path / "m.csv")["clip_id"].to_pylist() == ["first", "b"]

    def test_relative_paths_count_from_the_manifests_folder(self, tmp_path, monkeypatch):
        touch(tmp_path / "archive/a.mp4", tmp_path / "elsewhere/b.mp4")
        (tmp_path / "archive/m.csv").write_text("uri\na.mp4\nb.mp4\n")
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert read_manifest(tmp_path / "archive/m.csv")["uri"].to_pylist() == [
            str(tmp_path / "archive/a.mp4"),
            str(tmp_path / "elsewhere/b.mp4"),
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path\n/x/a.mp4\n", "no column `uri`, has path"),
            ("clip_id,uri\na,/x/a.mp4\na,/x/b.mp4\n", "clip_id 'a' appears more than once"),
            ("clip_id,uri\na b,/x/a.mp4\n", "row 1: clip_id must have no blanks"),
            ("clip_id,uri\na\x01b,/x/a.mp4\n", r"or control characters, got 'a\\x01b'"),
            ("uri,media\n/x/a.mp4,film\n", "row 1: media must be video or image, got 'film'"),
            ("uri,start_seconds\n/x/a.mp4,-1\n", "start_seconds must be 0 or more and .*, got -1"),
            ("uri,start_seconds\n/x/a.mp4,nan\n", "row 1: start_seconds must be .*, got nan"),
            ("uri,start_seconds\n/x/a.mp4,NA\n", "cannot be read: .*invalid value 'NA'"),
            ("uri,end_seconds\n/x/a.mp4,inf\n", "at most 1000000000, got inf"),
            ("uri,end_seconds\n/x/a.mp4,nan\n", "end_seconds must be .*, got nan"),
            ("uri,start_seconds\n/x/a.mp4,2e9\n", "at most 1000000000, got 2000000000.0"),
            ("uri,end_seconds\n/x/a.mp4,0\n", "end_seconds must be above start_seconds"),
            ("clip_id,uri\na,/x/a.mp4\nb,\n", "row 2: uri must not be empty"),
            ("uri,width\n/x/a.mp4,wide\n", "cannot be read"),
            ("", "cannot be read"),
        ],
    )
    def test_what_makes_no_sense_is_named(self, tmp_path, text, message):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read_manifest(tmp_path / "m.csv")

    def test_whole_columns_of_ids_are_checked_like_one(self):
        characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i <= 0xDFFF]
        row = {"uri": "/x/a.mp4", "media": "video"}
        table = manifest_table({**row, "clip_id": f"a{one}b"} for one in characters)
        is_odd = _is_odd(table).to_pylist()
        rest = {"media": None, "start_seconds": None, "end_seconds": None}
        problems = [clip_problem({**row, **rest, "clip_id": f"a{one}b"}) for one in characters]
        assert [p is not None for p in problems] == is_odd
        assert 50 < sum(is_odd) < 100

    def test_a_parquet_id_with_a_no_break_space_is_refused(self, tmp_path):
        row = {"clip_id": "a\u00a0b", "uri": "/x/a.mp4", "media": "video"}
        write_manifest(manifest_table([row]), tmp_path / "m.parquet")
        with pytest.raises(DataError, match="row 1: clip_id must have no blanks"):
            read_manifest(tmp_path / "m.parquet")

    def test_another_format_and_an_absent_file_are_named(self, tmp_path):
        with pytest.raises(DataError, match=r"must end in \.parquet, \.csv, \.jsonl"):
            read_manifest(tmp_path / "m.xlsx")
        with pytest.raises(DataError, match="cannot be read"):
            read_manifest(tmp_path / "absent.parquet")

    def test_a_large_manifest_is_read_without_looking_at_each_row(self, tmp_path):
        n = 300_000
        columns = {f.name: pa.nulls(n, f.type) for f in MANIFEST_SCHEMA}
        columns["clip_id"] = pa.array([f"clip{i}" for i in range(n)])
        columns["uri"] = pa.array([f"/x/{i}.mp4" for i in range(n)])
        columns["media"] = pa.array(["video"] * n)
        pq.write_table(pa.table(columns, schema=MANIFEST_SCHEMA), tmp_path / "m.parquet")
        started = time.process_time()
        assert len(read_manifest(tmp_path / "m.parquet")) == n
        assert time.process_time() - started < 2.0
