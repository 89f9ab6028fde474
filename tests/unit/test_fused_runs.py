"""Runs of several systems fused into one: the tables, and ``dsdi fuse`` on files of all formats."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from dsdi_ray.cli import app
from dsdi_ray.errors import DataError, UserError
from dsdi_ray.storage.fused_runs import WeightedRun, fuse_run_tables
from dsdi_ray.storage.runs import (
    ranked_run,
    read_run,
    run_metadata,
    run_of_scores,
    scores_of_run,
    write_run_files,
)
from dsdi_ray.taxonomy import load_taxonomy, taxonomy_from_dict

CLASSES = {
    "name": "three",
    "classes": [
        {"name": "flood", "feature": 7},
        {"name": "nothing", "none": True},
        {"name": "boat", "feature": 3},
    ],
}
TAXONOMY = taxonomy_from_dict(CLASSES)
LADI = load_taxonomy("ladi_v1")
CLIPS = [f"clip_{i}" for i in range(8)]


@pytest.fixture
def systems():
    rng = np.random.default_rng(0)
    return [ranked_run(CLIPS, rng.random((8, 3)), None, features=TAXONOMY) for _ in range(2)]


def parts(runs, weights):
    return [
        WeightedRun(name=f"run {i}", run=run, weight=weight)
        for i, (run, weight) in enumerate(zip(runs, weights, strict=True))
    ]


def test_two_runs_are_fused_2_to_1_and_ranked_anew(systems):
    fused = fuse_run_tables(parts(systems, [2, 1]), taxonomy=TAXONOMY, top=5)
    a, b, got = (scores_of_run(run) for run in (*systems, fused))
    for feature_id, by_clip in got.items():
        assert len(by_clip) == 5
        for clip_id, score in by_clip.items():
            expected = (2 * a[feature_id][clip_id] + b[feature_id][clip_id]) / 3
            assert score == pytest.approx(expected)
    assert set(fused["feature"].to_pylist()) == {"flood", "boat"}


def test_a_run_fused_with_itself_is_itself(systems):
    fused = fuse_run_tables(parts([systems[0]] * 2, [3, 1]), taxonomy=TAXONOMY)
    assert fused["clip_id"].equals(systems[0]["clip_id"])


def test_runs_of_another_archive_or_other_features_are_refused(systems):
    other = run_of_scores({3: {"elsewhere": 0.5}})
    with pytest.raises(DataError, match="run 0 and run 1 have no clip in common, such as 'clip_0'"):
        fuse_run_tables(parts([systems[0], other], [1, 1]))
    foreign = run_of_scores({1: {"clip_0": 0.5}})
    with pytest.raises(DataError, match="run 0 and run 1 have no feature in common, such as 3 and"):
        fuse_run_tables(parts([systems[0], foreign], [1, 1]))
    with pytest.raises(DataError, match="run run 1: feature 1 is not in taxonomy 'three'"):
        fuse_run_tables(parts([systems[0], foreign], [1, 1]), taxonomy=TAXONOMY)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_weights_out_of_range_are_refused(systems, weight):
    with pytest.raises(DataError, match="run run 1: weight must be above 0"):
        fuse_run_tables(parts(systems, [1.0, weight]))


def test_without_normalisation_scores_must_be_probabilities(systems):
    of_ranks = run_of_scores({3: {"clip_0": 1.0, "clip_1": 0.5, "clip_2": 1 / 3}, 7: {"clip_1": 1}})
    of_hundred = run_of_scores({3: {"clip_0": 0.4, "clip_1": 88.0}})
    for other, message in (
        (of_ranks, "run run 1: has ranks alone .* give --normalisation rank"),
        (of_hundred, "run run 1, feature 3, clip clip_1: score must be a probability .* got 88; "),
    ):
        with pytest.raises(DataError, match=message):
            fuse_run_tables(parts([systems[0], other], [2, 1]))
        fuse_run_tables(parts([systems[0], other], [2, 1]), normalisation="rank")
        fuse_run_tables(parts([other], [1]))  # alone it is only ranked anew
    of_one_clip = run_of_scores({3: {"clip_0": 1.0}})
    fuse_run_tables(parts([systems[0], of_one_clip], [2, 1]))


@pytest.fixture
def files(systems, tmp_path):
    """Both runs in all formats, and the taxonomy's file."""
    (tmp_path / "three.yaml").write_text(yaml.safe_dump(CLASSES))
    for name, run in zip("ab", systems, strict=True):
        write_run_files(run, tmp_path / name, taxonomy=TAXONOMY)
    return tmp_path


def fuse(files, *arguments):
    options = ["--taxonomy", str(files / "three.yaml"), "--out", str(files / "fused")]
    return CliRunner().invoke(app, ["fuse", *map(str, arguments), *options])


def test_the_command_fuses_files_and_writes_all_formats(files, systems):
    done = fuse(files, f"{files}/a/run.parquet:2", files / "b/run.trec", "--tag", "two", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert [(run["weight"], run["clips"]) for run in summary["runs"]] == [(2.0, 8), (1.0, 8)]
    assert (summary["clips"], summary["features"]) == (8, 2)
    expected = fuse_run_tables(parts(systems, [2, 1]), taxonomy=TAXONOMY)
    for file in summary["files"]:
        assert read_run(files / file)["clip_id"].to_pylist() == expected["clip_id"].to_pylist()
    fused = read_run(files / "fused" / "run.parquet")
    assert run_metadata(fused)["fused"] == f"{files}/a/run.parquet:2, {files}/b/run.trec:1"
    assert " two\n" in (files / "fused" / "run.trec").read_text()


def test_the_xml_says_what_a_submission_must(files):
    about = ["--team", "US", "--training-type", "O", "--priority", "2", "--description", "a & b"]
    for options, expected in (
        (about, 'trType="O" pid="US" priority="2" desc="a &amp; b"'),
        (["--tag", "two"], 'trType="L" pid="DSDI_RAY" priority="1" desc="two"'),
    ):
        done = fuse(files, files / "a/run.parquet", *options)
        assert done.exit_code == 0, done.output
        assert expected in (files / "fused" / "run.xml").read_text()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--tag", "my run", "tag must be one word without blanks, got 'my run'"),
        ("--tag", "", "tag must be one word"),
        ("--tag", "run\x01", "tag must be one word"),
        ("--team", "T\x01", "team 'T\\x01' has a character"),
        ("--description", "a\x02", "description 'a\\x02' has a character"),
    ],
)
def test_a_name_that_a_format_cannot_hold_is_refused_before_anything_is_written(
    files, option, value, message
):
    done = fuse(files, files / "a/run.parquet", option, value)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert not (files / "fused").exists()


def test_by_rank_the_format_of_a_run_does_not_matter(files):
    orders = []
    for suffix in ("parquet", "trec", "xml"):
        done = fuse(
            files, files / "a/run.parquet", files / f"b/run.{suffix}", "--normalisation", "rank"
        )
        assert done.exit_code == 0, done.output
        assert "Fused" in done.stdout
        orders.append(read_run(files / "fused" / "run.parquet")["clip_id"].to_pylist())
    assert orders[0] == orders[1] == orders[2]


def test_ranks_of_xml_are_not_added_to_probabilities(files):
    done = fuse(files, files / "a/run.parquet", files / "b/run.xml")
    assert isinstance(done.exception, DataError)
    assert "b/run.xml: has ranks alone" in str(done.exception)
    assert not (files / "fused").exists()


def test_an_outside_run_of_ranks_alone_is_refused_before_anything_is_trained(tmp_path):
    run = ranked_run(CLIPS, np.random.default_rng(0).random((8, 37)), None, features=LADI)
    xml = write_run_files(run, tmp_path / "outside", taxonomy=LADI)[-1]
    given = ["answers.tsv", "--images", "i", "--clips", "c", "--out", tmp_path / "new"]
    done = CliRunner().invoke(app, ["reproduce", *map(str, [*given, "--outside-run", xml])])
    assert isinstance(done.exception, DataError), done.output
    assert "has ranks alone" in str(done.exception)
    assert not (tmp_path / "new").exists()


def test_mistakes_are_named(files):
    for arguments, error, message in (
        (["no.trec"], DataError, "run no.trec: no such file"),
        ([f"{files}/a/run.trec:-2"], DataError, "weight must be above 0, got -2"),
    ):
        done = fuse(files, *arguments)
        assert isinstance(done.exception, error), done.output
        assert message in str(done.exception)
    assert not (files / "fused").exists()


def test_a_run_that_calls_features_otherwise_is_refused(systems):
    renamed = taxonomy_from_dict(
        {
            "name": "mine",
            "classes": [{"name": "boat", "feature": 3}, {"name": "fire", "feature": 7}],
        }
    )
    with pytest.raises(DataError, match=r"feature 7 is 'flood', in taxonomy 'mine' it is 'fire'"):
        fuse_run_tables(parts(systems, [1, 1]), taxonomy=renamed)
