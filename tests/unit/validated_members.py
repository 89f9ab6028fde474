"""Member bundles with validation logits, made up: no network was ever trained."""

from pathlib import Path

import numpy as np
import torch

from dsdi_ray.storage.bundles import MemberSpec
from dsdi_ray.storage.member_weights import write_member
from dsdi_ray.storage.validation_logits import ValidationLogits, write_validation
from dsdi_ray.taxonomy import Taxonomy, taxonomy_from_dict

TAXONOMY = taxonomy_from_dict(
    {"name": "floods", "classes": ["flood", "smoke", "boat", {"name": "none", "none": True}]}
)


def write_validated_member(
    out: Path,
    *,
    seed: int,
    noise: float = 2.0,
    num_images: int = 80,
    prepared_id: str = "p1",
    split_seed: int | None = 0,
    encoding: str = "paper",
    epoch: int = 4,
    groups: list[str | None] | None = None,
    taxonomy: Taxonomy = TAXONOMY,
    recipe: dict | None = None,
) -> MemberSpec:
    """A member that sees the labels of its split through noise of its own.

    The labels depend on the split alone, all else on the seed.
    """
    rng = np.random.default_rng(0 if split_seed is None else split_seed)
    present = rng.random((num_images, len(taxonomy))) < 0.3
    own = np.random.default_rng(1000 + seed)
    logits = present - 0.5 + noise * own.normal(size=present.shape)
    labels = present * (0.75 if encoding == "paper" else 1.0)
    described = recipe or {"name": out.name, "labels": {"encoding": encoding}}
    spec = write_member(
        out,
        MemberSpec(
            backbone="test_resnet",
            input_px=32,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            taxonomy=taxonomy,
            recipe=described,
            metrics={"epoch": epoch},
            training_data_id=prepared_id,
        ),
        {"w": torch.full((1,), float(seed))},
    )
    write_validation(
        out,
        ValidationLogits(
            image_ids=[f"split-{split_seed}-image-{i:03}" for i in range(num_images)],
            groups=[None] * num_images if groups is None else groups,
            soft_labels=labels.astype(np.float32),
            is_asked=np.ones(present.shape, bool),
            logits=logits.astype(np.float32),
            member_id=spec.member_id,
            taxonomy_id=taxonomy.taxonomy_id,
            prepared_id=prepared_id,
            split_seed=split_seed,
            epoch=epoch,
        ),
    )
    return spec
