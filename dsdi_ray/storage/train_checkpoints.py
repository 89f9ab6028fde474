"""Checkpoints of a training run: a folder per epoch, there whole or not at all, without pickles.

A folder holds ``weights.safetensors``, ``optimizer.safetensors``, ``average.safetensors`` where a
moving average is kept, ``validation.safetensors`` (the logits of the validation part) where images
are held back, and ``state.json``: the run, the epoch, the metrics so far, and the hash of each file.
Randomness and the order of the images need no place in it: both follow from the recipe's seed and
the epoch's number.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsdi_ray.errors import DataError

WEIGHTS_FILE, AVERAGE_FILE = "weights.safetensors", "average.safetensors"
OPTIMIZER_FILE, STATE_FILE = "optimizer.safetensors", "state.json"
VALIDATION_FILE, _LOGITS = "validation.safetensors", "logits"
_FORMAT = "dsdi_ray training checkpoint 1"
_TEMPORARY = ".writing-"
_NAME = re.compile(r"epoch-(\d{5})")


@dataclass(frozen=True, kw_only=True)
class TrainCheckpoint:
    """The state of a run after an epoch.

    Attributes:
        epoch: Epochs done.
        history: Metrics of each epoch so far.
        weights: The network's.
        average: The moving average's, None where there is none.
        optimizer: Its tensors by name.
        validation: Logits of the validation part by :attr:`member_weights`, ``[N, C]``; None where
            no image is held back.
    """

    epoch: int
    history: Sequence[Mapping[str, Any]]
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None
    optimizer: Mapping[str, Tensor]
    validation: Tensor | None = None

    @property
    def member_weights(self) -> Mapping[str, Tensor]:
        """What a member of this epoch has: the moving average where there is one."""
        return self.weights if self.average is None else self.average


class TrainCheckpoints:
    """The checkpoints of one run.

    Args:
        folder: Where they lie.
        run_id: Hash of the recipe and the data.
    """

    def __init__(self, folder: Path, *, run_id: str) -> None:
        self._folder = folder
        self._run_id = run_id

    def epochs(self) -> list[int]:
        """Epochs that there are checkpoints of, ascending."""
        names = (_NAME.fullmatch(path.name) for path in self._folder.glob("epoch-*"))
        return sorted(int(name[1]) for name in names if name)

    def write(self, checkpoint: TrainCheckpoint, *, keep: Collection[int]) -> None:
        """Write a checkpoint, then remove those of epochs that are not to be kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(checkpoint.epoch)
        # A name of its own: workers of a driver that was killed may live on for a moment.
        temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        temporary.mkdir()
        tensors = {WEIGHTS_FILE: checkpoint.weights, OPTIMIZER_FILE: checkpoint.optimizer}
        if checkpoint.average is not None:
            tensors[AVERAGE_FILE] = checkpoint.average
        if checkpoint.validation is not None:
            tensors[VALIDATION_FILE] = {_LOGITS: checkpoint.validation}
        for name, content in tensors.items():
            plain = {key: t.detach().cpu().contiguous() for key, t in content.items()}
            save_file(plain, temporary / name)
        state = {
            "format": _FORMAT,
            "run_id": self._run_id,
            "epoch": checkpoint.epoch,
            "history": list(checkpoint.history),
            "sha256": {name: _sha256(temporary / name) for name in tensors},
        }
        (temporary / STATE_FILE).write_text(json.dumps(state), "utf-8")
        for file in temporary.iterdir():
            _force_to_disk(file)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        for epoch in self.epochs():
            if epoch != checkpoint.epoch and epoch not in keep:
                shutil.rmtree(self._path(epoch))

    def clean(self) -> None:
        """Remove what writes that were cut off left behind."""
        for path in self._folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)

    def latest(self) -> TrainCheckpoint | None:
        """The checkpoint to go on from; None: from the beginning.

        Raises:
            DataError: If it is damaged or of another run.
        """
        epochs = self.epochs()
        return self.read(epochs[-1]) if epochs else None

    def read(self, epoch: int) -> TrainCheckpoint:
        """Read the checkpoint of an epoch.

        Raises:
            DataError: If it is damaged or of another run.
        """
        path = self._path(epoch)
        state = self._read_state(path / STATE_FILE)
        tensors = {}
        for name, expected in state["sha256"].items():
            try:
                if _sha256(path / name) != expected:
                    raise DataError(_refusal(path / name, "is not as it was written"))
                tensors[name] = load_file(path / name)
            except (OSError, safetensors.SafetensorError) as error:
                raise DataError(_refusal(path / name, f"cannot be read ({error})")) from error
        return TrainCheckpoint(
            epoch=epoch,
            history=state["history"],
            weights=tensors[WEIGHTS_FILE],
            average=tensors.get(AVERAGE_FILE),
            optimizer=tensors[OPTIMIZER_FILE],
            validation=tensors.get(VALIDATION_FILE, {}).get(_LOGITS),
        )

    def _read_state(self, file: Path) -> dict[str, Any]:
        try:
            state = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(_refusal(file, f"cannot be read ({error})")) from error
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise DataError(_refusal(file, f"is not of format {_FORMAT!r}"))
        if state.get("run_id") != self._run_id:
            raise DataError(_refusal(file, "is of another recipe or other data"))
        if not {WEIGHTS_FILE, OPTIMIZER_FILE} <= set(state.get("sha256", ())):
            raise DataError(_refusal(file, "names no weights"))
        return state

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch:05}"


def _refusal(file: Path, reason: str) -> str:
    return (
        f"checkpoint {file}: {reason}; remove the folder {file.parent} to go on from the epoch "
        "before it, or start over with --no-resume"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
