"""What becomes of submissions: made of the runs that are there, or not made, and why."""

import numpy as np
import pyarrow as pa
import pytest

from dsdi_ray.distributed.score import ScoreSummary
from dsdi_ray.distributed.submission_runs import (
    make_submissions,
    scores_identity,
    submission_result,
)
from dsdi_ray.report.evaluation import evaluate_run
from dsdi_ray.storage.fused_runs import WeightedRun
from dsdi_ray.storage.runs import ranked_run, read_run, run_metadata
from dsdi_ray.submissions import Submission
from dsdi_ray.taxonomy import taxonomy_from_dict

TAXONOMY = taxonomy_from_dict({"name": "two", "classes": ["flood", "boat"]})
CLIPS = [f"clip_{i}" for i in range(6)]
SUBMISSIONS = [
    Submission.model_validate(values)
    for values in (
        {"name": "ten", "ensemble": ["a01", "b02", "c03"]},
        {"name": "twelve", "ensemble": ["a01"]},
        {"name": "both", "fusion": {"parts": [{"run": "ten"}, {"run": "twelve"}]}},
        {"name": "with_other",
         "paper": {"submission": "WITH", "map": 0.383, "description": "2:1"},
         "fusion": {"parts": [{"run": "twelve", "weight": 2}, {"outside": "NIIICT"}]}},
    )
]  # fmt: skip


def run_of(seed):
    scores = np.random.default_rng(seed).random((6, 2))
    return ranked_run(CLIPS, scores, None, features=TAXONOMY)


def make(tmp_path, ranked, **changes):
    options = {"untrained": {}, "outside": None, "normalisation": None} | changes
    made = make_submissions(
        SUBMISSIONS, ranked, out=tmp_path / "runs", taxonomy=TAXONOMY, **options
    )
    return {one.submission.name: one for one in made}


def test_all_are_made_where_all_runs_are_there(tmp_path):
    outside = WeightedRun(name="o.trec", run=run_of(3), weight=1.0)
    made = make(tmp_path, {"ten": run_of(1), "twelve": run_of(2)}, outside=outside)
    assert [one.problem for one in made.values()] == [None] * 4
    fused = read_run(made["with_other"].path)
    assert fused.equals(made["with_other"].run)
    assert run_metadata(fused) == {"fused": "twelve:2, o.trec:1", "normalisation": "none"}
    assert {file.name for file in made["both"].path.parent.iterdir()} == {
        "run.parquet",
        "run.trec",
        "run.xml",
    }
    assert not list((tmp_path / "runs").glob(".*"))


def test_what_lacks_members_or_an_outside_run_says_so(tmp_path):
    made = make(
        tmp_path, {"twelve": run_of(2)}, untrained={"b02": "no weights", "c03": "was left out"}
    )
    assert {name: one.problem for name, one in made.items()} == {
        "ten": "lacks 2 of its 3 members (B02: no weights; C03: was left out)",
        "twelve": None,
        "both": "TEN was not made",
        "with_other": "the run of NIIICT is not given (--outside-run FILE)",
    }
    assert not (tmp_path / "runs").exists()
    result = submission_result(made["with_other"], None)
    assert (result.name, result.paper_map, result.map) == ("WITH_OTHER", 0.383, None)
    assert result.made_of == "TWELVE x 2 + NIIICT x 1"


def test_another_normalisation_counts_for_fusions_with_the_outside_run_alone(tmp_path):
    outside = WeightedRun(name="o", run=run_of(3), weight=1.0)
    made = make(
        tmp_path, {"ten": run_of(1), "twelve": run_of(2)}, outside=outside, normalisation="rank"
    )
    kinds = {
        n: run_metadata(read_run(made[n].path))["normalisation"] for n in ("both", "with_other")
    }
    assert kinds == {"both": "none", "with_other": "rank"}


def test_a_made_submission_is_evaluated(tmp_path):
    made = make(tmp_path, {"ten": run_of(1), "twelve": run_of(2)})
    evaluation = evaluate_run(made["both"].run, {"1": {"clip_0": 1}, "2": {"clip_1": 1}})
    result = submission_result(made["both"], evaluation)
    assert result.map == pytest.approx(evaluation.map)
    assert 0 < result.chance < 1


def test_scores_are_others_when_clips_or_outcomes_are(tmp_path):
    manifest = pa.table({"clip_id": ["a", "b"], "content_id": ["1", "2"]})
    counts = {
        "num_clips": 2, "num_ok": 2, "num_partial": 0, "num_failed": 0, "num_clips_scored": 0,
        "num_pairs_present": 2, "num_pairs_missing": 0, "num_frames": 0, "footage_hours": 0.0,
        "seconds": 1.0, "estimated_seconds": None, "reasons": {}, "partial_reasons": {}, "decoders": {}, "shares": {},
        "limited_by": None, "dry_run": False,
    }  # fmt: skip
    scored = ScoreSummary(**counts)
    first = scores_identity(manifest, scored)
    assert (
        scores_identity(manifest.take([1, 0]), ScoreSummary(**counts | {"seconds": 2.0})) == first
    )
    assert scores_identity(manifest.slice(1), scored) != first
    changed = ScoreSummary(**counts | {"num_ok": 1, "num_failed": 1})
    assert scores_identity(manifest, changed) != first
