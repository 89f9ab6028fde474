"""From the checkpoints of a run that is over to member bundles.

OUT is the member that the recipe selects, with ``history.jsonl`` and ``tensorboard/`` beside its
weights; OUT/last is the network after the last epoch and OUT/snapshots/cycle-K that after the K-th
cycle of the learning rate. Each of them is a member bundle of its own, with its logits of the images
that were held back (:mod:`dsdi_ray.storage.validation_logits`).
"""

import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.train_labels import LabelledPart, labelled_parts
from dsdi_ray.method.epoch_selection import selected_epoch
from dsdi_ray.method.snapshots import cycle_ends
from dsdi_ray.storage.bundles import MemberSpec
from dsdi_ray.storage.member_weights import write_member
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.storage.train_checkpoints import TrainCheckpoint, TrainCheckpoints
from dsdi_ray.storage.unfinished import unfinished_beside
from dsdi_ray.storage.validation_logits import ValidationLogits, write_validation
from dsdi_ray.vision.backbones import Preprocessing

_ID_CHARACTERS = 8
LAST, SNAPSHOTS = "last", "snapshots"
_METRICS = ("epoch", "train_loss", "validation_loss", "lrap", "map")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run's members have in common.

    Attributes:
        recipe: How it was trained.
        prepared: On what.
        preprocessing: Of the network.
    """

    recipe: Recipe
    prepared: PreparedSet
    preprocessing: Preprocessing

    @cached_property
    def validation_part(self) -> LabelledPart:
        """The images that were held back."""
        return labelled_parts(self.prepared, self.recipe)[1]

    def write(self, out: Path, checkpoint: TrainCheckpoint) -> MemberSpec:
        """Write the member of a checkpoint, and its logits of the images that were held back."""
        metrics = {k: v for k, v in checkpoint.history[-1].items() if k in _METRICS}
        spec = write_member(
            out,
            MemberSpec(
                backbone=self.recipe.backbone.name,
                input_px=self.recipe.input_px,
                mean=self.preprocessing.mean,
                std=self.preprocessing.std,
                taxonomy=self.prepared.taxonomy,
                recipe=self.recipe.model_dump(mode="json"),
                metrics={k: v for k, v in metrics.items() if v is not None},
                training_data_id=self.prepared.prepared_id,
            ),
            checkpoint.member_weights,
        )
        if checkpoint.validation is not None:
            self._write_validation(out, spec, checkpoint.epoch, checkpoint.validation.numpy())
        return spec

    def _write_validation(
        self, out: Path, spec: MemberSpec, epoch: int, logits: NDArray[np.float32]
    ) -> None:
        part, is_asked = self.validation_part, self.validation_part.is_asked
        write_validation(
            out,
            ValidationLogits(
                image_ids=part.image_ids,
                groups=part.groups,
                soft_labels=part.labels,
                is_asked=np.ones(part.labels.shape, np.bool_) if is_asked is None else is_asked,
                logits=logits,
                member_id=spec.member_id,
                taxonomy_id=spec.taxonomy.taxonomy_id,
                prepared_id=self.prepared.prepared_id,
                split_seed=self.recipe.split_seed,
                epoch=epoch,
            ),
        )


def write_bundles(
    out: Path, trained: Trained, checkpoints: TrainCheckpoints, *, beside: Sequence[Path]
) -> MemberSpec:
    """Write all members of a run; they appear at once.

    Args:
        out: Folder of the selected one; a member that is there is replaced.
        trained: What they have in common.
        checkpoints: Of the run.
        beside: Files and folders that are copied into ``out``.

    Returns:
        The selected one.
    """
    recipe = trained.recipe
    last = checkpoints.read(recipe.epochs)
    history: Sequence[Mapping[str, Any]] = last.history
    best = checkpoints.read(selected_epoch(history, recipe.selection))
    for torn in unfinished_beside(out, num_id_characters=_ID_CHARACTERS, suffix="tmp"):
        shutil.rmtree(torn)
    staging = out.with_name(f".{out.name}.{uuid.uuid4().hex[:_ID_CHARACTERS]}.tmp")
    spec = trained.write(staging, best)
    trained.write(staging / LAST, last)
    cycles = recipe.schedule.cycles
    for k, epoch in enumerate(cycle_ends(recipe.epochs, cycles) if cycles else (), start=1):
        trained.write(staging / SNAPSHOTS / f"cycle-{k}", checkpoints.read(epoch))
    for path in beside:
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, staging / path.name)
    if out.exists():
        shutil.rmtree(out)
    staging.rename(out)
    return spec
