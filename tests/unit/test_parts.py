"""Windows and shot lists: the parts of files that are clips."""

import math

import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.storage.media_files import FoundFile
from dsdi_ray.storage.parts import (
    Windows,
    part_id,
    part_seconds,
    read_shots,
    seconds_of,
    shots_by_file,
)


class TestWindows:
    @pytest.mark.parametrize(
        ("duration", "overlap", "expected"),
        [
            (100.0, 0, [(0, 60), (60, None)]),
            (120.0, 0, [(0, 60), (60, None)]),
            (120.04, 0, [(0, 60), (60, 120), (120, None)]),  # one picture of its own
            (100.0, 30, [(0, 60), (30, 90), (60, None)]),
            (90.0, 30, [(0, 60), (30, None)]),
            (60.0, 0, [(None, None)]),
            (59.0, 30, [(None, None)]),
            (None, 0, [(None, None)]),
        ],
    )
    def test_they_cover_the_file_and_end_with_it(self, duration, overlap, expected):
        assert Windows(length_seconds=60, overlap_seconds=overlap).parts(duration) == expected

    def test_their_edges_are_round_numbers(self):
        edges = Windows(length_seconds=0.3, overlap_seconds=0.2).parts(1.0)
        assert edges[:4] == [(0.0, 0.3), (0.1, 0.4), (0.2, 0.5), (0.3, 0.6)]

    @pytest.mark.parametrize("duration", [60e5 + 1, 1e15, math.inf])
    def test_a_length_that_is_absurd_makes_none(self, duration):
        windows = Windows(length_seconds=60)
        assert windows.parts(duration) == [(None, None)]
        assert "if that is true, makes more than 100,000 windows" in windows.problem(duration)

    @pytest.mark.parametrize("duration", [None, 1.0, 60e5])
    def test_other_lengths_are_no_problem(self, duration):
        windows = Windows(length_seconds=60)
        assert windows.problem(duration) is None
        assert len(windows.parts(duration)) == (100_000 if duration == 60e5 else 1)

    @pytest.mark.parametrize(("length", "overlap"), [(0, 0), (-1, 0), (10, 10), (10, -1)])
    def test_what_cannot_be_is_refused(self, length, overlap):
        with pytest.raises(DataError, match="windows"):
            Windows(length_seconds=length, overlap_seconds=overlap)


def test_parts_are_named_after_file_and_time():
    assert part_id("a", None, None) == "a"
    assert part_id("a", 0.0, 60.0) == "a@0-60"
    assert part_id("a", None, 60.0) == "a@0-60"
    assert part_id("a", 60.0, None) == "a@60-"
    assert part_id("a", 36000.125, 36001.0) == "a@36000.125-36001"


def test_a_part_is_as_long_as_its_file_allows():
    assert part_seconds(100.0, 60.0, None) == 40.0
    assert part_seconds(100.0, 60.0, 120.0) == 40.0
    assert part_seconds(None, 60.0, 120.0) == 60.0
    assert part_seconds(None, 60.0, None) is None
    assert part_seconds(10.0, 60.0, None) == 0.0


class TestSeconds:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("83.5", 83.5), ("1:23.5", 83.5), ("00:01:23.500", 83.5), ("2:00:00", 7200.0), (" 7 ", 7)],
    )
    def test_they_are_read_in_three_forms(self, text, seconds):
        assert seconds_of(text) == seconds

    @pytest.mark.parametrize("text", ["", "-1", "1:60", "1:75:00", "1:2:3:4", "nan", "1e3", "a"])
    def test_others_are_refused(self, text):
        with pytest.raises(ValueError, match="must be seconds, MM:SS or HH:MM:SS.mmm"):
            seconds_of(text)


class TestShots:
    FILES = (
        FoundFile("/x/a.mp4", "a.mp4", "video"),
        FoundFile("s3://b/y/c.mp4", "y/c.mp4", "video"),
        FoundFile("s3://b/z/c.mp4", "z/c.mp4", "video"),
    )

    def shots(self, tmp_path, text):
        (tmp_path / "shots.csv").write_text(text, encoding="utf-8-sig")
        return read_shots(tmp_path / "shots.csv")

    def test_times_and_ids_are_read_and_empty_ones_are_the_files_own(self, tmp_path):
        first, second = self.shots(
            tmp_path,
            "file,start_seconds,end_seconds,clip_id,extra\n"
            "a,00:00:01.500,1:02,first,7\na,,,,\n",
        )  # fmt: skip
        assert (first.start_seconds, first.end_seconds, first.clip_id) == (1.5, 62.0, "first")
        assert (second.start_seconds, second.end_seconds, second.clip_id) == (None, None, None)

    @pytest.mark.parametrize(
        "name", ["/x/a.mp4", "a.mp4", "a", "s3://b/y/c.mp4", "y/c.mp4", "../x/a.mp4"]
    )
    def test_a_file_is_found_by_uri_path_or_name(self, tmp_path, name):
        shots = self.shots(tmp_path, f"uri,start_seconds,end_seconds\n{name},0,1\n")
        (file,) = shots_by_file(shots, self.FILES, source="/list/shots.csv")
        assert file == self.FILES["y" in name]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("uri,start_seconds\na,1\n", "needs the columns .* has start_seconds, uri"),
            ("", "has none"),
            ("uri,start_seconds,end_seconds\na,2,1\n", "row 1: end_seconds must be above"),
            ("uri,start_seconds,end_seconds\n,0,1\n", "row 1: uri must not be empty"),
            ("uri,start_seconds,end_seconds\na,0,1\na,x,1\n", "row 2: must be seconds"),
            ("uri,start_seconds,end_seconds,clip_id\na,0,1,b c\n", "must have no blanks"),
            ("uri,start_seconds,end_seconds\na,0,1\na,2\n", "row 2: is too short, without end_s"),
            ("uri,start_seconds,end_seconds\na\n", "without start_seconds, end_seconds"),
            ("uri,start_seconds,end_seconds\n", "has no shots"),
            ("uri,start_seconds,end_seconds\na,0,inf\n", "row 1: must be seconds, .* got 'inf'"),
            (f"uri,start_seconds,end_seconds\na,0,{'9' * 400}\n", "row 1: .* got inf"),
        ],
    )
    def test_what_makes_no_sense_is_named(self, tmp_path, text, message):
        with pytest.raises(DataError, match=message):
            self.shots(tmp_path, text)

    def test_an_absent_list_is_named(self, tmp_path):
        with pytest.raises(DataError, match="cannot be read: No such file"):
            read_shots(tmp_path / "none.csv")

    @pytest.mark.parametrize(("name", "message"), [("c", "2 of them"), ("d", "none of the files")])
    def test_a_file_that_is_not_one_is_named(self, tmp_path, name, message):
        shots = self.shots(tmp_path, f"uri,start_seconds,end_seconds\n{name},0,1\n")
        with pytest.raises(DataError, match=f"row 1: '{name}' is {message}"):
            shots_by_file(shots, self.FILES, source="/list/shots.csv")
