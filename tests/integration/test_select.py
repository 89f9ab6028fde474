"""From trained members to a chosen ensemble, and to one that is trained anew on all images."""

import json

import numpy as np
import pytest
from prepared_images import write_coloured_set
from test_train import recipe
from typer.testing import CliRunner

from dsdi_ray.cli import app
from dsdi_ray.distributed.members import load_member
from dsdi_ray.distributed.train_labels import labelled_parts
from dsdi_ray.distributed.train_members import train_members
from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.storage.bundles import read_ensemble, read_member_spec
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.storage.validation_logits import read_validation
from dsdi_ray.vision.transforms import decode_square

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured_set(tmp_path_factory.mktemp("data") / "prepared").path


@pytest.fixture(scope="module")
def members(local_ray, data, tmp_path_factory):
    """Two members of a sweep's kind: one of two cycles, and one of another loss."""
    out = tmp_path_factory.mktemp("sweep")
    cyclic = recipe(
        name="cyclic", split_seed=3, seed=1, schedule={"name": "cyclic", "cycles": 2}, ema_decay=0.5
    )
    masked = recipe(name="masked", split_seed=3, labels={"masked": True}, loss={"family": "bce"})
    train_members([cyclic, masked], data=data, out=out)
    return out


def select(*arguments):
    done = CliRunner().invoke(app, ["ensemble", "select", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_a_bundle_holds_its_own_logits_of_the_images_held_back(members, data):
    prepared = PreparedSet.open(data)
    jpegs = dict(
        zip(
            *(prepared.read([name])[name].to_pylist() for name in ("image_id", "jpeg")), strict=True
        )
    )
    for place in ("cyclic", "cyclic/last", "cyclic/snapshots/cycle-1", "masked", "masked/last"):
        spec, own = read_member_spec(members / place), read_validation(members / place)
        assert own.member_id == spec.member_id
        assert own.epoch == spec.metrics["epoch"]
        assert (own.prepared_id, own.split_seed) == ("colours-40-0", 3)
        assert own.taxonomy_id == spec.taxonomy.taxonomy_id
        assert own.is_asked.all()
        held_back = [split == "validation" for split in prepared.split_again(3)]
        table = prepared.read(["image_id"])
        assert own.image_ids == table.filter(held_back)["image_id"].to_pylist()
        frames = np.stack([decode_square(jpegs[name], 32) for name in own.image_ids])
        assert load_member(members / place).logits(frames) == pytest.approx(own.logits, abs=1e-4)


def test_members_are_chosen_and_the_ensemble_can_be_read(members, tmp_path):
    out = tmp_path / "e"
    done = select(members, "--size", 2, "--metric", "lrap", "--out", out)
    assert "Chosen 2 of 2 members by LRAP on 5 images; 5 are held back" in done.stdout
    assert "equal mean of all 2" in done.stdout
    assert [m.weight for m in read_ensemble(out).members] == [1.0, 1.0]
    done = select(
        members, "--with-snapshots", "--size", 2, "--metric", "lrap", "--out", out, "--json"
    )
    told = json.loads(done.stdout)
    assert told["num_members"] >= 3
    assert ["cyclic/last", "the same weights as cyclic"] in told["left_out"]
    assert len(told["correlation"]) == 2
    assert {m["member_id"] for m in told["chosen"]} == {
        m.member_id for m in read_ensemble(out).members
    }


@pytest.mark.nightly
def test_a_refit_learns_from_all_images_and_is_not_done_twice(members, data, tmp_path):
    out = tmp_path / "e"
    command = (members, "--size", 2, "--out", out, "--refit", "--data", data, "--metric", "lrap")
    told = json.loads(select(*command, "--json").stdout)
    ensemble = read_ensemble(out)
    assert [[m.path, m.weight] for m in ensemble.members] == told["refitted"]
    for member in ensemble.members:
        assert member.path.startswith(str(out / "members"))
        assert member.spec.recipe["train_on"] == "all"
        assert member.spec.metrics["epoch"] == 2
        assert "lrap" not in member.spec.metrics
        with pytest.raises(DataError, match=r"has no validation.parquet"):
            read_validation(member.path)
    originals = {m["member_id"] for m in told["chosen"]}
    assert not originals & {m.member_id for m in ensemble.members}
    stamps = [path.stat().st_mtime_ns for path in sorted(out.rglob("model.safetensors"))]
    shown = select(*command)
    assert "2 members were trained anew on all images" in shown.stdout
    assert [p.stat().st_mtime_ns for p in sorted(out.rglob("model.safetensors"))] == stamps
    assert [m.member_id for m in read_ensemble(out).members] == [
        m.member_id for m in ensemble.members
    ]


def test_a_refit_needs_the_set_that_the_members_were_trained_on(members, data, tmp_path):
    other = write_coloured_set(tmp_path / "other", seed=1).path
    with pytest.raises(
        DataError, match="is prepared set colours-40-1, the members were trained on"
    ):
        select(members, "--out", tmp_path / "e", "--refit", "--data", other)
    for one in (["--refit"], ["--data", data]):
        with pytest.raises(ConfigError, match="--refit and --data must be given together"):
            select(members, "--out", tmp_path / "e", *one)
    assert not (tmp_path / "e").exists()


def test_all_images_are_learnt_from_and_none_is_held_back(data):
    prepared = PreparedSet.open(data)
    train, validation = labelled_parts(prepared, recipe(train_on="all", split_seed=3))
    assert list(train.image_ids) == prepared.read(["image_id"])["image_id"].to_pylist()
    assert len(validation) == 0
