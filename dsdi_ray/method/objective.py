"""What training minimises: a family's loss with the paper's other techniques around it.

Shapes: B batch, C classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dsdi_ray.method.losses import (
    binary_cross_entropy,
    class_balanced_focal_loss,
    focal_loss,
    reduced_focal_loss,
)
from dsdi_ray.method.lovasz import symmetric_lovasz_hinge
from dsdi_ray.method.outliers import kept_images

FAMILIES: Mapping[str, Callable[..., Tensor]] = {
    "bce": binary_cross_entropy,
    "focal": focal_loss,
    "class_balanced": class_balanced_focal_loss,
    "reduced": reduced_focal_loss,
}


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss per image, and its mean over the images of a mini-batch that are kept.

    Attributes:
        family: Key of :data:`FAMILIES`.
        settings: Keyword arguments of the family's function, such as gamma.
        none_indices: Positions of the none-classes.
        none_weight: Factor of their losses (models C08, C09).
        remove_outliers: Images of the largest losses that leave each mini-batch (model C11).
        lovasz_weight: Factor of the symmetric Lovasz hinge that is added (model C12), 0 for none.
        lovasz_scaling: ``sqrt`` or ``none``.
    """

    family: str = "focal"
    settings: Mapping[str, Any] = field(default_factory=dict)
    none_indices: tuple[int, ...] = ()
    none_weight: float = 1.0
    remove_outliers: int = 0
    lovasz_weight: float = 0.0
    lovasz_scaling: str = "sqrt"

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {self.family!r}")

    def __call__(self, logits: Tensor, targets: Tensor, is_asked: Tensor | None = None) -> Tensor:
        """The mean of :meth:`per_image` over the images that are kept, a scalar.

        Outliers are removed from what one call is given: a micro-batch is a mini-batch of its own.

        Raises:
            ValueError: If shapes differ, a setting is out of range, or no image would be left.
        """
        return self.mean_of_kept(self.per_image(logits, targets, is_asked))

    def mean_of_kept(self, losses: Tensor) -> Tensor:
        """The mean over the images that are kept, a scalar; a GPU is not waited for.

        Args:
            losses: Of :meth:`per_image`, ``[B]``.

        Raises:
            ValueError: If no image would be left.
        """
        is_kept = kept_images(losses, num_removed=self.remove_outliers)
        return torch.where(is_kept, losses, 0).sum() / is_kept.sum()

    def per_image(self, logits: Tensor, targets: Tensor, is_asked: Tensor | None = None) -> Tensor:
        """The loss of each image: the sum over classes of Eq. 1, and the Lovasz hinge.

        The weight of a none-class is also its size in the sets of the Lovasz hinge.

        Args:
            logits: Scores before the sigmoid, ``[B, C]``, floating.
            targets: Labels in [0, 1], ``[B, C]``.
            is_asked: Classes that count, bool ``[B, C]``; None: all of them. A sum over fewer
                classes is not scaled up.

        Returns:
            ``[B]``, float32 at least.

        Raises:
            ValueError: If shapes differ or a setting is out of range.
        """
        per_class = FAMILIES[self.family](logits, targets, **self.settings)
        weights = self._weights(per_class, is_asked)
        loss = (weights * per_class).sum(dim=-1)
        if self.lovasz_weight == 0:
            return loss
        lovasz = symmetric_lovasz_hinge(
            logits, targets, scaling=self.lovasz_scaling, weights=weights
        )
        return loss + self.lovasz_weight * lovasz

    def _weights(self, per_class: Tensor, is_asked: Tensor | None) -> Tensor:
        weights = torch.ones_like(per_class)
        for i in self.none_indices:  # an index list would have to be copied to a GPU
            weights[:, i] = self.none_weight
        return weights if is_asked is None else torch.where(is_asked, weights, 0)
