"""Which images are held back for validation: seeded, and the same in any order of the rows."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def assign_splits(
    image_ids: Sequence[str],
    *,
    validation_fraction: float = 0.2,
    seed: int = 0,
    groups: Sequence[str | None] | None = None,
) -> NDArray[np.bool_]:
    """Hold images back for validation (80/20 in the paper, section 3, a new split per model).

    Groups are visited in the order of a hash of seed and name, and each is held back if that
    brings the number of images nearer to the fraction. So the result depends on the set of names
    alone; without groups it misses ``validation_fraction * N`` by at most half an image, with
    groups by at most half of the largest one.

    Args:
        image_ids: Names, ``[N]``; rows of one name stay together.
        validation_fraction: Part of the images to hold back, in [0, 1].
        seed: Which ones.
        groups: Event or flight of each image, ``[N]``; images of a group stay together. An image
            whose group is None is a group of its own.

    Returns:
        ``is_validation``, ``[N]``.

    Raises:
        ValueError: If the fraction is out of range or the lengths differ.
    """
    if not 0 <= validation_fraction <= 1:
        raise ValueError(f"validation_fraction must be in [0, 1], got {validation_fraction}")
    if groups is not None and len(groups) != len(image_ids):
        raise ValueError(f"groups must be as many as images: {len(groups)}, {len(image_ids)}")
    units = [
        ("image", image_id) if group is None else ("group", group)
        for image_id, group in zip(image_ids, groups or [None] * len(image_ids), strict=True)
    ]
    sizes = Counter(units)
    target = validation_fraction * len(units)
    held_back: set[tuple[str, str]] = set()
    num_held_back = 0
    for unit in sorted(sizes, key=lambda u: (_digest(seed, *u), u)):
        if abs(num_held_back + sizes[unit] - target) < abs(num_held_back - target):
            held_back.add(unit)
            num_held_back += sizes[unit]
    return np.fromiter((u in held_back for u in units), dtype=np.bool_, count=len(units))


def join_groups(
    image_ids: Sequence[str],
    groups: Sequence[str | None],
    duplicates: Iterable[Sequence[int]],
) -> list[str | None]:
    """Make one group of groups that share a picture, so that no picture is on both sides.

    Args:
        image_ids: Names, ``[N]``.
        groups: Group of each image, ``[N]``; None for an image by itself.
        duplicates: Places of images that are the same picture.

    Returns:
        Groups, ``[N]``, each called after the first of its groups or else its images; None for an
        image by itself.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(unit: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.get(unit, unit)) != unit:
            unit = above
        return unit

    units = [
        ("image", image_id) if group is None else ("group", group)
        for image_id, group in zip(image_ids, groups, strict=True)
    ]
    for places in duplicates:
        roots = sorted({root(units[place]) for place in places})
        parent |= dict.fromkeys(roots[1:], roots[0])
    joined = [root(unit) for unit in units]
    sizes = Counter(joined)
    return [None if kind == "image" and sizes[kind, name] == 1 else name for kind, name in joined]


def _digest(seed: int, kind: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{kind}\0{name}".encode()).digest()
