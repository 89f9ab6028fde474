"""Outlier removal: the largest losses of a mini-batch leave its sum (paper section 2.4).

Shape: B batch.
"""

import torch
from torch import Tensor


def kept_images(losses: Tensor, *, num_removed: int = 1) -> Tensor:
    """The images of a mini-batch that stay when those of the largest losses are removed.

    A network that has learnt the classes has its highest losses on pictures whose labels are wrong.
    Of equal losses the earlier image is removed. A loss that is not finite is never removed: the
    run diverges, and that must be seen.

    Args:
        losses: Per image, ``[B]``.
        num_removed: The paper's is 1.

    Returns:
        True for images that stay, bool ``[B]``, without gradient.

    Raises:
        ValueError: If no image would be left.
    """
    num_images = len(losses)
    if not 0 <= num_removed < num_images:
        raise ValueError(f"num_removed must be from 0 to {num_images - 1}, got {num_removed}")
    losses = losses.detach()
    ranked = torch.where(torch.isfinite(losses), losses, -torch.inf)
    order = torch.argsort(ranked, descending=True, stable=True)
    is_kept = torch.ones_like(losses, dtype=torch.bool)
    is_kept[order[:num_removed]] = False
    return is_kept | ~torch.isfinite(losses)
