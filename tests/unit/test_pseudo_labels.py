"""Pseudo-labels: which classes of which images count, and what a set takes in."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.pseudo_labels import pseudo_labels, surest_images
from dsdi_ray.storage.bundles import EnsembleMember, EnsembleSpec, MemberSpec
from dsdi_ray.storage.prepared import PreparedSet, labels_matrix, labels_schema
from dsdi_ray.storage.prepared_files import (
    OUTCOME_SCHEMA,
    PartialSet,
    publish_set,
    write_images,
)
from dsdi_ray.storage.pseudo_plan import PseudoSettings, plan_pseudo_labels
from dsdi_ray.storage.pseudo_set import describe_pseudo_set, known_hashes, picture_hashes
from dsdi_ray.taxonomy import taxonomy_from_dict

TAXONOMY = taxonomy_from_dict({"name": "two", "classes": ["a", "b"]})
PROBS = arrays(np.float64, (6, 3), elements=st.floats(0, 1))


def test_what_is_sure_is_told_and_what_is_in_between_is_not():
    probs = np.array([[0.95, 0.5, 0.02], [0.9, 0.1, 0.11], [0.89, 0.0, 0.0], [0.5, 0.5, 0.5]])
    labels = pseudo_labels(probs, confident=0.9, reject=0.1)
    assert labels.is_told.tolist() == [
        [True, False, True],
        [True, True, False],
        [False, True, True],
        [False, False, False],
    ]
    assert labels.is_kept.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(labels.soft_labels, probs.astype(np.float32))


@given(PROBS)
def test_each_image_is_labelled_as_if_it_were_alone(probs):
    together = pseudo_labels(probs)
    for i in range(len(probs)):
        alone = pseudo_labels(probs[i : i + 1])
        assert alone.is_told[0].tolist() == together.is_told[i].tolist()
        assert alone.is_kept[0] == any(p >= 0.9 for p in probs[i])


@pytest.mark.parametrize(
    "limits",
    [
        {"confident": 0.1, "reject": 0.1},
        {"confident": 1.1, "reject": 0.1},
        {"confident": 0.9, "reject": -0.1},
        {"confident": float("nan"), "reject": 0.1},
    ],
)
def test_thresholds_that_make_no_sense_are_refused(limits):
    with pytest.raises(ConfigError, match="need 0 <= reject < confident <= 1, got reject"):
        pseudo_labels(np.zeros((1, 2)), **limits)
    with pytest.raises(ConfigError, match="need 0 <= reject"):
        PseudoSettings(**limits)


@pytest.mark.parametrize("probs", [np.zeros(3), np.array([[np.nan]]), np.array([[1.5]])])
def test_what_is_no_probability_is_refused(probs):
    with pytest.raises(ValueError, match="probs must be"):
        pseudo_labels(probs)


def test_a_limit_takes_the_surest_of_each_class_in_turn():
    probs = np.array([[0.99, 0.0], [0.98, 0.0], [0.97, 0.0], [0.0, 0.91], [0.0, 0.5], [0.96, 0.92]])
    kept = [surest_images(probs, confident=0.9, max_images=n).tolist() for n in (1, 2, 3, 4, 5, 99)]
    assert kept == [[0], [0, 5], [0, 1, 5], [0, 1, 3, 5], [0, 1, 2, 3, 5], [0, 1, 2, 3, 5]]


@given(PROBS, st.integers(1, 8))
def test_a_limit_takes_as_many_as_there_are_up_to_it_and_none_that_is_unsure(probs, limit):
    sure = np.flatnonzero(pseudo_labels(probs).is_kept).tolist()
    chosen = surest_images(probs, confident=0.9, max_images=limit).tolist()
    assert len(chosen) == min(limit, len(sure))
    assert set(chosen) <= set(sure)
    assert chosen == sorted(chosen)


def member(name, weight):
    spec = MemberSpec(backbone="b", input_px=32, mean=(0, 0, 0), std=(1, 1, 1), taxonomy=TAXONOMY)
    return EnsembleMember(path="/m", member_id=name, weight=weight, spec=spec)


def ensemble(*members):
    return EnsembleSpec(members=tuple(members), taxonomy=TAXONOMY)


ENSEMBLE = ensemble(member("m", 1.0))


def test_an_ensemble_is_known_by_its_members_and_their_shares():
    one, two = member("m", 1.0), member("n", 2.0)
    same = ensemble(member("n", 4.0), member("m", 2.0))
    assert ensemble(one, two).ensemble_id == same.ensemble_id
    others = [ensemble(one, member("n", 1.0)), ensemble(one), ensemble(two)]
    assert len({e.ensemble_id for e in (same, *others)}) == 4


def labelled_set(out, *, split="folder"):
    """Two flights of an event on one side and a flight on the other; a picture of two folders."""
    folders = ["FEMA_CAP/1/10", "FEMA_CAP/1/11", "FEMA_CAP/2/20", "FEMA_CAP/3/30"]
    rows = [
        {
            "image_id": f"{folder}/{i}.jpg",
            "jpeg": f"{folder}/{i}".encode(),
            "width": 1,
            "height": 1,
            "soft_label": [1.0, 0.0],
            "answer_counts": [3, 0],
            "num_asked": [3, 3],
            "split": "validation" if folder.startswith("FEMA_CAP/2") else "train",
            # The third folder is joined with the last one by a picture that they share.
            "group": "FEMA_CAP/1/10" if folder.endswith("30") else folder,
            "source_sha1": f"sha1 of {i}" if i else None,
        }
        for folder in folders
        for i in range(2)
    ]
    folder = out.with_name(f".{out.name}.partial")
    folder.mkdir()
    write_images(rows, folder / "images-00000000.parquet")
    spec = {
        "prepared_id": "p",
        "inputs_id": "i",
        "encoding": "max_count",
        "settings": {"split": split, "short_side_px": 64},
        "counts": {"images": 8, "train": 6, "validation": 2},
        "taxonomy": TAXONOMY.to_dict(),
    }
    labels = pa.Table.from_pylist(rows, schema=labels_schema(2))
    return publish_set(folder, out, labels=labels, spec=spec, report={"missing": 0})


def archive(*paths):
    rows = [
        {"clip_id": f"c{i}", "uri": f"/data/{path}", "content_id": f"content of {path}"}
        for i, path in enumerate(paths)
    ]
    columns = ("capture_time", "latitude", "longitude")
    table = pa.Table.from_pylist(rows)
    for name, kind in zip(columns, (pa.string(), pa.float64(), pa.float64()), strict=True):
        table = table.append_column(name, pa.nulls(len(table), kind))
    return table


def plan(prepared, images, probs=None, **settings):
    if probs is None:
        probs = np.tile([0.95, 0.05], (len(images), 1))
    return plan_pseudo_labels(
        prepared,
        images,
        np.array(probs, np.float64),
        ensemble=ENSEMBLE,
        settings=PseudoSettings(**settings),
        unscored={},
    )


def test_an_image_of_a_folder_that_is_held_back_is_left_out(tmp_path):
    prepared = labelled_set(tmp_path / "set")
    images = archive(
        "Images/FEMA_CAP/2/20/new.jpg",
        "Images/FEMA_CAP/1/11/new.jpg",
        "FEMA_CAP/2/99/new.jpg",
        "elsewhere/new.jpg",
    )
    made = plan(prepared, images)
    assert made.labels["image_id"].to_pylist() == ["pseudo/c1", "pseudo/c2", "pseudo/c3"]
    assert made.labels["group"].to_pylist() == ["FEMA_CAP/1/11", None, None]
    assert made.left_out == {"of an event, flight or folder that is held back for validation": 1}


def test_an_image_of_an_event_that_is_held_back_is_left_out_whatever_its_flight(tmp_path):
    prepared = labelled_set(tmp_path / "set", split="event")
    images = archive("x/FEMA_CAP/2/99/new.jpg", "x/FEMA_CAP/1/99/new.jpg")
    made = plan(prepared, images)
    assert made.labels["image_id"].to_pylist() == ["pseudo/c1"]


def test_labels_are_probabilities_and_a_mask_and_the_part_is_train(tmp_path):
    prepared = labelled_set(tmp_path / "set")
    probs = [[0.97, 0.5], [0.3, 0.92], [0.5, 0.5], [0.05, 0.95]]
    made = plan(prepared, archive(*"wxyz"), probs)
    assert made.labels["image_id"].to_pylist() == ["pseudo/c0", "pseudo/c1", "pseudo/c3"]
    np.testing.assert_allclose(
        labels_matrix(made.labels, "soft_label"), [[0.97, 0.5], [0.3, 0.92], [0.05, 0.95]]
    )
    assert labels_matrix(made.labels, "num_asked").tolist() == [[1, 0], [0, 1], [1, 1]]
    assert not labels_matrix(made.labels, "answer_counts").any()
    assert set(made.labels["split"].to_pylist()) == {"train"}
    assert set(made.labels["pseudo_labelled_by"].to_pylist()) == {ENSEMBLE.ensemble_id}
    assert made.store_as.short_side_px == 64
    assert made.left_out == {"no class is surely present (see --confident)": 1}
    assert made.rows["row"].to_pylist() == [1, 2, 3], "after the labelled images' file"


def test_copies_within_the_archive_count_once_and_a_limit_is_told(tmp_path):
    images = archive("a", "b", "a", "c")
    probs = [[0.91, 0.0], [0.99, 0.0], [0.91, 0.0], [0.95, 0.0]]
    made = plan(labelled_set(tmp_path / "set"), images, probs, max_images=2)
    assert made.labels["image_id"].to_pylist() == ["pseudo/c1", "pseudo/c3"]
    assert made.left_out == {
        "copies of another image of the archive": 1,
        "less sure than those taken (see --max-images)": 1,
    }


def test_nothing_to_take_is_an_error_with_the_reasons(tmp_path):
    prepared = labelled_set(tmp_path / "set")
    with pytest.raises(DataError, match="no image to pseudo-label: 1 no class is surely present"):
        plan(prepared, archive("a"), [[0.5, 0.5]])
    with pytest.raises(ConfigError, match="max_images must be at least 1, got 0"):
        PseudoSettings(max_images=0)


def test_the_inputs_are_known_by_all_that_the_set_depends_on(tmp_path):
    prepared = labelled_set(tmp_path / "set")
    plans = [
        plan(prepared, archive("a")),
        plan(prepared, archive("a"), [[0.96, 0.05]]),
        plan(prepared, archive("a"), confident=0.8),
        plan(prepared, archive("b")),
    ]
    assert plan(prepared, archive("a")).inputs_id == plans[0].inputs_id
    assert len({p.inputs_id for p in plans}) == 4


@pytest.fixture
def enlarged(tmp_path):
    """A set with two pseudo-labelled images of the three that were to be stored."""
    prepared = labelled_set(tmp_path / "set")
    images = archive("FEMA_CAP/1/11/n.jpg", "elsewhere/n.jpg", "FEMA_CAP/3/30/n.jpg", "gone.jpg")
    made = plan(prepared, images, [[0.95, 0.5], [0.9, 0.05], [0.05, 0.99], [0.99, 0.0]])
    parts = PartialSet.of(tmp_path / "more", made.inputs_id)
    parts.begin(tmp_path / "more")
    ids = made.labels["image_id"].to_pylist()
    pictures = [
        {"image_id": name, "jpeg": name.encode(), "width": 1, "height": 1} for name in ids[:3]
    ]
    outcomes = [
        {"image_id": name, "status": "stored", "jpeg_sha256": f"hash of {name}",
         "source_sha1": f"sha1 of {name}", "latitude": 1.5}
        for name in ids[:3]
    ]  # fmt: skip
    outcomes.append({"image_id": ids[3], "status": "missing", "reason": "no such file"})
    table = pa.Table.from_pylist(outcomes, schema=OUTCOME_SCHEMA)
    parts.write_part(made.rows["row"][0].as_py(), pictures, table)
    labels, spec, report = describe_pseudo_set(made, table, picture_hashes(prepared))
    parts.take_images(prepared)
    return prepared, parts.publish(tmp_path / "more", labels=labels, spec=spec, report=report)


def test_labelled_images_stay_as_they_are_and_the_others_follow(enlarged):
    prepared, more = enlarged
    before, after = prepared.read(), more.read()
    assert after.slice(0, len(before)).equals(before)
    added = after.slice(len(before))
    assert added["image_id"].to_pylist() == ["pseudo/c0", "pseudo/c1", "pseudo/c2"]
    assert added["jpeg"].to_pylist() == [b"pseudo/c0", b"pseudo/c1", b"pseudo/c2"]
    assert added["latitude"].to_pylist() == [1.5] * 3
    assert added["source_sha1"].to_pylist()[0] == "sha1 of pseudo/c0"
    assert (more.num_images, more.num_pseudo_labelled) == (11, 3)
    assert (more.counts["train"], more.counts["validation"]) == (9, 2)
    assert more.prepared_id != prepared.prepared_id
    assert PreparedSet.open(more.path).settings["pseudo_labels"]["labelled_set"] == "p"


def test_the_report_counts_per_class_and_what_was_left_out(enlarged):
    _, more = enlarged
    report = json.loads((more.path / "report.json").read_text())
    assert report["missing"] == 0, "of the labelled images, as before"
    facts = report["pseudo_labels"]
    assert facts["classes"] == {
        "a": {"present": 2, "absent": 1, "unsure": 0},
        "b": {"present": 1, "absent": 1, "unsure": 1},
    }
    assert facts["left_out"] == {"the file is gone": 1}
    assert facts["unreadable_images"] == [{"image_id": "pseudo/c3", "reason": "no such file"}]
    assert (facts["ensemble_id"], facts["images"]) == (ENSEMBLE.ensemble_id, 3)


def test_another_split_never_validates_on_pseudo_labels_nor_trains_on_what_it_holds_back(enlarged):
    prepared, more = enlarged
    seen = set()
    for seed in range(30):
        splits = more.split_again(seed)
        assert splits[:8] == prepared.split_again(seed), "as if there were no others"
        held_back = {i // 2 for i, split in enumerate(splits[:8]) if split == "validation"}
        first, free, last = splits[8:]
        assert first == (None if 1 in held_back else "train")
        assert free == "train"
        # The last folder goes with the first one, which shares a picture.
        assert (0 in held_back) == (3 in held_back)
        assert last == (None if 3 in held_back else "train")
        seen |= {first, last}
    assert seen == {None, "train"}


def test_a_set_with_pseudo_labels_is_not_the_start_of_another(enlarged):
    _, more = enlarged
    with pytest.raises(DataError, match="has pseudo-labelled images already"):
        plan(more, archive("a"))


def test_copies_of_labelled_images_are_known_by_their_picture_or_their_file(tmp_path):
    prepared = labelled_set(tmp_path / "set")
    pictures = picture_hashes(prepared)
    assert pictures[0] == hashlib.sha256(b"FEMA_CAP/1/10/0").hexdigest()
    assert known_hashes(prepared, pictures) == {*pictures, "sha1 of 1"}
