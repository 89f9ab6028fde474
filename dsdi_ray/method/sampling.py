"""Seeded splits that do not depend on the order of the rows."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def assign_splits(
    image_ids: Sequence[str], *, validation_fraction: float = 0.2, seed: int = 0
) -> NDArray[np.bool_]:
    """Choose the images that are held back for validation.

    Images are ranked by a hash of the seed and their id, and the first ones are held back: the
    same images whatever their order, and nearly the same when images are added.

    Args:
        image_ids: Unique ids, N of them.
        validation_fraction: Part held back, in [0, 1); rounded to whole images.
        seed: Another seed, another choice.

    Returns:
        True where held back, ``[N]``.

    Raises:
        ValueError: If the fraction is out of range.
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"validation_fraction must be in [0, 1), got {validation_fraction}")
    keys = [hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in image_ids]
    num_held_back = round(validation_fraction * len(image_ids))
    is_validation = np.zeros(len(image_ids), dtype=np.bool_)
    is_validation[sorted(range(len(keys)), key=keys.__getitem__)[:num_held_back]] = True
    return is_validation
