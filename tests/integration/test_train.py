import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from prepared_images import coloured_image, write_coloured_set
from safetensors.torch import save_file

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.members import load_member
from dsdi_ray.distributed.train import train_member
from dsdi_ray.distributed.train_loop import starting_network
from dsdi_ray.errors import ConfigError, DataError, ResourceError
from dsdi_ray.storage.bundles import read_member_spec, read_member_weights

pytestmark = pytest.mark.ray


def recipe(**changes):
    values = {
        "name": "tiny",
        "backbone": {"name": "test_resnet", "weights": "none"},
        "input_px": 32,
        "batch_size": 8,
        "epochs": 2,
        "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.01},
        "schedule": {"warmup_epochs": 0.5},
        "augmentation": {"rotation_degrees": 5, "hue": 0.0},
    }
    return Recipe.model_validate(values | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured_set(tmp_path_factory.mktemp("data") / "prepared").path


def weights_of(member):
    return read_member_weights(member, read_member_spec(member))


@pytest.fixture(scope="module")
def trained(local_ray, data, tmp_path_factory):
    return train_member(
        recipe(epochs=8), data=data, out=tmp_path_factory.mktemp("members") / "colours"
    )


def test_a_member_learns_what_the_images_show(trained):
    assert trained.lrap > 0.9
    assert trained.map > 0.9
    member = load_member(trained.out)
    rng = np.random.default_rng(1)
    present = rng.random((16, 3)) < 0.5
    frames = np.stack([coloured_image(p, rng, side_px=32) for p in present])
    agrees = (member.logits(frames) > 0) == present
    assert agrees.mean() > 0.9


def test_the_bundle_says_how_it_was_trained_and_how_well(trained, data):
    spec = read_member_spec(trained.out)
    assert spec.recipe == recipe(epochs=8).model_dump(mode="json")
    assert spec.training_data_id == "colours-40-0"
    assert spec.metrics["lrap"] == trained.lrap
    assert spec.metrics["epoch"] == trained.best_epoch
    history = [json.loads(x) for x in (trained.out / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert trained.lrap == max(row["lrap"] for row in history)
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_nothing_but_the_bundle_is_left_beside_it(trained):
    assert [p.name for p in trained.out.parent.iterdir()] == ["colours"]


def test_a_complete_member_is_not_trained_again(trained, data):
    again = train_member(recipe(epochs=8), data=data, out=trained.out)
    assert again.reused
    assert again.member_id == trained.member_id
    assert again.seconds < 5


def test_a_member_of_another_recipe_is_not_replaced(trained, data):
    with pytest.raises(DataError, match="another recipe or other data"):
        train_member(recipe(epochs=9), data=data, out=trained.out)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(local_ray, data, tmp_path):
    a = train_member(recipe(), data=data, out=tmp_path / "a")
    b = train_member(recipe(), data=data, out=tmp_path / "b")
    c = train_member(recipe(seed=1), data=data, out=tmp_path / "c")
    assert a.member_id == b.member_id
    assert a.member_id != c.member_id


def test_two_workers_train_one_network(local_ray, data, tmp_path):
    summary = train_member(recipe(epochs=4), data=data, out=tmp_path / "two", num_workers=2)
    assert summary.lrap > 0.7
    assert load_member(summary.out).logits(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 3)


def test_weights_from_a_file_are_the_start(local_ray, data, tmp_path, monkeypatch):
    network = starting_network(recipe(seed=5), weights="none", num_classes=7)  # another head
    save_file(network.state_dict(), tmp_path / "start.safetensors")
    monkeypatch.chdir(tmp_path)
    start = {"name": "test_resnet", "weights": "start.safetensors"}  # relative to the user's folder
    still = recipe(
        backbone=start, epochs=1, optimizer={"name": "sgd", "lr": 1e-30, "momentum": 0.0}
    )
    summary = train_member(still, data=data, out=tmp_path / "m")
    trained = weights_of(summary.out)
    for name, parameter in network.named_parameters():
        if trained[name].shape == parameter.shape:
            torch.testing.assert_close(trained[name], parameter.detach())


def test_weights_of_another_network_are_refused_at_once(local_ray, data, tmp_path):
    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    wrong = recipe(
        backbone={"name": "test_resnet", "weights": str(tmp_path / "x.safetensors")},
    )
    with pytest.raises(DataError, match="another network"):
        train_member(wrong, data=data, out=tmp_path / "m")


def test_a_diverging_run_ends_in_one_plain_line(local_ray, data, tmp_path):
    wild = recipe(optimizer={"name": "sgd", "lr": 1e30}, schedule={"warmup_epochs": 0})
    with pytest.raises(
        ConfigError, match=r"recipe tiny: the loss became .* set optimizer.lr below"
    ):
        train_member(wild, data=data, out=tmp_path / "m")


def test_more_workers_than_cpus_are_refused_at_once(local_ray, data, tmp_path):
    with pytest.raises(ResourceError, match=r"--workers must be from 1 to 2 here \(CPUs\), got 3"):
        train_member(recipe(), data=data, out=tmp_path / "m", num_workers=3)


def test_a_gpu_that_is_not_there_is_refused_at_once(local_ray, data, tmp_path):
    with pytest.raises(ResourceError, match="a GPU was asked for"):
        train_member(recipe(), data=data, out=tmp_path / "m", use_gpu=True)


_DRIVER = """
import sys
from pathlib import Path
from dsdi_ray.config import Recipe
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed.train import train_member
recipe, data, out = Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
with ray_session(num_cpus=1):
    print(train_member(recipe, data=data, out=out).member_id)
"""


def test_a_killed_run_resumes_and_ends_as_an_unbroken_one(data, tmp_path):
    long = recipe(epochs=25)
    command = [sys.executable, "-c", _DRIVER, long.model_dump_json(), str(data)]
    out = tmp_path / "killed"
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen([*command, str(out)], stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while _num_epochs(out) < 5:
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not out.exists()
    done_before = _num_epochs(out)
    assert done_before < 25
    time.sleep(2)  # a local Ray dies with its driver, not in the same instant
    done_before = _num_epochs(out)
    resumed = subprocess.run(
        [*command, str(out)], capture_output=True, text=True, timeout=240, check=True
    )
    unbroken = subprocess.run(
        [*command, str(tmp_path / "whole")], capture_output=True, text=True, timeout=240, check=True
    )
    assert resumed.stdout.split()[-1] == unbroken.stdout.split()[-1]
    times = [json.loads(x)["epoch"] for x in (out / "history.jsonl").read_text().splitlines()]
    assert times == list(range(1, 26))
    assert done_before >= 5


def _num_epochs(out: Path) -> int:
    return sum(
        len(file.read_text().splitlines())
        for file in out.with_name(f"{out.name}.training").glob("*/history.jsonl")
    )
