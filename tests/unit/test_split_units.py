"""What stays on one side of the split."""

import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.method.sampling import join_groups
from dsdi_ray.storage.split_units import split_units, unit_among, unit_names

PATHS = [
    "Images/FEMA_CAP/9073/613823/a.jpg",
    "Images/FEMA_CAP/9073/613823/b.jpg",
    "Images/FEMA_CAP/9073/613824/c.jpg",
    "Images/FEMA_CAP/5/1/d.jpg",
    "elsewhere/e.jpg",
]


def units(split, *, paths=PATHS, groups=None, times=None, gap=30.0):
    return split_units(
        split,
        paths=paths,
        given_groups=groups,
        capture_times=times or [None] * len(paths),
        max_gap_minutes=gap,
    )


def test_events_and_flights_are_in_the_path():
    assert units("event") == ["FEMA_CAP/9073"] * 3 + ["FEMA_CAP/5", None]
    first, second = "FEMA_CAP/9073/613823", "FEMA_CAP/9073/613824"
    assert units("flight") == [first, first, second, "FEMA_CAP/5/1", None]


def test_folders_are_those_of_the_paths():
    assert units("folder", paths=["x/y/a.jpg", "b.jpg"]) == ["x/y", None]


def test_images_are_units_by_themselves_when_the_split_is_random():
    assert units("random", groups=["x"] * 5) == [None] * 5


@pytest.mark.parametrize("split", ["event", "flight", "given"])
def test_groups_that_the_label_file_names_come_first(split):
    groups = ["storm", "storm", None, "fire", "fire"]
    assert units(split, groups=groups) == groups


@pytest.mark.parametrize("split", ["event", "flight"])
def test_paths_that_tell_no_event_are_refused(split):
    with pytest.raises(DataError, match=f"split {split}: .* such as x/a.jpg; try folder"):
        units(split, paths=["x/a.jpg"])


def test_a_pause_begins_a_new_flight():
    times = [f"2017-09-10T{time}:00" for time in ("14:50", "14:00", "14:00", "14:25", "14:49")]
    paths = [f"FEMA_CAP/1/{flight}/x.jpg" for flight in (1, 1, 2, 1, 2)]
    found = units("flight", paths=paths, times=times, gap=25)
    assert found == [
        "FEMA_CAP/1/1",
        "FEMA_CAP/1/1",
        "FEMA_CAP/1/2",
        "FEMA_CAP/1/1",
        "FEMA_CAP/1/2#1",
    ]
    shorter = units("flight", paths=paths, times=times, gap=24)
    assert shorter == [
        "FEMA_CAP/1/1#2", "FEMA_CAP/1/1", "FEMA_CAP/1/2", "FEMA_CAP/1/1#1", "FEMA_CAP/1/2#1"
    ]  # fmt: skip


@pytest.mark.parametrize("unknown", [None, "no time"])
def test_a_flight_is_whole_where_the_time_of_an_image_is_unknown(unknown):
    times = ["2017-09-10T14:00:00", unknown, "2017-09-10T23:00:00"]
    paths = [f"FEMA_CAP/1/2/{name}.jpg" for name in "abc"]
    assert units("flight", paths=paths, times=times) == ["FEMA_CAP/1/2"] * 3


class TestJoinGroups:
    def test_groups_that_share_a_picture_are_one(self):
        ids = list("abcdef")
        groups = ["x", "y", "y", "z", None, "w"]
        joined = join_groups(ids, groups, [[0, 1], [2, 4]])
        assert joined == ["x", "x", "x", "z", "x", "w"]

    def test_chains_end_in_one_group(self):
        joined = join_groups(list("abcd"), ["4", "3", "2", "1"], [[0, 1], [2, 3], [1, 2]])
        assert joined == ["1"] * 4

    def test_images_without_a_group_are_called_after_the_first_of_them(self):
        assert join_groups(list("abcd"), [None] * 4, [[1, 3]]) == [None, "b", None, "b"]

    def test_without_duplicates_groups_stay(self):
        assert join_groups(["a", "b"], ["x", None], []) == ["x", None]


def test_a_unit_goes_by_the_name_of_its_group_and_by_what_its_images_paths_say():
    groups = ["FEMA_CAP/5/1", "FEMA_CAP/9073/613824#2", None, "FEMA_CAP/5/1", None]
    assert unit_names("flight", image_ids=PATHS, groups=groups) == {
        "FEMA_CAP/9073/613823",
        "FEMA_CAP/9073/613824",
        "FEMA_CAP/5/1",
    }
    assert unit_names("random", image_ids=PATHS, groups=[None] * 5) == set()
    assert unit_names("given", image_ids=PATHS[:1], groups=["storm"]) == {"storm"}
    assert unit_names("folder", image_ids=["x/y/a.jpg", "b.jpg"], groups=[None] * 2) == {"x/y"}


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/data/FEMA_CAP/9073/a.jpg", "FEMA_CAP/9073"),
        ("/data/FEMA_CAP/9073/1/a.jpg", "FEMA_CAP/9073/1"),
        ("storm/b/a.jpg", "storm"),
        ("/data/FEMA_CAP/90730/a.jpg", None),
        ("/data/storm", None),
        ("a.jpg", None),
    ],
)
def test_an_image_elsewhere_is_of_the_unit_that_its_folders_name(path, unit):
    assert unit_among(path, {"FEMA_CAP/9073", "FEMA_CAP/9073/1", "storm"}) == unit
