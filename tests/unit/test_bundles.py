from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from file_servers import file_server
from safetensors.torch import save_file
from typer.testing import CliRunner

from dsdi_ray.cli import app
from dsdi_ray.errors import DataError, TaxonomyError
from dsdi_ray.storage.bundles import MemberSpec, read_ensemble, read_member_spec, write_ensemble
from dsdi_ray.storage.member_weights import read_member_weights, read_weights_file, write_member
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.taxonomy import load_taxonomy

SPEC = MemberSpec(
    backbone="test_resnet",
    input_px=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    taxonomy=load_taxonomy("ladi_v2a"),
    recipe={"name": "r", "loss": {"gamma": 2.0}},
    metrics={"lrap": 0.5},
    training_data_id="abc",
)


def tensors(value=1.0):
    return {"a.weight": torch.full((2, 3), value), "steps": torch.tensor(4)}


@pytest.fixture
def two(tmp_path):
    for name in ("a", "b"):
        write_member(tmp_path / "members" / name, SPEC, tensors(ord(name)))
    return tmp_path / "members"


def test_a_member_comes_back_as_it_was_written(tmp_path):
    written = write_member(tmp_path / "m", SPEC, tensors())
    spec = read_member_spec(tmp_path / "m")
    assert spec == written == replace(SPEC, weights_sha256=written.weights_sha256)
    weights = read_member_weights(tmp_path / "m", spec)
    assert {k: t.tolist() for k, t in weights.items()} == {
        k: t.tolist() for k, t in tensors().items()
    }
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "member.yaml",
        "model.safetensors",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_the_id_follows_what_decides_scores_and_nothing_else(tmp_path):
    ids = {
        write_member(tmp_path / str(i), spec, weights).member_id
        for i, (spec, weights) in enumerate(
            [
                (SPEC, tensors()),
                (SPEC, tensors(2.0)),
                (replace(SPEC, input_px=64), tensors()),
                (replace(SPEC, mean=(0.4, 0.5, 0.5)), tensors()),
                (replace(SPEC, backbone="other"), tensors()),
                (replace(SPEC, taxonomy=load_taxonomy("ladi_v1")), tensors()),
            ]
        )
    }
    assert len(ids) == 6
    same = write_member(tmp_path / "same", replace(SPEC, recipe=None, metrics=None), tensors())
    assert same.member_id in ids


def test_an_edited_member_is_refused(tmp_path):
    write_member(tmp_path / "m", SPEC, tensors())
    file = tmp_path / "m" / "member.yaml"
    file.write_text(file.read_text().replace("input_px: 32", "input_px: 64"))
    with pytest.raises(DataError, match="was edited"):
        read_member_spec(tmp_path / "m")


def test_other_weights_than_the_members_are_refused(tmp_path):
    spec = write_member(tmp_path / "m", SPEC, tensors())
    save_file(tensors(9.0), tmp_path / "m" / "model.safetensors")
    with pytest.raises(DataError, match="is not the one that it was made with"):
        read_member_weights(tmp_path / "m", spec)
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(DataError, match="is missing"):
        read_member_weights(tmp_path / "m", spec)


@pytest.mark.parametrize("content", ["", "[1]", "format: 9", "format: 1", "a: [1"])
def test_a_folder_that_is_no_member_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "member.yaml").write_text(content)
    with pytest.raises(DataError) as caught:
        read_member_spec(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_member_never_replaces_another_nor_other_files(tmp_path):
    write_member(tmp_path / "m", SPEC, tensors())
    write_member(tmp_path / "m", SPEC, tensors())  # the same again changes nothing
    with pytest.raises(DataError, match="holds another member"):
        write_member(tmp_path / "m", SPEC, tensors(2.0))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    for out in ("full", "file"):
        with pytest.raises(DataError, match="choose"):
            write_member(tmp_path / out, SPEC, tensors())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full", "m"]


def test_weights_are_read_from_safetensors_and_from_state_dicts(tmp_path):
    save_file(tensors(), tmp_path / "w.safetensors")
    torch.save(tensors(), tmp_path / "w.pth")
    torch.save({"state_dict": {f"module.{k}": t for k, t in tensors().items()}}, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pth", "w.pt"):
        assert set(read_weights_file(tmp_path / name)) == {"a.weight", "steps"}


class _Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


def test_pickled_code_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": _Harmful()}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="holds more than tensors"):
        read_weights_file(tmp_path / "w.pth")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_weights_that_are_missing_or_damaged_are_one_line(tmp_path, name):
    with pytest.raises(DataError, match="no such file"):
        read_weights_file(tmp_path / name)
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(DataError) as caught:
        read_weights_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_of_something_else_than_a_state_dict_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "w.pth")
    with pytest.raises(DataError, match="no state dict"):
        read_weights_file(tmp_path / "w.pth")


def test_an_ensemble_comes_back_with_weights_and_specs(two, tmp_path):
    write_ensemble([(two / "a", 1.0), (two / "b", 2.0)], tmp_path / "ensembles" / "ab")
    ensemble = read_ensemble(tmp_path / "ensembles" / "ab")
    assert [m.weight for m in ensemble.members] == [1.0, 2.0]
    assert [m.member_id for m in ensemble.members] == [m.spec.member_id for m in ensemble.members]
    assert ensemble.taxonomy == SPEC.taxonomy
    assert [Path(m.path).name for m in ensemble.only(1).members] == ["b"]


def test_an_ensemble_and_its_members_may_be_moved_together(two, tmp_path):
    write_ensemble([(two / "a", 1.0)], two / "ensemble")
    (tmp_path / "elsewhere").mkdir()
    two.rename(tmp_path / "elsewhere" / "moved")
    ensemble = read_ensemble(tmp_path / "elsewhere" / "moved" / "ensemble")
    assert Path(ensemble.members[0].path) == tmp_path / "elsewhere" / "moved" / "a"


def test_what_cannot_be_an_ensemble_is_refused(two, tmp_path):
    with pytest.raises(DataError, match="at least one"):
        write_ensemble([], tmp_path / "e")
    with pytest.raises(DataError, match="is the same as"):
        write_ensemble([(two / "a", 1.0), (two / "a", 1.0)], tmp_path / "e")
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="weight must be above 0"):
            write_ensemble([(two / "a", weight)], tmp_path / "e")
    other = replace(SPEC, taxonomy=load_taxonomy("ladi_v1"))
    write_member(two / "other", other, tensors())
    with pytest.raises(TaxonomyError):
        write_ensemble([(two / "a", 1.0), (two / "other", 1.0)], tmp_path / "e")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 0}, "weight of .* must be above 0, got 0"),
        ({"weight": "much"}, "weight of .* must be above 0, got 'much'"),
        ({"member_id": "0"}, "build it again"),
        ({"path": "../gone"}, "member.yaml is missing"),
    ],
)
def test_an_edited_ensemble_is_refused(two, tmp_path, change, message):
    write_ensemble([(two / "a", 1.0)], tmp_path / "e")
    file = tmp_path / "e" / "ensemble.yaml"
    content = yaml.safe_load(file.read_text())
    content["members"][0] |= change
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=message):
        read_ensemble(tmp_path / "e")
    del content["members"][0]["weight"]
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match="each member needs path, member_id and weight"):
        read_ensemble(tmp_path / "e")


def test_a_member_that_changed_after_the_ensemble_was_built_is_named(two, tmp_path):
    write_ensemble([(two / "a", 1.0)], tmp_path / "e")
    for file in (two / "a").iterdir():
        file.unlink()
    write_member(two / "a", SPEC, tensors(3.0))
    with pytest.raises(DataError, match=r"has become .* build it again"):
        read_ensemble(tmp_path / "e")


def test_members_and_ensembles_are_read_from_a_web_server_and_weights_kept(
    two, tmp_path, monkeypatch
):
    monkeypatch.setenv("DSDI_SCRATCH_DIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("DSDI_MAX_ATTEMPTS", "1")
    write_ensemble([(two / "a", 1.0), (two / "b", 2.0)], two / "ensemble")
    near = read_ensemble(two / "ensemble")
    with file_server(two) as server:
        far = read_ensemble(f"{server.url}/ensemble")
        assert [m.path for m in far.members] == [f"{server.url}/a", f"{server.url}/b"]
        assert [m.member_id for m in far.members] == [m.member_id for m in near.members]
        joined = write_ensemble([(m.path, m.weight) for m in far.members], tmp_path / "joined")
        assert joined.members == far.members
        member = far.members[0]
        for _ in range(2):
            weights = read_member_weights(member.path, member.spec)
            assert weights.keys() == read_member_weights(two / "a", member.spec).keys()
        asked = [path for _, path, _ in server.requests if "safetensors" in path]
        assert len(asked) == 3  # facts, content, facts again: one fetch


def test_a_store_keeps_what_an_ensemble_on_a_web_server_uses(two, tmp_path, monkeypatch):
    monkeypatch.setenv("DSDI_MAX_ATTEMPTS", "1")
    write_ensemble([(two / "a", 1.0)], two / "ensemble")
    ScoreStore.open_or_create(str(tmp_path / "store"), SPEC.taxonomy)
    with file_server(two) as server:
        command = ["store", "gc", str(tmp_path / "store"), "--keep", f"{server.url}/ensemble"]
        done = CliRunner().invoke(app, [*command, "--dry-run"])
    assert done.exit_code == 0, done.exception


def test_remote_weights_that_are_not_the_members_are_refused_and_not_kept(
    two, tmp_path, monkeypatch
):
    monkeypatch.setenv("DSDI_SCRATCH_DIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("DSDI_MAX_ATTEMPTS", "1")
    spec, right = read_member_spec(two / "a"), (two / "a" / "model.safetensors").read_bytes()
    with file_server(two) as server:
        save_file(tensors(9.0), two / "a" / "model.safetensors")
        with pytest.raises(DataError, match="is not the one that it was made with"):
            read_member_weights(f"{server.url}/a", spec)
        (two / "a" / "model.safetensors").write_bytes(right)
        assert read_member_weights(f"{server.url}/a", spec)
        with pytest.raises(DataError, match="is no ensemble bundle: ensemble.yaml is missing"):
            read_ensemble(f"{server.url}/a")


def test_an_ensemble_is_not_written_among_other_files(two, tmp_path):
    with pytest.raises(DataError, match="a is not empty and no ensemble bundle"):
        write_ensemble([(two / "b", 1.0)], two / "a")
    write_ensemble([(two / "a", 1.0)], tmp_path / "e")
    write_ensemble([(two / "b", 1.0)], tmp_path / "e")
