"""The whole system at once: the demo at its smallest."""

import json
from pathlib import Path

import pytest
from PIL import Image
from test_cli import dsdi

from dsdi_ray.storage.runs import read_run
from dsdi_ray.storage.score_store import ScoreStore


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_tiny_demo_goes_from_answers_to_an_evaluated_run(tmp_path: Path) -> None:
    result = dsdi("demo", "--size", "tiny", "--out", tmp_path / "out", "--json", timeout=560)
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert set(summary["map_by_system"]) == {"ensemble", "demo_a", "demo_b"}
    assert all(0 < value <= 1 for value in summary["map_by_system"].values())
    assert 0 < summary["chance"] < 1

    outcomes = ScoreStore.open(str(tmp_path / "out" / "scores")).latest_outcomes()
    assert outcomes["status"].to_pylist() == ["ok"] * 6
    assert set(outcomes["decoder"].to_pylist()) <= {"decord", "pyav"}
    assert summary["num_frames"] == sum(outcomes["frames_scored"].to_pylist())

    run = read_run(Path(summary["run"]))
    assert run.num_rows == 32 * 6
    with Image.open(summary["contact_sheet"]) as sheet:
        assert sheet.width > 600
