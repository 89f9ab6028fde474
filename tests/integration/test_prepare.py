"""Preparing a set on a real local Ray."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

from dsdi_ray.distributed.prepare import prepare_set
from dsdi_ray.errors import DataError, UserError
from dsdi_ray.method.soft_labels import encode_soft_labels
from dsdi_ray.storage.prepare_plan import PrepareSettings
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


def prepare(crowd, out, *, overwrite=False, dry_run=False, metadata=None, **settings):
    answers, images = crowd
    return prepare_set(
        answers,
        images=[images],
        out=out,
        taxonomy=TAXONOMY,
        settings=PrepareSettings(**settings),
        metadata=metadata,
        overwrite=overwrite,
        dry_run=dry_run,
    )


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
    flooding = report["classes"]["flooding / water damage"]
    assert flooding["answers"] == 2 * NUM_IMAGES
    assert flooding["images_asked"] == NUM_IMAGES
    assert flooding["images_by_majority"] == NUM_IMAGES - 1  # of the first, two of four
    assert abs(flooding["of_these_in_train"] - prepared.num_train) <= 1
    assert report["duplicates"] == []
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
    assert table["group"].null_count == NUM_IMAGES


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


@pytest.mark.parametrize(("split", "num_units"), [("folder", 5), ("flight", 5), ("event", 1)])
def test_what_a_split_goes_by_stays_together(crowd, tmp_path, split, num_units):
    summary = prepare(crowd, tmp_path / "set", short_side_px=32, split=split)
    table = PreparedSet.open(summary.out).read(["group", "split"])
    pairs = set(zip(table["group"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert len(pairs) == num_units
    assert summary.num_validation == (NUM_IMAGES / 5 if num_units > 1 else 0)


def test_copies_of_a_file_are_one_unit_and_listed(crowd, tmp_path):
    answers, images = crowd
    copy = tmp_path / "images"
    shutil.copytree(images, copy)
    for folder in (1, 2, 3, 4):
        shutil.copy(copy / "9073/0/0000.jpg", copy / f"9073/{folder}/{folder:04d}.jpg")
    table = None
    for seed in range(3):
        summary = prepare(
            (answers, copy), tmp_path / f"set{seed}", short_side_px=32, split_seed=seed
        )
        table = PreparedSet.open(summary.out).read(["image_id", "group", "split"])
        assert len(set(table.filter(pc.is_valid(table["group"]))["split"].to_pylist())) == 1
    report = PreparedSet.open(summary.out).report
    (names,) = report["duplicates"]
    assert [name[-8:] for name in names] == [f"{i:04d}.jpg" for i in range(5)]
    assert report["duplicates_on_both_sides"] == 0
    assert report["split_units"] == NUM_IMAGES - 4
    assert set(table["group"].drop_null().to_pylist()) == {names[0]}


def test_metadata_say_where_and_when_and_which_file(crowd, tmp_path):
    _, images = crowd
    url = "https://other/Images/FEMA_CAP/9073/0/00{:02d}.jpg"
    content = (images / "9073/0/0000.jpg").read_bytes()
    sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    (tmp_path / "metadata.csv").write_text(
        ",uuid,timestamp,gps_lat,gps_lon,s3_path,url\n"
        f"1,{sha1},2017-09-10 14:07:06,29.7,-95.6,,"
        f"{url.format(0)}\n2,{'0' * 40},,,,,{url.format(5)}\n3,no image,,,,,\n"
    )
    summary = prepare(crowd, tmp_path / "set", short_side_px=32, metadata=tmp_path / "metadata.csv")
    prepared = PreparedSet.open(summary.out)
    row = prepared.read(["capture_time", "latitude", "longitude"]).slice(0, 1).to_pylist()[0]
    assert tuple(row.values()) == ("2017-09-10T14:07:06", 29.7, -95.6)
    assert len(prepared.report["missing_metadata"]) == NUM_IMAGES + 4 - 2
    assert [i[-8:] for i in prepared.report["not_the_file_of_the_metadata"]] == ["0005.jpg"]


def test_images_in_tars_make_the_same_set(crowd, prepared, tmp_path):
    answers, images = crowd
    for number in (0, 1):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for file in sorted(images.rglob("*.jpg"))[number::2]:
                tar.add(file, file.relative_to(images.parent))
    summary = prepare_set(
        answers,
        images=[tmp_path / "0.tar", tmp_path / "1.tar"],
        out=tmp_path / "set",
        taxonomy=TAXONOMY,
        settings=PrepareSettings(short_side_px=40),
    )
    assert summary.prepared_id == prepared.prepared_id
    assert summary.num_unreadable == 3


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(crowd, tmp_path):
    summary = prepare(crowd, tmp_path / "set", short_side_px=32, dry_run=True)
    assert (summary.num_labelled, summary.num_missing) == (NUM_IMAGES + 4, 1)
    assert (summary.num_done_before, summary.num_to_do) == (0, NUM_IMAGES + 3)
    assert 0 < summary.estimated_seconds < 100
    assert not list(tmp_path.iterdir())


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
        (
            {"split": "year"},
            "split must be one of random, event, flight, folder, given, got 'year'",
        ),
        ({"max_gap_minutes": 0}, "max_gap_minutes must be above 0, got 0"),
        ({"split": "given"}, "there is no column split"),
    ],
)
def test_a_setting_out_of_range_is_refused(crowd, tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        prepare(crowd, tmp_path / "set", **setting)
