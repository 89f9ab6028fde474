"""The paper's tables anew, at the smallest scale: one model on a made-up archive, twice."""

from pathlib import Path

import pytest

from dsdi_ray.cli.demo import jobs_folder, load_job
from dsdi_ray.distributed.paper_job import Inputs, PaperJob
from dsdi_ray.distributed.reproduction_plan import plan_reproduction
from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.storage.runs import read_run

pytestmark = [pytest.mark.ray, pytest.mark.nightly]
MODELS = ("d13",)


def job_in(out: Path) -> PaperJob:
    return PaperJob(out=out, jobs=jobs_folder(), scale="tiny", models=MODELS)


def times_of_change(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for name in ("archive", "prepared", "members", "scores/logits", "runs/alone")
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(local_ray, tmp_path_factory):
    out = tmp_path_factory.mktemp("paper")
    return out, load_job("reproduce_paper").run(job_in(out))


def test_what_can_be_made_is_made_and_the_rest_says_why(made):
    _, summary = made
    by_name = {one.name: one for one in summary.submissions}
    assert list(by_name) == ["VAS_2", "NII_UIT_1", "VAS_4", "VAS_1", "VAS_3", "NII_UIT_2"]
    d13 = by_name["NII_UIT_2"]
    assert (d13.paper_map, d13.problem) == (0.248, None)
    assert 0 < d13.map <= 1
    assert read_run(Path(d13.path)).num_rows == 32 * 4
    assert by_name["VAS_3"].problem.startswith("lacks 10 of its 10 members (A01: was left out; B02")
    assert by_name["VAS_2"].problem == "VAS_3 was not made"
    models = {one.model: one for one in summary.models}
    assert list(models) == ["D13"]
    assert models["D13"].clip_map == d13.map
    assert all(0 < one.lrap <= 1 and one.train_seconds > 0 for one in models.values())
    assert (summary.num_clips, summary.num_clips_failed, summary.num_clips_scored) == (4, 0, 4)


def test_the_page_has_both_figures_and_says_that_ours_are_not_comparable(made):
    _, summary = made
    page = summary.page.read_text("utf-8")
    for text in ("0.383", "0.824", f"{summary.models[0].lrap:.3f}", "VAS_3 was not made"):
        assert text in page
    assert page.count("must not be compared with the paper") >= 3
    assert page.count("data:image/png;base64,") == 2


def test_the_same_command_finds_all_complete(made):
    out, summary = made
    before = times_of_change(out)
    again = load_job("reproduce_paper").run(job_in(out))
    assert again.num_clips_scored == 0
    assert times_of_change(out) == before
    assert [one.map for one in again.submissions] == [one.map for one in summary.submissions]
    assert [one.train_seconds for one in again.models] == [
        one.train_seconds for one in summary.models
    ]


def test_a_dry_run_says_what_is_complete_and_changes_nothing(made, tmp_path):
    out, _ = made
    before = sorted(out.rglob("*"))
    plan = {(one.stage, one.part): one for one in plan_reproduction(job_in(out))}
    assert sorted(out.rglob("*")) == before
    left = {part or stage for (stage, part), one in plan.items() if not one.is_complete}
    assert left == {"vas_1", "vas_2", "vas_3", "vas_4", "nii_uit_1"}
    assert plan["train", "d13"].detail == "1 of 1 epochs"
    assert plan["score", ""].detail.startswith("(clip, member) pairs: 8 in the store, 0 missing")

    new = {one.stage: one for one in plan_reproduction(job_in(tmp_path / "new"))}
    assert not any(one.is_complete for one in new.values())
    assert new["render"].detail == "48 images, 4 clips"
    assert not (tmp_path / "new").exists()


def test_wrong_inputs_are_found_before_anything_is_made(tmp_path):
    inputs = Inputs(answers=tmp_path / "none.tsv", images=[str(tmp_path)], clips=str(tmp_path))
    with pytest.raises(ConfigError, match="--scale must be paper or smoke, got 'huge'"):
        PaperJob(out=tmp_path, jobs=jobs_folder(), scale="huge")
    with pytest.raises(ConfigError, match="ANSWERS, --images and --clips must be given"):
        PaperJob(out=tmp_path, jobs=jobs_folder())
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("1001 0 clip 1\n")
    wrong = Inputs(**{**vars(inputs), "qrels": qrels})
    job = PaperJob(out=tmp_path / "new", jobs=jobs_folder(), inputs=wrong)
    with pytest.raises(DataError, match="no topic is the number of a feature of ladi_v1"):
        load_job("reproduce_paper").run(job)
    assert not (tmp_path / "new").exists()
