"""Preparing a set on a real local Ray."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsdi_ray.distributed.prepare import prepare_set
from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.soft_labels import encode_soft_labels
from dsdi_ray.storage.prepared import PreparedSet, labels_matrix
from dsdi_ray.taxonomy import load_taxonomy

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

TAXONOMY = load_taxonomy("ladi_v1")
ANSWERS = ("['damage:flood/water', 'damage:washout']", "['damage:none']", "['damage:flood/water']")
NUM_IMAGES = 300  # three image files


@pytest.fixture(scope="module")
def crowd(tmp_path_factory) -> tuple[Path, Path]:
    """Answers and images: 300 good ones, a missing one, three that do not decode."""
    root = tmp_path_factory.mktemp("crowd")
    images = root / "images"
    random = np.random.default_rng(0)
    rows = ["url\tWorkerId\tAnswer"]
    for i in range(NUM_IMAGES + 4):
        folder = images / "9073" / str(i % 5)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{i:04d}.jpg"
        if i < NUM_IMAGES:
            noise = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((80, 60)).save(file)
        url = f"https://host/Images/FEMA_CAP/{file.relative_to(images)}"
        rows += [f"{url}\tW{w}\t{answer}" for w, answer in enumerate(ANSWERS)]
    (images / f"9073/0/{NUM_IMAGES:04d}.jpg").touch()
    (images / f"9073/1/{NUM_IMAGES + 1:04d}.jpg").write_bytes(b"no picture")
    good = (images / "9073/0/0000.jpg").read_bytes()
    (images / f"9073/2/{NUM_IMAGES + 2:04d}.jpg").write_bytes(good[: len(good) // 2])
    url = "https://host/Images/FEMA_CAP/9073/0/0000.jpg"
    rows += [f"{url}\tW9\t['damage:meteor']", f"{url}\tW9\t['damage"]
    answers = root / "answers.tsv"
    answers.write_text("\n".join(rows) + "\n")
    return answers, images


def prepare(crowd, out, **settings):
    answers, images = crowd
    return prepare_set(answers, images=images, out=out, taxonomy=TAXONOMY, **settings)


@pytest.fixture(scope="module")
def prepared(crowd, local_ray, tmp_path_factory):
    return prepare(crowd, tmp_path_factory.mktemp("prepared") / "set", short_side_px=40)


def test_every_image_is_in_the_set_or_in_the_report(prepared):
    assert prepared.num_images == NUM_IMAGES
    assert (prepared.num_missing, prepared.num_unreadable, prepared.num_bad_rows) == (1, 3, 1)
    assert prepared.num_train + prepared.num_validation == NUM_IMAGES
    assert abs(prepared.num_validation - 0.2 * NUM_IMAGES) <= 3
    assert prepared.unknown_strings == {"damage:meteor": 1}

    report = json.loads((prepared.out / "report.json").read_text())
    assert [m["image_id"][-8:] for m in report["missing_images"]] == [f"{NUM_IMAGES + 3:04d}.jpg"]
    reasons = [u["reason"] for u in report["unreadable_images"]]
    assert "empty" in reasons[0]
    assert "not an image" in reasons[1]
    assert "truncated" in reasons[2]
    assert report["bad_row_list"][0]["line"] == 3 * (NUM_IMAGES + 4) + 3
    assert report["answers_per_class"]["flooding / water damage"] == 2 * (NUM_IMAGES + 4)
    assert report["images_per_class_by_majority"]["flooding / water damage"] == NUM_IMAGES + 3
    assert report["images_by_number_of_answers"] == {"3": NUM_IMAGES + 3, "4": 1}


def test_labels_are_the_soft_labels_of_the_counts_and_images_have_their_size(prepared):
    table = PreparedSet.open(prepared.out).read()
    counts = labels_matrix(table, "answer_counts")
    np.testing.assert_array_equal(labels_matrix(table, "soft_label"), encode_soft_labels(counts))
    soft = dict(zip(TAXONOMY.class_names, labels_matrix(table, "soft_label")[0], strict=True))
    assert (soft["flooding / water damage"], soft["road washout"], soft["trees"]) == (1, 0.5, 0)
    num_asked = labels_matrix(table, "num_asked")
    is_damage = [c.category == "damage" for c in TAXONOMY.classes]
    assert (num_asked[0] == 4 * np.array(is_damage)).all()
    assert (num_asked[1:] == 3 * np.array(is_damage)).all()
    assert set(table["height"].to_pylist()) == {40}
    assert table["image_id"].to_pylist() == sorted(table["image_id"].to_pylist())
    assert table["group"][0].as_py() == "Images/FEMA_CAP/9073/0"


def test_the_same_inputs_are_not_prepared_again(crowd, prepared):
    again = prepare(crowd, prepared.out, short_side_px=40)
    assert again.reused
    assert again.seconds < 2
    assert (again.prepared_id, again.num_images) == (prepared.prepared_id, prepared.num_images)


def test_the_same_inputs_elsewhere_give_the_same_set(crowd, prepared, tmp_path):
    other = prepare(crowd, tmp_path / "set", short_side_px=40)
    assert not other.reused
    assert other.prepared_id == prepared.prepared_id
    assert PreparedSet.open(other.out).read().equals(PreparedSet.open(prepared.out).read())
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_other_settings_replace_a_set_only_when_told_to(crowd, tmp_path):
    first = prepare(crowd, tmp_path / "set", short_side_px=32)
    with pytest.raises(DataError, match="choose another folder or --overwrite"):
        prepare(crowd, tmp_path / "set", short_side_px=32, split_seed=1)
    second = prepare(crowd, tmp_path / "set", short_side_px=32, split_seed=1, overwrite=True)
    assert second.prepared_id != first.prepared_id
    assert PreparedSet.open(second.out).settings["split_seed"] == 1


def test_a_preparation_that_was_killed_leaves_no_set_and_is_done_again(crowd, tmp_path):
    partial = tmp_path / ".set.partial"
    partial.mkdir()
    (partial / "images-99999999.parquet").write_bytes(b"half")
    with pytest.raises(DataError, match="not a prepared set"):
        PreparedSet.open(tmp_path / "set")
    summary = prepare(crowd, tmp_path / "set", short_side_px=32)
    assert len(PreparedSet.open(summary.out).read(["image_id"])) == NUM_IMAGES


def test_folders_stay_together_when_the_split_is_by_group(crowd, tmp_path):
    summary = prepare(crowd, tmp_path / "set", short_side_px=32, split_by="group")
    table = PreparedSet.open(summary.out).read(["group", "split"])
    pairs = set(zip(table["group"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert len(pairs) == 5
    assert summary.num_validation == NUM_IMAGES / 5


def test_a_set_without_any_image_is_refused_and_leaves_nothing(crowd, tmp_path):
    answers, images = crowd
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "elsewhere" / "x.jpg")
    with pytest.raises(DataError, match="none of the 304 labelled images is there, such as Images"):
        prepare((answers, tmp_path / "elsewhere"), tmp_path / "set")
    broken = tmp_path / "broken"
    for file in images.rglob("030[0-2].jpg"):
        (broken / file.name).parent.mkdir(exist_ok=True)
        (broken / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="none of the 3 images can be read"):
        prepare((answers, broken), tmp_path / "set")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "elsewhere"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"short_side_px": 8}, "short_side_px must be at least 32, got 8"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \[0, 1\), got 1.0"),
        ({"split_by": "year"}, "split_by must be image or group, got 'year'"),
    ],
)
def test_a_setting_out_of_range_is_refused(crowd, tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        prepare(crowd, tmp_path / "set", **setting)
