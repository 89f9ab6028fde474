import json

import pytest
import torch
from safetensors.torch import save_file

from dsdi_ray.errors import DataError
from dsdi_ray.storage.train_checkpoints import TrainCheckpoint, TrainCheckpoints


def checkpoint(epoch, *, average=False, validation=False):
    tensor = torch.full((2, 3), float(epoch))
    return TrainCheckpoint(
        epoch=epoch,
        history=[{"epoch": i + 1, "lrap": None} for i in range(epoch)],
        weights={"w": tensor},
        average={"w": tensor / 2} if average else None,
        optimizer={"0.step": torch.tensor(7.0)},
        validation=torch.full((4, 3), epoch + 0.5) if validation else None,
    )


@pytest.fixture
def checkpoints(tmp_path):
    return TrainCheckpoints(tmp_path / "checkpoints", run_id="one")


def test_what_is_written_is_read(checkpoints):
    assert checkpoints.latest() is None
    checkpoints.write(checkpoint(1, average=True), keep=())
    read = checkpoints.latest()
    assert (read.epoch, read.history) == (1, [{"epoch": 1, "lrap": None}])
    assert torch.equal(read.weights["w"], torch.ones(2, 3))
    assert read.optimizer["0.step"] == 7
    assert torch.equal(read.member_weights["w"], torch.full((2, 3), 0.5))


def test_only_those_that_are_wanted_are_kept(checkpoints):
    for epoch in range(1, 6):
        checkpoints.write(checkpoint(epoch), keep={2, epoch - 1})
    assert checkpoints.epochs() == [2, 4, 5]
    assert checkpoints.latest().epoch == 5
    assert torch.equal(checkpoints.read(2).member_weights["w"], torch.full((2, 3), 2.0))


def test_validation_logits_are_kept_and_go_with_their_checkpoint(checkpoints, tmp_path):
    for epoch in range(1, 4):
        checkpoints.write(checkpoint(epoch, validation=True), keep={1})
    assert torch.equal(checkpoints.read(1).validation, torch.full((4, 3), 1.5))
    assert torch.equal(checkpoints.latest().validation, torch.full((4, 3), 3.5))
    assert len(list((tmp_path / "checkpoints").rglob("validation.safetensors"))) == 2


def test_without_images_that_are_held_back_there_are_none(checkpoints):
    checkpoints.write(checkpoint(1), keep=())
    assert checkpoints.latest().validation is None


def test_a_write_that_was_cut_off_is_not_seen_and_goes(checkpoints, tmp_path):
    checkpoints.write(checkpoint(1), keep=())
    torn = tmp_path / "checkpoints" / ".writing-0"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    assert checkpoints.latest().epoch == 1
    checkpoints.clean()
    assert not torn.exists()


def _flip_a_bit(folder):
    file = folder / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def _other_weights(folder):
    save_file({"w": torch.zeros(2, 3)}, folder / "weights.safetensors")


def _other_logits(folder):
    save_file({"logits": torch.zeros(4, 3)}, folder / "validation.safetensors")


def _edit(**changes):
    def edit(folder):
        file = folder / "state.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_a_bit, r"weights.safetensors: is not as it was written"),
        (_other_weights, r"weights.safetensors: is not as it was written"),
        (_other_logits, r"validation.safetensors: is not as it was written"),
        (
            lambda f: (f / "optimizer.safetensors").unlink(),
            r"optimizer.safetensors: cannot be read",
        ),
        (lambda f: (f / "state.json").write_text("{"), r"state.json: cannot be read"),
        (lambda f: (f / "state.json").write_text("[]"), r"state.json: is not of format"),
        (_edit(run_id="other"), r"state.json: is of another recipe or other data"),
        (_edit(sha256={}), r"state.json: names no weights"),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_refused_with_what_to_do(
    checkpoints, tmp_path, damage, message
):
    checkpoints.write(checkpoint(1), keep=())
    checkpoints.write(checkpoint(2, validation=True), keep={1})
    folder = tmp_path / "checkpoints" / "epoch-00002"
    damage(folder)
    with pytest.raises(DataError, match=message) as error:
        checkpoints.latest()
    assert f"remove the folder {folder} to go on from the epoch before it" in str(error.value)
    assert "--no-resume" in str(error.value)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert checkpoints.latest().epoch == 1
