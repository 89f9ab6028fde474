import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from validated_members import TAXONOMY, write_validated_member

from dsdi_ray.distributed.ensemble_selection import SelectionSettings, select_ensemble
from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.fusion import ensemble_frames
from dsdi_ray.method.metrics import average_precisions, lrap
from dsdi_ray.method.selection import divide_images
from dsdi_ray.storage.bundles import read_ensemble
from dsdi_ray.storage.member_library import find_bundles, read_library
from dsdi_ray.storage.validation_logits import read_validation, write_validation


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    for i, noise in enumerate((1.0, 2.0, 1.2, 3.0, 1.1, 0.9)):
        write_validated_member(folder / f"m{i}", seed=i, noise=noise)
    return folder


def select(folder, out, **settings):
    library = read_library(find_bundles([folder]))
    return select_ensemble(library, SelectionSettings(**settings), out=out)


def judged(metric, bundles, weights, is_in):
    """The metric of an ensemble bundle, by scikit-learn, from what its members' files say."""
    own = [read_validation(bundle) for bundle in bundles]
    logits = np.stack([one.logits[is_in] for one in own])
    scores = ensemble_frames(logits, np.array(weights))
    labels = own[0].soft_labels[is_in]
    if metric == "lrap":
        return lrap(labels, scores)
    features = [c for c in range(len(TAXONOMY)) if c not in TAXONOMY.none_indices]
    return np.nanmean(average_precisions(labels[:, features], scores[:, features]))


@pytest.mark.parametrize("metric", ["map", "lrap"])
@pytest.mark.parametrize("weights", ["equal", "free"])
def test_the_report_tells_of_the_bundle_what_scikit_learn_does(members, tmp_path, metric, weights):
    report = select(members, tmp_path / "e", size=3, metric=metric, weights=weights)
    ensemble = read_ensemble(tmp_path / "e")
    assert [m.member_id for m in ensemble.members] == [m.member_id for m in report.chosen]
    held_back, _ = divide_images(read_validation(members / "m0").image_ids, [None] * 80, seed=0)
    for half, name in ((~held_back, "selecting"), (held_back, "held_back")):
        told = [getattr(system, name) for system in report.compared]
        every = [members / f"m{i}" for i in range(6)]
        alone = [judged(metric, [path], [1.0], half) for path in every]
        best = report.compared[0].system.removeprefix("best single member (").rstrip(")")
        assert told == pytest.approx(
            [
                alone[int(best[1:])],
                judged(metric, every, [1.0] * 6, half),
                judged(
                    metric,
                    [m.path for m in ensemble.members],
                    [m.weight for m in ensemble.members],
                    half,
                ),
            ],
            abs=1e-12,
        )
        if name == "selecting":
            assert told[0] == pytest.approx(max(alone))
    assert (report.num_selecting, report.num_held_back, report.divided_by) == (40, 40, "image")


def test_steps_add_up_and_all_of_it_is_written(members, tmp_path):
    report = select(members, tmp_path / "e", size=4)
    steps = pq.read_table(tmp_path / "e" / "selection.parquet").to_pylist()
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert steps[0]["gain"] is None
    for before, after in pairwise(steps):
        assert after["selecting"] == pytest.approx(before["selecting"] + after["gain"])
    assert steps[-1]["selecting"] == pytest.approx(report.compared[2].selecting)
    assert steps[-1]["held_back"] == pytest.approx(report.compared[2].held_back)
    told = json.loads((tmp_path / "e" / "selection.json").read_text())
    assert told["settings"] == {
        "size": 4, "metric": "map", "weights": "equal", "initial": 1, "bags": 1, "seed": 0,
    }  # fmt: skip
    assert [m["member"] for m in told["chosen"]] == [m.member for m in report.chosen]
    correlation = np.array(told["correlation"])
    assert correlation == pytest.approx(correlation.T)
    assert np.diag(correlation) == pytest.approx(np.ones(4))
    assert told["beats_best_single"] == report.beats_best_single


def test_the_same_command_writes_the_same(members, tmp_path):
    for out in ("a", "b"):
        select(members, tmp_path / out, size=3, weights="free", bags=5, seed=4)
    for file in ("selection.parquet", "ensemble.yaml"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_selection_that_is_no_better_on_other_images_says_so(tmp_path):
    """One member knows the labels, all others are noise: no ensemble of two beats it."""
    write_validated_member(tmp_path / "m" / "good", seed=0, noise=0.1)
    for i in range(4):
        write_validated_member(tmp_path / "m" / f"noise{i}", seed=1 + i, noise=50.0)
    report = select(tmp_path / "m", tmp_path / "e", size=2)
    assert not report.beats_best_single
    assert any(
        note.startswith(
            "on the images held back the selection does not beat the best single member (good): map"
        )
        for note in report.notes
    )
    alone = select(tmp_path / "m", tmp_path / "free", size=5, weights="free")
    assert [m.member for m in alone.chosen] == ["good"]


def test_groups_that_cannot_be_divided_and_other_encodings_are_noted(tmp_path):
    groups = ["flight"] * 80
    write_validated_member(tmp_path / "a", seed=0, groups=groups)
    write_validated_member(tmp_path / "b", seed=1, groups=groups, encoding="majority")
    report = select(tmp_path, tmp_path / "e", size=1)
    text = " ".join(report.notes)
    assert "the images were divided one by one" in text
    assert (
        "1 of 2 members learnt labels of another encoding, such as b; all are judged by those"
        in (text)
    )


def test_settings_and_images_that_allow_no_choice_are_refused(members, tmp_path):
    with pytest.raises(ConfigError, match="metric must be one of map, lrap, got 'f1'"):
        select(members, tmp_path / "e", metric="f1")
    with pytest.raises(ConfigError, match="size must be from 1 to 6"):
        select(members, tmp_path / "e", size=7)
    assert not (tmp_path / "e").exists()
    write_validated_member(tmp_path / "blank", seed=0)
    own = read_validation(tmp_path / "blank")
    write_validation(tmp_path / "blank", replace(own, soft_labels=0 * own.soft_labels))
    with pytest.raises(DataError, match="the 40 images that are chosen on: no image shows any"):
        select(tmp_path / "blank", tmp_path / "e", size=1)


def test_what_nobody_was_asked_about_counts_for_no_member(tmp_path):
    """The better member is wrong only where nobody was asked."""
    for name, noise in (("good", 0.01), ("bad", 1.5)):
        write_validated_member(tmp_path / name, seed=len(name), noise=noise)
        own = read_validation(tmp_path / name)
        is_asked = np.arange(len(own.image_ids))[:, None] % 2 == np.arange(len(TAXONOMY)) % 2
        labels = np.where(is_asked, own.soft_labels, 0).astype(np.float32)
        logits = own.logits
        if name == "good":
            logits = np.where(is_asked, logits, 99).astype(np.float32)
        changed = replace(own, is_asked=is_asked, soft_labels=labels, logits=logits)
        write_validation(tmp_path / name, changed)
    library = read_library([(tmp_path / name, name) for name in ("good", "bad")])
    report = select_ensemble(library, SelectionSettings(size=1), out=tmp_path / "e")
    assert [member.member for member in report.chosen] == ["good"]
    assert report.chosen[0].selecting == pytest.approx(1)
