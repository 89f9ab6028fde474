"""The command line as a user types it: exit codes, one-line errors, JSON that other tools read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from footage import make_ensemble, make_member, write_footage
from typer.testing import CliRunner

from dsdi_ray.cli.demo import load_job
from dsdi_ray.storage.bundles import write_ensemble
from dsdi_ray.storage.runs import read_run, run_metadata
from dsdi_ray.storage.score_rows import frame_rows
from dsdi_ray.storage.score_store import ScoreStore

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def dsdi(
    *arguments: object, cwd: Path | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsdi_ray", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        check=False,
        env=ENVIRONMENT,
    )


def one_line_mistake(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    return line


def test_help_answers_without_loading_what_commands_need() -> None:
    assert dsdi("--help").returncode == 0
    loaded = subprocess.run(
        [sys.executable, "-c", "import dsdi_ray.cli, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split()
    assert not {"ray", "torch", "timm", "pandas", "pyarrow", "matplotlib"} & set(loaded)


@pytest.mark.parametrize(
    "command",
    ["prepare", "pseudo-label", "train", "member import", "ensemble build", "ensemble select", "index",
     "score", "outcomes", "rank", "fuse", "evaluate", "demo", "reproduce", "sweep run", "store verify",
     "store compact", "store gc"],
)  # fmt: skip
def test_every_command_teaches_with_an_example(command: str) -> None:
    result = dsdi(*command.split(), "--help")
    assert result.returncode == 0
    assert "Example: dsdi" in " ".join(result.stdout.split())
    assert "--json" in result.stdout


@pytest.mark.parametrize(
    "name", ["score_archive", "rescore_archive", "train_members", "sweep_and_select"]
)
def test_every_job_teaches_with_an_example(name: str) -> None:
    shown = CliRunner().invoke(load_job(name).app, ["--help"], env={"NO_COLOR": "1"})
    assert shown.exit_code == 0
    assert f"Example: python jobs/{name}.py" in " ".join(shown.stdout.split())


def test_mistakes_are_one_line_and_exit_with_2(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: x\nbackbone: {name: resnet18}\nloss: {gama: 1}\n")
    line = one_line_mistake(
        dsdi("train", tmp_path / "r.yaml", "--data", tmp_path, "--out", tmp_path)
    )
    assert "loss.gama: unknown key; did you mean loss.gamma?" in line
    line = one_line_mistake(dsdi("outcomes", tmp_path))
    assert "no score store at" in line
    line = one_line_mistake(dsdi("ensemble", "build", tmp_path / "none", "--out", tmp_path / "e"))
    assert "is no member bundle: member.yaml is missing" in line
    assert "Traceback" in dsdi("--debug", "outcomes", tmp_path).stderr


def test_the_whole_recipe_is_printed_and_is_itself_a_recipe(tmp_path: Path) -> None:
    a01 = ROOT / "jobs" / "recipes" / "a01.yaml"
    printed = dsdi("train", a01, "--set", "loss.gamma=1.5", "--print-config")
    assert printed.returncode == 0, printed.stderr
    assert yaml.safe_load(printed.stdout)["loss"]["gamma"] == 1.5
    (tmp_path / "whole.yaml").write_text(printed.stdout)
    again = dsdi("train", tmp_path / "whole.yaml", "--print-config")
    assert again.stdout == printed.stdout
    assert "--data and --out must be given" in one_line_mistake(dsdi("train", a01))


@pytest.mark.ray
def test_footage_to_ranked_run(tmp_path: Path) -> None:
    footage = write_footage(tmp_path / "footage", num_clips=2)
    for i, size in enumerate((64, 96)):
        make_member(tmp_path / f"m{i}", seed=i, input_px=size)
    built = dsdi("ensemble", "build", "m0", "m1:2", "--out", "e", "--json", cwd=tmp_path)
    assert [m["weight"] for m in json.loads(built.stdout)["members"]] == [1.0, 2.0]

    indexed = dsdi("index", footage, "--out", "m.parquet", "--json", cwd=tmp_path)
    told = json.loads(indexed.stdout)
    assert (told["num_clips"], told["num_unreadable"]) == (4, 2)
    assert sum(told["reasons"].values()) == 2
    assert told["reasons"]["the file is empty (0 bytes)"] == 1

    score = ("score", "m.parquet", "-e", "e", "-s", "st", "--json", "--strict")
    first = dsdi(*score, cwd=tmp_path)
    assert first.returncode == 3, first.stderr
    summary = json.loads(first.stdout)
    assert (summary["num_ok"], summary["num_failed"], summary["num_clips_scored"]) == (2, 2, 4)
    again = json.loads(dsdi(*score, cwd=tmp_path).stdout)
    assert (again["num_clips_scored"], again["num_pairs_missing"]) == (0, 0)

    failed = json.loads(dsdi("outcomes", "st", "--status", "failed", "--json", cwd=tmp_path).stdout)
    assert {row["clip_id"] for row in failed} == {"cut", "empty"}
    assert all(row["error"] and row["frames_scored"] == 0 for row in failed)

    ranked = dsdi("rank", "st", "-e", "e", "-o", "run", "--json", cwd=tmp_path)
    assert json.loads(ranked.stdout)["clips"] == 2
    (tmp_path / "qrels.txt").write_text("1 0 clip0 1\n1 0 clip1 0\n2 0 clip1 1\n")
    by_format = [
        json.loads(
            dsdi("evaluate", f"run/run.{x}", "-q", "qrels.txt", "--json", cwd=tmp_path).stdout
        )
        for x in ("parquet", "trec", "xml")
    ]
    assert by_format[0]["map"] == by_format[1]["map"] == by_format[2]["map"]
    assert 0.5 <= by_format[0]["map"] <= 1.0

    (footage / "clip0.mp4").unlink()
    left = dsdi("rank", "st", "-e", "e", "-o", "run2", "--archive", footage, "--json", cwd=tmp_path)
    assert json.loads(left.stdout)["clips"] == 1, left.stderr
    made_of = run_metadata(read_run(tmp_path / "run2" / "run.parquet"))
    assert made_of["pool"] == "max"


@pytest.fixture
def scores(tmp_path: Path) -> tuple[Path, Path]:
    """A store with the scores of two clips by two members, and an ensemble of one of the two."""
    ensemble = make_ensemble(tmp_path / "members").only(0)
    write_ensemble([(Path(m.path), m.weight) for m in ensemble.members], tmp_path / "one")
    store = ScoreStore.open_or_create(str(tmp_path / "scores"), ensemble.taxonomy)
    members = [ensemble.members[0].member_id, "another"]
    for clip_id in "ab":
        for member_id in members:
            rows = frame_rows(
                content_ids=[clip_id],
                spans=["all"],
                frame_indices=[np.arange(3, dtype=np.int32)],
                times_seconds=[np.arange(3) / 10],
                logits=[np.zeros((3, len(ensemble.taxonomy)), np.float32)],
            )
            store.write_logits("d", member_id, rows)
        outcome = {"clip_id": clip_id, "content_id": clip_id, "span": "all", "decode_id": "d"}
        store.write_outcomes(
            [{**outcome, "member_ids": members, "status": "ok", "frames_scored": 3}]
        )
    return tmp_path / "scores", tmp_path / "one"


def test_a_store_is_compacted_collected_and_found_sound(scores: tuple[Path, Path]) -> None:
    store, ensemble = scores
    dry = dsdi("store", "compact", store, "--dry-run")
    assert (dry.returncode, dry.stdout.splitlines()[0]) == (0, "Dry run")
    compacted = json.loads(dsdi("store", "compact", store, "--json").stdout)
    assert (compacted["num_parts_before"], compacted["num_parts_after"]) == (6, 3)
    assert dsdi("store", "compact", store).stdout.splitlines()[0] == "Nothing to do"
    collected = json.loads(dsdi("store", "gc", store, "--keep", ensemble, "--json").stdout)
    assert (collected["num_claims_dropped"], collected["num_parts_dropped"]) == (2, 1)
    verified = dsdi("store", "verify", store)
    assert (verified.returncode, verified.stdout.splitlines()[0]) == (0, "No problem")


def test_a_store_with_problems_exits_with_three_and_names_them(scores: tuple[Path, Path]) -> None:
    store, _ = scores
    lost = next(store.glob("logits/decode_id=d/member_id=another/part-*"))
    lost.unlink()
    verified = dsdi("store", "verify", store)
    assert verified.returncode == 3
    assert "member another under settings d: the outcome says 3 frames, the store has 0" in (
        verified.stdout
    )
    (problem,) = json.loads(dsdi("store", "verify", store, "--json").stdout)["problems"]
    assert problem["kind"] == "frames"


def test_maintenance_of_what_is_no_store_is_a_mistake_in_one_line(
    tmp_path: Path, scores: tuple[Path, Path]
) -> None:
    for command in ("verify", "compact"):
        line = one_line_mistake(dsdi("store", command, tmp_path))
        assert "no score store at" in line
    store, ensemble = scores
    line = one_line_mistake(dsdi("store", "gc", store, "--keep", ensemble, "--keep-fps", 3))
    assert "all would go" in line
