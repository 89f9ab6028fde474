"""The runs in jobs/runs against Table 3 of the paper, and what their loader refuses."""

from pathlib import Path

import pytest

from dsdi_ray.distributed.paper_models import MODELS
from dsdi_ray.errors import ConfigError
from dsdi_ray.submissions import load_submission, load_submissions

RUNS = Path(__file__).resolve().parents[2] / "jobs" / "runs"

# Submission, mAP, the paper's description.
TABLE_3 = """
VAS 2     | 0.383 | 10 models + NIIICT model (2:1)
NII_UIT 1 | 0.374 | 10 models + NIIICT model (5:1)
VAS 4     | 0.360 | 12 models ensemble
VAS 1     | 0.359 | VAS 4 + VAS 3 ensemble
VAS 3     | 0.355 | 10 models ensemble
NII_UIT 2 | 0.248 | Model-D13 (single model)
"""
ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE_3.strip().splitlines()]
# "Model A01-C04/C06-C09/C11-C12" and "the model from A01-C12".
TEN = ("a01", "b02", "c03", "c04", "c06", "c07", "c08", "c09", "c11", "c12")
TWELVE = MODELS[:-1]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_submission_is_its_row_of_the_paper(row):
    name, mean_ap, description = row
    submission = load_submission(RUNS / f"{name.lower().replace(' ', '_')}.yaml")
    assert submission.name == name.lower().replace(" ", "_")
    assert submission.paper.model_dump() == {
        "submission": name,
        "map": float(mean_ap),
        "description": description,
    }


def test_ensembles_and_fusions_are_made_as_the_paper_says():
    by_name = {one.name: one for one in load_submissions(RUNS)}
    assert set(by_name) == {row[0].lower().replace(" ", "_") for row in ROWS}
    assert by_name["vas_3"].ensemble == TEN
    assert by_name["vas_4"].ensemble == TWELVE
    assert by_name["nii_uit_2"].ensemble == ("d13",)
    parts = {
        name: [(part.run or part.outside, part.weight) for part in by_name[name].fused_parts]
        for name in ("vas_1", "vas_2", "nii_uit_1")
    }
    assert parts == {
        "vas_1": [("vas_4", 1), ("vas_3", 1)],
        "vas_2": [("vas_3", 2), ("NIIICT", 1)],
        "nii_uit_1": [("vas_3", 5), ("NIIICT", 1)],
    }
    assert {one.fusion.normalisation for one in by_name.values() if one.fusion} == {"none"}


def test_every_member_that_a_submission_names_is_a_recipe():
    recipes = {path.stem for path in (RUNS.parent / "recipes").glob("*.yaml")}
    named = {member for one in load_submissions(RUNS) for member in one.ensemble or ()}
    assert named == set(MODELS)
    assert named <= recipes


def test_a_submission_comes_after_those_that_it_is_fused_of(tmp_path):
    (tmp_path / "a.yaml").write_text(fusion("a", "{run: b}, {run: c, weight: 2}"))
    (tmp_path / "b.yaml").write_text(fusion("b", "{run: c}, {outside: other}"))
    (tmp_path / "c.yaml").write_text("name: c\nensemble: [x]\n")
    assert [one.name for one in load_submissions(tmp_path)] == ["c", "b", "a"]


def fusion(name, parts):
    return f"name: {name}\nfusion: {{parts: [{parts}]}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nensemble: [a]\nfusoin: {}\n", "fusoin: unknown key; did you mean fusion?"),
        ("ensemble: [a]\n", "name: must be given"),
        ("name: x\n", "must have either `ensemble` or `fusion`"),
        ("name: x\nensemble: [a, b, a]\n", "ensemble names a twice"),
        ("name: x\nensemble: []\n", r"ensemble: tuple should have at least 1 item"),
        (fusion("x", "{run: a}"), "fusion.parts: tuple should have at least 2 items"),
        (fusion("x", "{run: a, weight: 0}, {run: b}"), "weight: input should be greater than 0"),
        (fusion("x", "{run: a, outside: b}, {run: c}"), "must name either `run` or `outside`"),
        ("name: x\npaper: {submission: X, map: 38.3, description: d}\nensemble: [a]\n",
         "paper.map: input should be less than or equal to 1, got 38.3"),
        ("- a\n", "must be a mapping of keys"),
        ("name: [\n", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_by_its_key_and_rule(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_submission(path)
    assert str(path) in str(caught.value)


def test_fusions_of_runs_that_are_not_there_or_of_themselves_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no submission in it"):
        load_submissions(tmp_path)
    (tmp_path / "a.yaml").write_text(fusion("a", "{run: vas3}, {outside: o}"))
    (tmp_path / "b.yaml").write_text("name: vas_3\nensemble: [x]\n")
    with pytest.raises(ConfigError, match="no run is named vas3; did you mean vas_3?"):
        load_submissions(tmp_path)
    (tmp_path / "a.yaml").write_text(fusion("a", "{run: vas_3}, {run: c}"))
    (tmp_path / "c.yaml").write_text(fusion("c", "{run: a}, {outside: o}"))
    with pytest.raises(ConfigError, match="submission a: is fused of itself: a <- c <- a"):
        load_submissions(tmp_path)
    (tmp_path / "c.yaml").write_text("name: a\nensemble: [x]\n")
    with pytest.raises(ConfigError, match="another file is named a too"):
        load_submissions(tmp_path)
