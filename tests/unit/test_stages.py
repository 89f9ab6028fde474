"""Times of stages add up over starts of the same command."""

import json

import pytest

from dsdi_ray.cli.stages import Stages


def test_times_add_up_over_starts_and_a_stage_that_is_cut_off_counts(tmp_path, capsys):
    file = tmp_path / "out" / "times.json"
    first = Stages(file, num_stages=2)
    with first.begin("prepare", "Prepare the set"):
        pass
    with pytest.raises(KeyboardInterrupt), first.begin("train", "Train"):
        raise KeyboardInterrupt
    assert "== 2/2 Train" in capsys.readouterr().err
    assert list(json.loads(file.read_text())) == ["prepare", "train"]

    file.write_text(json.dumps({"prepare": 100.0, "train": 50.0}))
    second = Stages(file, num_stages=2)
    with second.begin("prepare", "Prepare the set"):
        pass
    assert second.seconds_now["prepare"] < 5
    assert 100 <= second.seconds_in_all["prepare"] < 105
    assert second.seconds_in_all["train"] == 50
    assert json.loads(file.read_text()) == second.seconds_in_all


def test_times_that_cannot_be_read_are_begun_anew(tmp_path):
    file = tmp_path / "times.json"
    file.write_text('{"prepare": 10')
    stages = Stages(file, num_stages=1)
    with stages.begin("prepare", "Prepare the set"):
        pass
    assert json.loads(file.read_text())["prepare"] < 5
