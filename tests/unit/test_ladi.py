"""Label files: LADI v1's answers, wide tables, and which image is which file."""

import csv
from pathlib import Path

import numpy as np
import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.storage.image_files import find_image_files, match_images
from dsdi_ray.storage.image_labels import image_id_of
from dsdi_ray.storage.ladi import read_answers
from dsdi_ray.taxonomy import load_taxonomy, taxonomy_from_dict

LADI = load_taxonomy("ladi_v1")
SMALL = taxonomy_from_dict(
    {
        "name": "small",
        "classes": [
            {"name": "flood", "category": "damage", "aliases": ["damage:flood"]},
            {"name": "smoke", "category": "damage", "aliases": ["damage:smoke"]},
            {"name": "road", "category": "infrastructure", "aliases": ["infrastructure:road"]},
        ],
    }
)


def ladi_file(folder: Path, rows, header="url\tWorkerId\tAnswer") -> Path:
    file = folder / "answers.tsv"
    file.write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n")
    return file


def read_small(folder: Path, rows, **kwargs):
    return read_answers(ladi_file(folder, rows, **kwargs), SMALL)


def by_class(labels, name: str, vectors) -> dict[str, float]:
    row = labels.image_ids.index(name)
    return dict(zip(SMALL.class_names, vectors[row].tolist(), strict=True))


class TestLadiAnswers:
    def test_every_worker_counts_once_per_class_and_image(self, tmp_path):
        labels = read_small(
            tmp_path,
            [
                ("s3://l/a.jpg", "W1", "['damage:flood', 'damage:flood']"),
                ("s3://l/a.jpg", "W1", "['damage:flood', 'damage:smoke']"),
                ("s3://l/a.jpg", "W2", "['damage:flood']"),
            ],
        )
        assert by_class(labels, "a.jpg", labels.answer_counts) == {
            "flood": 2,
            "smoke": 1,
            "road": 0,
        }
        assert labels.num_repeated == 1
        assert labels.num_answers.tolist() == [3]
        assert labels.encoding == "max_count"

    def test_a_category_without_answers_was_not_asked(self, tmp_path):
        labels = read_small(
            tmp_path,
            [
                ("b.jpg", "W1", "['damage:flood']"),
                ("b.jpg", "W2", "['damage:smoke']"),
                ("a.jpg", "W1", "['infrastructure:road']"),
            ],
        )
        assert labels.image_ids == ("a.jpg", "b.jpg")
        assert labels.num_asked.tolist() == [[0, 0, 1], [2, 2, 0]]
        assert labels.asked.tolist() == [[False, False, True], [True, True, False]]
        assert labels.majority.tolist() == [[False, False, True], [False, False, False]]

    def test_unknown_strings_are_counted_with_examples_and_still_say_what_was_asked(self, tmp_path):
        labels = read_small(
            tmp_path,
            [
                ("a.jpg", "W1", "['damage:meteor']"),
                ("b.jpg", "W1", "['damage:meteor', 'damage:flood']"),
                ("c.jpg", "W1", "['mood:gloomy']"),
            ],
        )
        assert labels.unknown_strings == {"damage:meteor": 2, "mood:gloomy": 1}
        assert labels.unknown_examples["damage:meteor"] == ["a.jpg", "b.jpg"]
        assert labels.unlabelled == ("c.jpg",)
        assert by_class(labels, "a.jpg", labels.asked) == {
            "flood": True,
            "smoke": True,
            "road": False,
        }
        assert not labels.soft_labels[0].any()

    def test_broken_rows_are_listed_by_line_and_do_not_spoil_the_others(self, tmp_path):
        labels = read_small(
            tmp_path,
            [
                ("a.jpg", "W1", "['damage:flood'"),
                ("a.jpg", "W1"),
                ("a.jpg", "W1", "\"['damage:flood']"),
                ("", "W1", "['damage:flood']"),
                ("a.jpg", "W3", "[]"),
                ("a.jpg", "W4", "[1, 2]"),
                ("a.jpg", "W5", "__import__('os').getcwd()"),
                ("a.jpg", "W6", "['damage:flood']"),
            ],
        )
        assert [row.line for row in labels.bad_rows] == [2, 3, 5, 6, 7, 8]
        assert "no Python list" in labels.bad_rows[0].reason
        assert "2 columns, the header 3" in labels.bad_rows[1].reason
        assert labels.answer_counts.tolist() == [[2, 0, 0]]

    def test_rows_without_a_worker_are_a_worker_each(self, tmp_path):
        rows = [("a.jpg", "['damage:flood']")] * 3
        labels = read_small(tmp_path, rows, header="image_uuid\tAnswer")
        assert labels.answer_counts[0, 0] == 3

    @pytest.mark.parametrize("column", ["url", "image_uuid", "img_url", "URL"])
    def test_each_release_has_its_image_column(self, tmp_path, column):
        labels = read_small(
            tmp_path,
            [("W1", "['damage:flood']", "x/a.jpg")],
            header=f"\ufeffWorkerId\tAnswer\t{column}",
        )
        assert labels.image_ids == ("x/a.jpg",)

    def test_a_quoted_answer_of_a_csv_is_one_answer(self, tmp_path):
        file = tmp_path / "answers.csv"
        file.write_text("url,WorkerId,Answer\na.jpg,W1,\"['damage:flood', 'damage:smoke']\"\n")
        assert read_answers(file, SMALL).answer_counts.tolist() == [[1, 1, 0]]

    def test_a_file_of_broken_rows_only_is_an_error_with_the_first_reason(self, tmp_path):
        with pytest.raises(DataError, match=r"no row can be read \(1 bad\); line 2"):
            read_small(tmp_path, [("a.jpg", "W1", "flood")])

    def test_answers_of_another_vocabulary_are_an_error(self, tmp_path):
        with pytest.raises(DataError, match=r"no answer means a class .* 'mood:gloomy'"):
            read_small(tmp_path, [("a.jpg", "W1", "['mood:gloomy']")])

    def test_an_answer_column_alone_is_not_enough(self, tmp_path):
        with pytest.raises(DataError, match="one of url, image_uuid or img_url"):
            read_small(tmp_path, [("W1", "['damage:flood']")], header="WorkerId\tAnswer")

    def test_all_real_answers_are_known(self, tmp_path, shared_data):
        answers = (shared_data / "ladi/answers_transcribed.txt").read_text().splitlines()
        with (shared_data / "ladi/flood_tiny_metadata.csv").open() as file:
            urls = [row["url"] for row in csv.DictReader(file)][: len(answers)]
        rows = [(url, "W1", answer) for url, answer in zip(urls, answers, strict=True)]
        labels = read_answers(ladi_file(tmp_path, rows), LADI)
        assert len(labels) == len(answers) == 25
        assert not labels.bad_rows
        assert not labels.unknown_strings
        assert labels.image_ids[0].startswith("Images/FEMA_CAP/")


class TestWideLabels:
    def test_values_are_labels_as_they_are_and_blank_is_not_asked(self, tmp_path):
        file = tmp_path / "wide.csv"
        file.write_text(
            "url,Flood,smoke,infrastructure:road,note\n"
            "s3://l/b.jpg,1,0.3,,x\n"
            "s3://l/a.jpg,True,false,0.5,y\n"
        )
        labels = read_answers(file, SMALL)
        assert labels.image_ids == ("a.jpg", "b.jpg")
        np.testing.assert_allclose(labels.soft_labels, [[1, 0, 0.5], [1, 0.3, 0]])
        assert labels.asked.tolist() == [[True, True, True], [True, True, False]]
        assert labels.answer_counts.tolist() == [[1, 0, 0], [1, 0, 0]]
        assert labels.ignored_columns == ("note",)
        assert labels.encoding == "as_given"

    @pytest.mark.parametrize("separator", [",", "\t", ";"])
    def test_the_header_tells_the_separator(self, tmp_path, separator):
        file = tmp_path / "wide.txt"
        rows = ["image flood smoke road", "a.jpg 0 1 0"]
        file.write_text("\n".join(row.replace(" ", separator) for row in rows))
        assert read_answers(file, SMALL).soft_labels.tolist() == [[0, 1, 0]]

    def test_the_first_column_names_the_image_where_none_is_called_so(self, tmp_path):
        file = tmp_path / "wide.csv"
        file.write_text("photo,flood,smoke,road\na.jpg,0,1,0\n")
        assert read_answers(file, SMALL).image_ids == ("a.jpg",)

    def test_a_split_is_honoured_and_the_test_part_held_out(self, tmp_path):
        file = tmp_path / "wide.csv"
        parts = ["train", "val", "test", "", "Validation", "tset"]
        rows = [f"{i}.jpg,1,0,0,{part},storm {i % 2}" for i, part in enumerate(parts)]
        file.write_text("\n".join(["image,flood,smoke,road,split,group", *rows]))
        labels = read_answers(file, SMALL)
        assert labels.image_ids == ("0.jpg", "1.jpg", "3.jpg", "4.jpg")
        assert labels.splits == ("train", "validation", None, "validation")
        assert labels.groups == ("storm 0", "storm 1", "storm 1", "storm 0")
        assert labels.held_out == ("2.jpg",)
        assert "got 'tset'" in labels.bad_rows[0].reason

    def test_bad_cells_and_repeated_images_are_listed_by_line(self, tmp_path):
        file = tmp_path / "wide.csv"
        rows = ["a.jpg,1,0,0", "a.jpg,0,0,0", "b.jpg,2,0,0", "c.jpg,perhaps,0,0", "d.jpg,,nan,NA"]
        file.write_text("\n".join(["image,flood,smoke,road", *rows]))
        labels = read_answers(file, SMALL)
        assert labels.image_ids == ("a.jpg",)
        assert [row.line for row in labels.bad_rows] == [3, 4, 5]
        assert "names the image a.jpg again" in labels.bad_rows[0].reason
        assert "flood must be in [0, 1] or true or false, got '2'" in labels.bad_rows[1].reason
        assert labels.unlabelled == ("d.jpg",)

    def test_a_class_without_a_column_is_named_with_a_near_miss(self, tmp_path):
        file = tmp_path / "wide.csv"
        file.write_text("image,flood,smokes,road\na.jpg,0,1,0\n")
        with pytest.raises(DataError, match=r"class 'smoke' .*did you mean the column 'smokes'\?"):
            read_answers(file, SMALL)

    def test_two_columns_of_one_class_are_refused(self, tmp_path):
        file = tmp_path / "wide.csv"
        file.write_text("image,flood,damage:flood,smoke,road\na.jpg,0,1,0,0\n")
        with pytest.raises(DataError, match="'flood' and 'damage:flood' both mean"):
            read_answers(file, SMALL)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "first line must name the columns"),
            (b"a,b,c\n1,2,3\n", "neither LADI v1's answers"),
            (b"image,flood,smoke,road\n", "no row can be used"),
            (b"PAR1\x00\x15\x04\xff\xfe", "neither LADI v1's answers"),
        ],
    )
    def test_files_of_neither_form_are_refused_in_one_line(self, tmp_path, content, message):
        file = tmp_path / "wide.csv"
        file.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            read_answers(file, SMALL)
        assert "\n" not in str(caught.value)

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="No such file"):
            read_answers(tmp_path / "none.tsv", SMALL)

    def test_the_real_flood_labels_are_read(self, shared_data):
        flood = taxonomy_from_dict(
            {"name": "flood", "classes": [{"name": "flood", "aliases": ["label"]}]}
        )
        file = shared_data / "ladi/flood_tiny_label.csv"
        labels = read_answers(file, flood)
        assert len(labels) + len(labels.bad_rows) == 1250
        assert labels.soft_labels.sum() == file.read_text().count(",True") > 100
        assert labels.image_ids[0].startswith("Images/FEMA_CAP/")


@pytest.mark.parametrize(
    "reference",
    [
        "s3://ladi/Images/FEMA_CAP/9073/a b.jpg",
        "https://ladi.s3-us-west-2.amazonaws.com/Images/FEMA_CAP/9073/a%20b.jpg?versionId=1",
        "/Images/FEMA_CAP/9073/a b.jpg",
        "./Images/FEMA_CAP/9073/a b.jpg ",
        "Images\\FEMA_CAP\\9073\\a b.jpg",
    ],
)
def test_all_ways_to_name_an_image_give_one_id(reference):
    assert image_id_of(reference) == "Images/FEMA_CAP/9073/a b.jpg"


class TestMatching:
    def test_an_image_is_found_flat_nested_or_by_its_id(self):
        ids = ["Images/1/2/a.jpg", "Images/1/2/b.jpg", "c0ffee", "Images/1/2/d.jpg"]
        matched = match_images(ids, ["a.jpg", "deep/2/b.jpg", "x/c0ffee.jpg", "other.jpg"])
        assert matched.files == {
            "Images/1/2/a.jpg": "a.jpg",
            "Images/1/2/b.jpg": "deep/2/b.jpg",
            "c0ffee": "x/c0ffee.jpg",
        }
        assert matched.missing == {"Images/1/2/d.jpg": "no such file"}

    def test_of_equal_names_the_longest_common_tail_counts(self):
        ids = ["Images/1/9/a.jpg", "Images/2/9/a.jpg"]
        matched = match_images(ids, ["1/9/a.jpg", "2/9/a.jpg", "3/8/a.jpg"])
        assert matched.files == {ids[0]: "1/9/a.jpg", ids[1]: "2/9/a.jpg"}

    def test_what_could_be_two_images_is_neither(self):
        matched = match_images(["1/a.jpg", "2/a.jpg"], ["a.jpg"])
        assert not matched.files
        assert set(matched.missing) == {"1/a.jpg", "2/a.jpg"}
        assert "another image's: a.jpg" in matched.missing["1/a.jpg"]

    def test_a_file_goes_to_the_image_that_shares_more_of_its_path(self):
        matched = match_images(["x/1/a.jpg", "x/2/a.jpg"], ["1/a.jpg"])
        assert matched.files == {"x/1/a.jpg": "1/a.jpg"}
        assert set(matched.missing) == {"x/2/a.jpg"}

    def test_two_files_that_could_be_it_are_no_match(self):
        matched = match_images(["a.jpg"], ["x/a.jpg", "y/a.jpg"])
        assert "several files could be it" in matched.missing["a.jpg"]

    def test_files_are_searched_whole_without_hidden_ones(self, tmp_path):
        for name in ("b/2.JPG", "1.png", ".hidden/3.jpg", "b/.4.jpg", "notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert find_image_files(tmp_path) == ["1.png", "b/2.JPG"]

    def test_a_folder_without_images_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="no image in it"):
            find_image_files(tmp_path)
        with pytest.raises(DataError, match="no such folder"):
            find_image_files(tmp_path / "none")
