"""The command line as a user types it: exit codes, one-line errors, JSON that other tools read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from footage import make_member, write_footage

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
    ["prepare", "train", "member import", "ensemble build", "index", "score", "outcomes", "rank",
     "evaluate", "demo"],
)  # fmt: skip
def test_every_command_teaches_with_an_example(command: str) -> None:
    result = dsdi(*command.split(), "--help")
    assert result.returncode == 0
    assert "Example: dsdi" in " ".join(result.stdout.split())
    assert "--json" in result.stdout


def test_mistakes_are_one_line_and_exit_with_2(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: x\nbackbone: {name: resnet18}\nloss: {gama: 1}\n")
    line = one_line_mistake(
        dsdi("train", tmp_path / "r.yaml", "--data", tmp_path, "--out", tmp_path)
    )
    assert "loss.gama: unknown key; did you mean loss.gamma?" in line
    line = one_line_mistake(dsdi("outcomes", tmp_path))
    assert "no score store at" in line
    line = one_line_mistake(dsdi("outcomes", tmp_path, "--status", "good"))
    assert "must be ok, partial or failed, got 'good'" in line
    line = one_line_mistake(dsdi("ensemble", "build", tmp_path / "none", "--out", tmp_path / "e"))
    assert "is no member bundle: member.yaml is missing" in line
    assert "Traceback" in dsdi("--debug", "outcomes", tmp_path).stderr


@pytest.mark.ray
def test_footage_to_ranked_run(tmp_path: Path) -> None:
    footage = write_footage(tmp_path / "footage", num_clips=2)
    for i, size in enumerate((64, 96)):
        make_member(tmp_path / f"m{i}", seed=i, input_px=size)
    built = dsdi("ensemble", "build", "m0", "m1:2", "--out", "e", "--json", cwd=tmp_path)
    assert [m["weight"] for m in json.loads(built.stdout)["members"]] == [1.0, 2.0]

    indexed = dsdi("index", footage, "--out", "m.parquet", "--json", cwd=tmp_path)
    assert json.loads(indexed.stdout)["num_clips"] == 4

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
