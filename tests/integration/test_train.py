import json
import runpy
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from prepared_images import coloured_image, write_coloured_set
from safetensors.torch import save_file
from typer.testing import CliRunner

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.members import load_member
from dsdi_ray.distributed.run_owner import take_over
from dsdi_ray.distributed.train import train_member
from dsdi_ray.distributed.train_data import load_pictures
from dsdi_ray.distributed.train_loop import starting_network
from dsdi_ray.distributed.train_members import train_each
from dsdi_ray.distributed.train_plan import plan_training
from dsdi_ray.errors import ConfigError, DataError, ResourceError
from dsdi_ray.storage.bundles import read_ensemble, read_member_spec, write_ensemble
from dsdi_ray.storage.member_weights import read_member_weights
from dsdi_ray.storage.prepared import PreparedSet

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]


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
    assert set(history[-1]["average_precision"]) == {"red", "green", "blue"}
    assert history[-1]["map"] == pytest.approx(
        np.mean(list(history[-1]["average_precision"].values()))
    )


def test_the_last_epoch_is_a_member_of_its_own_and_tensorboard_has_the_curves(trained):
    last = read_member_spec(trained.out / "last")
    assert last.metrics["epoch"] == 8
    write_ensemble([(trained.out / "last", 1.0)], trained.out.parent / "e")
    assert read_ensemble(trained.out.parent / "e").members[0].member_id == last.member_id
    (events,) = (trained.out / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"validation_loss" in content
    assert b"average_precision/red" in content
    (trained.out.parent / "e" / "ensemble.yaml").unlink()
    (trained.out.parent / "e").rmdir()


def test_nothing_but_the_bundle_is_left_beside_it(trained):
    assert [p.name for p in trained.out.parent.iterdir()] == ["colours"]


def test_a_complete_member_is_not_trained_again(trained, data):
    again = train_member(recipe(epochs=8), data=data, out=trained.out)
    assert again.reused
    assert again.member_id == trained.member_id
    assert again.seconds < 5


def test_a_member_of_another_recipe_is_not_replaced(trained, data):
    for resume in (True, False):
        with pytest.raises(DataError, match="another recipe or other data"):
            train_member(recipe(epochs=9), data=data, out=trained.out, resume=resume)


def test_two_workers_with_micro_batches_train_as_one(local_ray, data, tmp_path):
    """Batches of 10 are 3 + 2 images on one worker and 3 + 2 on the other."""
    of = recipe(
        backbone={"name": "test_convnext", "weights": "none"},  # no batch normalisation
        batch_size=10,
        epochs=1,
        optimizer={"name": "sgd", "lr": 0.05},
        labels={"masked": True},
    )
    one = train_member(of, data=data, out=tmp_path / "one")
    in_parts = of.model_copy(update={"accumulate": 2})
    two = train_member(in_parts, data=data, out=tmp_path / "two", num_workers=2)
    expected, got = weights_of(one.out), weights_of(two.out)
    start = starting_network(of, weights="none", num_classes=3).state_dict()
    assert any((expected[name] - start[name]).abs().max() > 1e-3 for name in start)
    for name, weight in expected.items():
        torch.testing.assert_close(got[name], weight, atol=1e-5, rtol=1e-4)
    metrics = [read_member_spec(m.out).metrics for m in (one, two)]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-4)


def test_the_same_seed_gives_the_same_start_and_another_seed_another():
    a, b, c = (
        starting_network(recipe(seed=seed), weights="none", num_classes=3).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


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


def test_a_diverging_run_ends_on_all_workers_and_names_images_of_both(local_ray, data, tmp_path):
    wild = recipe(name="wild", optimizer={"name": "sgd", "lr": 1e30}, schedule={"warmup_epochs": 0})
    with pytest.raises(
        ConfigError,
        match=r"recipe wild: the loss diverged in epoch 1, step \d, on (image-\d+ \(.*\), ){7}.*; "
        r"set optimizer.lr below 1e\+30",
    ):
        train_member(wild, data=data, out=tmp_path / "m", num_workers=2)


def test_several_workers_of_a_run_that_is_taken_over_end_together_and_are_not_started_again(
    local_ray, data, tmp_path
):
    def take_over_after_an_epoch():
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            for history in tmp_path.glob("m.training/*/history.jsonl"):
                take_over(history.parent)
                return
            time.sleep(0.02)

    other = threading.Thread(target=take_over_after_an_epoch)
    other.start()
    with pytest.raises(DataError, match="this run ends") as caught:
        train_member(recipe(epochs=2000), data=data, out=tmp_path / "m", num_workers=2)
    other.join()
    assert caught.value.__cause__ is None, "Ray was told of a failure, and has tried again"
    assert len(list(tmp_path.glob("m.training/*/decoded/*.npy"))) == 1, "both read one file"


def test_pictures_are_shared_where_each_part_fits_memory_and_are_the_same(data, tmp_path):
    prepared, num_bytes = PreparedSet.open(data), 30 * 32 * 32 * 3  # of the training part
    shared = load_pictures(prepared, recipe(), cache_bytes=num_bytes, shared=tmp_path / "decoded")
    assert all(isinstance(part.cached, np.memmap) for part in shared)
    own = load_pictures(prepared, recipe())
    for here, there in zip(own, shared, strict=True):
        everything = np.arange(len(here))
        assert torch.equal(here.batch(everything), there.batch(everything))
    fewer = load_pictures(prepared, recipe(), cache_bytes=num_bytes - 1, shared=tmp_path / "none")
    assert fewer[0].cached is None
    assert not (tmp_path / "none").exists()


def test_a_recipe_that_fails_does_not_end_the_others(local_ray, data, tmp_path):
    for name, labels in (("bad", "{encoding: majority}"), ("good", "{}")):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\nbackbone: {{name: test_resnet, weights: none}}\nlabels: {labels}\n"
            "input_px: 32\nbatch_size: 8\nepochs: 1\n"
        )
    job = runpy.run_path(str(ROOT / "jobs" / "train_members.py"))["app"]
    recipes = [str(tmp_path / "bad.yaml"), str(tmp_path / "good.yaml")]
    options = ["--data", str(data), "--out", str(tmp_path / "members")]
    done = CliRunner().invoke(job, [*recipes, *options, "--json"])
    assert done.exit_code == 1, done.output
    bad, good = json.loads(done.stdout)
    assert "labels.encoding: majority is made of answers" in bad["status"]
    assert (good["status"], good["epochs"]) == ("trained", 1)
    assert "good 1/1  loss " in done.stderr

    done = CliRunner().invoke(job, [recipes[1], *options, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)[0]["status"] == "was complete"
    with pytest.raises(ConfigError, match="two recipes are named tiny"):
        train_each([recipe(), recipe()], data=data, out=tmp_path)


def test_what_cannot_be_is_refused_at_once(local_ray, data, tmp_path):
    with pytest.raises(ResourceError, match=r"--workers must be from 1 to 2 here \(CPUs\), got 3"):
        train_member(recipe(), data=data, out=tmp_path / "m", num_workers=3)
    with pytest.raises(ResourceError, match="a GPU was asked for"):
        train_member(recipe(), data=data, out=tmp_path / "m", use_gpu=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(DataError, match="is not empty and no member bundle"):
        train_member(recipe(), data=data, out=tmp_path / "full")


def test_a_plan_counts_and_estimates_and_writes_nothing(local_ray, data):
    before = sorted(data.parent.rglob("*"))
    plan = plan_training(recipe(accumulate=2, ema_decay=0.9), data=data, num_workers=2)
    assert (plan.num_train, plan.num_validation) == (30, 10)
    assert plan.micro_batch == (2, 3, 32, 32)
    assert plan.num_enlarged == 0
    assert (plan.steps_per_epoch, plan.num_steps) == (3, 6)
    network = starting_network(recipe(), weights="none", num_classes=3)
    assert plan.num_parameters == sum(p.numel() for p in network.parameters())
    # Weights, gradients, AdamW's two moments, the average.
    assert plan.weights_mib == pytest.approx(5 * 4 * plan.num_parameters / 2**20, rel=0.05)
    assert plan.activations_mib > 0
    assert plan.pictures_are_shared, "both workers read one file"
    assert 0.001 < plan.gigaflops < 1
    assert 0 < plan.seconds_per_step < plan.estimated_seconds < 60
    assert plan_training(recipe(input_px=64), data=data).num_enlarged == 40
    assert sorted(data.parent.rglob("*")) == before
    with pytest.raises(ConfigError, match="are 1 in each, needs at least 2"):
        plan_training(recipe(accumulate=4), data=data, num_workers=2)
