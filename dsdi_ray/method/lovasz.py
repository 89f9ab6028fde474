"""The symmetric Lovasz hinge over an image's classes (paper section 2.4, model C12).

Shapes: B batch, C classes.
"""

import math

import torch
from torch import Tensor

from dsdi_ray.method.losses import in_full_precision

_SQRT_OFFSET = 1e-4


def symmetric_lovasz_hinge(
    logits: Tensor, targets: Tensor, *, scaling: str = "sqrt", weights: Tensor | None = None
) -> Tensor:
    r"""Mean of the Lovasz hinges of the classes and of their complement, per image.

    .. math:: s = \tfrac12 (L(x, y) + L(-x, 1 - y)),

    where L is the Lovasz hinge (Yu & Blaschko 2015) of the Jaccard loss between the set of an
    image's classes and the set of those with positive logits (Berman et al. 2018). The set is one
    image's classes, so an image's loss does not depend on the others of its mini-batch.

    ``sqrt`` scaling gives :math:`\sqrt{s + \epsilon} - \sqrt\epsilon` with epsilon 1e-4: the root
    itself has an infinite gradient at 0, where every class has its margin; this one's is at
    most 50, and it is at most 0.01 below the root.

    Args:
        logits: Scores before the sigmoid, ``[B, C]``, floating.
        targets: Labels in [0, 1], ``[B, C]``; a class is present from 0.5 on.
        scaling: ``sqrt`` or ``none``.
        weights: How much of a class is in the set, not negative, ``[B, C]``; 0 leaves it out. None
            for 1 each.

    Returns:
        Loss, ``[B]``, float32 at least.

    Raises:
        ValueError: If shapes differ or the scaling is unknown.
    """
    if scaling not in ("sqrt", "none"):
        raise ValueError(f"scaling must be sqrt or none, got {scaling!r}")
    logits, targets = in_full_precision(logits, targets)
    is_present = targets >= 0.5
    sizes = torch.ones_like(logits) if weights is None else weights.to(logits.dtype)
    if sizes.shape != logits.shape:
        raise ValueError(
            f"shapes must agree, got {tuple(logits.shape)} and weights {tuple(sizes.shape)}"
        )
    hinge = (_hinge(logits, is_present, sizes) + _hinge(-logits, ~is_present, sizes)) / 2
    if scaling == "none":
        return hinge
    # sqrt(s + e) - sqrt(e) without cancelling.
    return hinge / (torch.sqrt(hinge + _SQRT_OFFSET) + math.sqrt(_SQRT_OFFSET))


def _hinge(logits: Tensor, is_present: Tensor, sizes: Tensor) -> Tensor:
    """The Lovasz extension of the Jaccard loss at the margin violations, ``[B]``."""
    violations = torch.relu(1 - torch.where(is_present, logits, -logits))
    violations, order = torch.sort(violations, dim=-1, descending=True, stable=True)
    present = torch.where(is_present, sizes, 0).gather(-1, order)
    absent = torch.where(is_present, 0, sizes).gather(-1, order)
    # With the k worst classes predicted wrongly: missed and false ones over the union.
    wrong = (present + absent).cumsum(dim=-1)
    union = present.sum(dim=-1, keepdim=True) + absent.cumsum(dim=-1)
    jaccard = wrong / torch.where(union > 0, union, 1)
    steps = torch.diff(jaccard, dim=-1, prepend=torch.zeros_like(jaccard[..., :1]))
    # A sum, since autocast would round the operands of a matrix product.
    return (violations * steps).sum(dim=-1)
