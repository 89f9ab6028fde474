"""LADI's table of images."""

import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.storage.ladi_metadata import ImageMetadata, read_metadata

HEADER = ",uuid,timestamp,gps_lat,gps_lon,gps_alt,file_size,width,height,s3_path,url"
ROW = (
    "581,02310F97,2015-10-19 23:50:12,38.5106,-122.6285,740.0,3468065.0,4608.0,3456.0,"
    "s3://ladi/Images/FEMA_CAP/1014/20277/a.jpg,"
    "https://ladi.s3-us-west-2.amazonaws.com/Images/FEMA_CAP/1014/20277/a.jpg"
)
PATH = "Images/FEMA_CAP/1014/20277/a.jpg"


def read(tmp_path, *lines, ids=(PATH,)):
    file = tmp_path / "metadata.csv"
    file.write_text("\n".join([HEADER, *lines]) + "\n")
    return read_metadata(file, ids)


@pytest.mark.parametrize("image_id", [PATH, "02310F97"])
def test_an_image_is_found_by_its_path_and_by_its_uuid(tmp_path, image_id):
    assert read(tmp_path, ROW, ids=[image_id, "other"]) == {
        image_id: ImageMetadata(
            path=PATH,
            sha1="02310f97",
            capture_time="2015-10-19T23:50:12",
            latitude=38.5106,
            longitude=-122.6285,
        )
    }


def test_empty_and_odd_cells_are_unknown(tmp_path):
    found = read(tmp_path, f"1,,no time,,nan,,,,,s3://ladi/{PATH},")[PATH]
    assert (found.sha1, found.capture_time, found.latitude, found.longitude) == (None,) * 4


def test_rows_that_name_no_image_are_passed_over(tmp_path):
    assert list(read(tmp_path, "1,2", "1,2,,,,,,,,,", ROW)) == [PATH]


def test_a_table_without_paths_is_refused(tmp_path):
    file = tmp_path / "metadata.csv"
    file.write_text("uuid,timestamp\n")
    with pytest.raises(DataError, match="needs a column url or s3_path, has uuid, timestamp"):
        read_metadata(file, [])


def test_ladis_own_table_is_read(shared_data):
    file = shared_data / "ladi" / "flood_tiny_metadata.csv"
    lines = file.read_text().splitlines()
    ids = [line.rpartition("amazonaws.com/")[2] for line in lines[1:]]
    found = read_metadata(file, ids)
    assert len(found) == len(set(ids)) == 1250
    assert all(m.capture_time and m.sha1 and len(m.sha1) == 40 for m in found.values())
