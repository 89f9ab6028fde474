"""Whatever is killed while a member trains, the same command ends at the same weights."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from prepared_images import write_coloured_set
from processes import kill_all, kill_once

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.train import _run_id, train_member
from dsdi_ray.errors import DataError
from dsdi_ray.storage.bundles import read_member_spec
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.storage.validation_logits import read_validation

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

# Two cycles, a moving average and momentum: all that a checkpoint holds.
RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "backbone": {"name": "test_resnet", "weights": "none"},
        "input_px": 64,
        "batch_size": 8,
        "epochs": 4,
        "optimizer": {"name": "adamw", "lr": 3e-3},
        "schedule": {"name": "cyclic", "cycles": 2, "warmup_epochs": 0.5},
        "ema_decay": 0.9,
    }
)
_DRIVER = """
import sys
from pathlib import Path
from test_train_kills import RECIPE
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed.train import _run_id, train_member
with ray_session(num_cpus=2):
    train_member(RECIPE, data=Path(sys.argv[1]), out=Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_coloured_set(folder / "prepared", num_images=200).path


@pytest.fixture(scope="module")
def unbroken(local_ray, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "member"
    train_member(RECIPE, data=data, out=out)
    return out


def assert_same_members(out: Path, expected: Path) -> None:
    places = [".", "last", "snapshots/cycle-1", "snapshots/cycle-2"]
    ids = [read_member_spec(out / place).member_id for place in places]
    assert ids == [read_member_spec(expected / place).member_id for place in places]
    assert ids[0] == ids[1] == ids[3], "the member is the last snapshot"
    assert ids[0] != ids[2]
    logits = [read_validation(out / place).logits for place in places]
    expected_logits = [read_validation(expected / place).logits for place in places]
    assert all(map(np.array_equal, logits, expected_logits))
    history = [json.loads(x) for x in (out / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [p.name for p in out.parent.iterdir() if p.name.startswith(f"{out.name}.")] == []


def has_done_an_epoch(out: Path) -> bool:
    folders = out.with_name(f"{out.name}.training").glob("*/checkpoints/epoch-00001")
    return any(True for _ in folders)


def wait_for_an_epoch(out: Path, driver: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not has_done_an_epoch(out):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_run_resumes_and_ends_as_an_unbroken_one(data, unbroken, tmp_path, capsys):
    out = tmp_path / "killed"
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, data, out],
        cwd=Path(__file__).parent,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_an_epoch(out, driver)
    finally:
        kill_all(driver)
    assert not out.exists()
    (run,) = out.with_name("killed.training").iterdir()
    checkpoints = sorted((run / "checkpoints").glob("epoch-*"))
    assert 1 <= len(checkpoints) < 4
    torn = checkpoints[-1] / "weights.safetensors"
    content = torn.read_bytes()
    torn.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=f"checkpoint {torn}: is not as it was written"):
        train_member(RECIPE, data=data, out=out)
    torn.write_bytes(content)

    train_member(RECIPE, data=data, out=out)
    assert "tiny: goes on after epoch" in capsys.readouterr().err
    assert_same_members(out, unbroken)


@pytest.mark.nightly
def test_a_run_that_starts_over_drops_the_earlier_one_and_outlives_a_killed_worker(
    data, unbroken, tmp_path, capsys
):
    out = tmp_path / "member"
    run_id = _run_id(RECIPE.model_dump(mode="json"), PreparedSet.open(data))
    (tmp_path / "member.training" / run_id / "checkpoints" / "epoch-00003").mkdir(parents=True)
    killed = kill_once("RayTrainWorker", when=lambda: has_done_an_epoch(out))
    train_member(RECIPE, data=data, out=out, resume=False)
    shown = capsys.readouterr().err
    assert "tiny: starts over; 3 epochs of the earlier run are dropped" in shown
    assert len(killed) == 1
    assert_same_members(out, unbroken)
