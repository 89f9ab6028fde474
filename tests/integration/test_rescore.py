"""An archive over time: only what changed is done again, and the page says what rose."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from footage import make_ensemble, make_member, write_clip, write_footage

from dsdi_ray.cli.demo import load_job
from dsdi_ray.distributed.reindex import update_archive
from dsdi_ray.errors import ConfigError
from dsdi_ray.method.run_changes import compare_runs
from dsdi_ray.storage.bundles import write_ensemble
from dsdi_ray.storage.manifest import read_manifest, write_manifest
from dsdi_ray.storage.runs import read_run, scores_of_run

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.usefixtures("local_ray")]
ROOT = Path(__file__).resolve().parents[2]


def clips_of(manifest):
    return {row["clip_id"]: row for row in manifest.to_pylist()}


def test_known_clips_are_kept_new_ones_added_changed_ones_probed_and_gone_ones_left_out(
    tmp_path: Path,
) -> None:
    footage, file = tmp_path / "footage", tmp_path / "manifest.parquet"
    for i, name in enumerate(("kept", "changes", "goes")):
        write_clip(footage / f"{name}.mp4", seed=i, num_pictures=20)
    first = update_archive(str(footage), file)
    assert set(clips_of(first)) == {"kept", "changes", "goes"}
    assert read_manifest(file).equals(first)

    # A name that was given and a fact that no probe finds show that nothing was probed again.
    rows = [row | {"codec": "mine"} for row in first.to_pylist()]
    write_manifest(first.from_pylist(rows, schema=first.schema), file)
    assert set(update_archive(str(footage), file)["codec"].to_pylist()) == {"mine"}

    write_clip(footage / "changes.mp4", seed=9, num_pictures=50)
    write_clip(footage / "later" / "kept.mp4", seed=8, num_pictures=20)
    (footage / "goes.mp4").unlink()
    dry = update_archive(str(footage), file, write=False)
    assert set(clips_of(read_manifest(file))) == {"kept", "changes", "goes"}
    now = clips_of(update_archive(str(footage), file))
    assert clips_of(dry) == now == clips_of(read_manifest(file))
    assert set(now) == {"kept", "changes", "later/kept.mp4"}
    assert now["kept"]["codec"] == "mine"
    assert now["changes"]["codec"] == now["later/kept.mp4"]["codec"] == "h264"
    assert now["changes"]["duration_seconds"] == pytest.approx(50 / 30, abs=0.05)


def test_only_what_changed_is_scored_and_the_page_names_what_rose(tmp_path: Path) -> None:
    footage = write_footage(tmp_path / "footage", num_clips=3)
    make_ensemble(tmp_path / "members")
    ensemble, out = tmp_path / "members" / "ensemble", tmp_path / "out"
    job = load_job("rescore_archive")

    def rescore(**options):
        return job.run(str(footage), ensemble=str(ensemble), out=out, top_k_diff=2, **options)

    started = time.monotonic()
    first = rescore()
    first_seconds = time.monotonic() - started
    assert (first.run, first.compared_with) == (str(out / "runs" / "0001"), None)
    assert (first.num_new, first.score.num_pairs_missing, first.num_clips_ranked) == (5, 10, 3)
    page = (out / "index.html").read_text("utf-8")
    assert "Run 0001, the first one." in page
    assert "the file is empty (0 bytes)" in page
    assert page.count("data:image/png;base64,") == 1

    started = time.monotonic()
    again = rescore()
    assert time.monotonic() - started < 0.5 * first_seconds
    assert (again.run, again.changed, again.score.num_clips_scored) == (None, [], 0)
    assert [p.name for p in (out / "runs").iterdir()] == ["0001"]
    assert (out / "index.html").read_text("utf-8") == page

    write_clip(footage / "later.mp4", seed=77, num_pictures=20)
    (footage / "clip1.mp4").unlink()
    third = rescore()
    assert (third.num_new, third.num_gone, third.num_changed) == (1, 1, 0)
    assert third.changed == ["clips"]
    assert (third.score.num_clips_scored, third.score.num_pairs_missing) == (1, 2)
    run = read_run(Path(third.run) / "run.parquet")
    assert set(run["clip_id"].to_pylist()) == {"clip0", "clip2", "later"}
    page = (out / "index.html").read_text("utf-8")
    assert "Run 0002, compared with run 0001." in page
    for clip_id, what in (("later", "new"), ("clip1", "gone")):
        assert f'<th scope="row">{clip_id}</th>\n<td>{what}</td>' in page

    other = make_member(tmp_path / "members" / "other", seed=9, input_px=96)
    write_ensemble([(tmp_path / "members" / "member0", 1.0), (other, 50.0)], ensemble)
    fourth = rescore()
    assert fourth.changed == ["members"]
    # Three clips by the one member that is new; the files that failed before are left alone.
    assert (fourth.score.num_pairs_present, fourth.score.num_pairs_missing) == (3, 3)
    expected = compare_runs(
        scores_of_run(run), scores_of_run(read_run(Path(fourth.run) / "run.parquet")), top_k=2
    )
    risen = [move for change in expected.values() for move in change.risen]
    assert risen
    page = (out / "index.html").read_text("utf-8")
    rose = page.partition("<caption>Rose</caption>")[2].partition("</table>")[0]
    for move in risen:
        assert f"<td>{move.clip_id}</td>\n" in rose
    assert [f["rose"] for f in fourth.features] == [len(c.risen) for c in expected.values()]
    assert ">other</th>" in page
    assert ">no longer in it</th>" in page


def test_a_dry_run_writes_nothing_and_says_what_there_is_to_do(tmp_path: Path) -> None:
    write_clip(tmp_path / "footage" / "a.mp4", seed=1, num_pictures=20)
    make_ensemble(tmp_path / "members", sizes=[64])
    summary = load_job("rescore_archive").run(
        str(tmp_path / "footage"),
        ensemble=str(tmp_path / "members" / "ensemble"),
        out=tmp_path / "out",
        dry_run=True,
    )
    assert (summary.num_new, summary.score.num_pairs_missing, summary.run) == (1, 1, None)
    assert summary.score.estimated_seconds > 0
    assert not (tmp_path / "out").exists()


def test_a_pool_that_there_is_not_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pool must be one of max"):
        load_job("rescore_archive").run("x", ensemble="x", out=tmp_path, pool="median")


def test_a_mistake_is_one_line_and_no_output(tmp_path: Path) -> None:
    wrong = subprocess.run(
        [sys.executable, "jobs/rescore_archive.py", tmp_path, "-e", tmp_path, "-o", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=240,
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    (line,) = wrong.stderr.strip().splitlines()
    assert line.startswith("rescore_archive: error: ")
    assert "is no ensemble bundle" in line


def test_a_clip_that_was_renamed_is_ranked_once_by_whole_archives_and_demos(
    tmp_path: Path,
) -> None:
    footage, out = tmp_path / "footage", tmp_path / "out"
    ensemble = make_ensemble(tmp_path / "members", sizes=(64,))
    bundle = str(tmp_path / "members" / "ensemble")
    write_clip(footage / "stays.mp4", seed=1, num_pictures=20)
    write_clip(footage / "before.mp4", seed=2, num_pictures=20)
    for name in ("before", "after"):
        if name == "after":
            (footage / "before.mp4").rename(footage / "after.mp4")
        load_job("score_archive").run(str(footage), ensemble=bundle, out=out)
        load_job("demo")._score_own(footage, out=out, ensemble=ensemble)
        for run in (out / "run", out / "runs" / "own"):
            ranked = read_run(run / "run.parquet")["clip_id"].to_pylist()
            assert set(ranked) == {"stays", name}


def test_an_ensembles_folder_may_have_blanks_in_its_name(tmp_path: Path) -> None:
    write_clip(tmp_path / "footage" / "a.mp4", seed=1, num_pictures=20)
    make_ensemble(tmp_path / "members", sizes=(64,))
    bundle = (tmp_path / "members" / "ensemble").rename(tmp_path / "members" / "my ensemble")
    for name, run in (("score_archive", "run"), ("rescore_archive", "runs/0001")):
        out = tmp_path / name
        load_job(name).run(str(tmp_path / "footage"), ensemble=str(bundle), out=out)
        lines = (out / run / "run.trec").read_text().splitlines()
        assert {(line.split()[2], line.split()[5]) for line in lines} == {("a", "my_ensemble")}
