"""What training minimises: a family's loss with the paper's techniques around it.

Shapes: B batch, C classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss per image, and its mean over the images of a mini-batch that are kept.

    What a family does not take is ignored.

    Attributes:
        family: Key of :data:`FAMILIES`.
        gamma: Focusing exponent of all families but ``bce``.
        beta: Of ``class_balanced``, as are the next two.
        class_counts: n_y per class, ``[C]``.
        normalized: Whether the class weights are scaled to a mean of 1.
        threshold: th of ``reduced``, as is the next.
        variant: ``as_printed`` or ``original``.
        none_indices: Positions of the none-classes.
        none_weight: Factor of their losses (models C08, C09).
        remove_outliers: Images of the largest losses that leave a mini-batch (model C11).
        lovasz_weight: Factor of the symmetric Lovasz hinge (model C12), 0 for none.
        lovasz_scaling: ``sqrt`` or ``none``.
    """

    family: str = "focal"
    gamma: float | None = 2.0
    beta: float | None = None
    class_counts: tuple[int, ...] | None = None
    normalized: bool | None = True
    threshold: float | None = None
    variant: str | None = "as_printed"
    none_indices: tuple[int, ...] = ()
    none_weight: float = 1.0
    remove_outliers: int = 0
    lovasz_weight: float = 0.0
    lovasz_scaling: str = "sqrt"

    def __call__(self, logits: Tensor, targets: Tensor, is_asked: Tensor | None = None) -> Tensor:
        """The mean of :meth:`per_image` over the images that are kept.

        Args:
            logits: Scores before the sigmoid, ``[B, C]``, floating.
            targets: Labels in [0, 1], ``[B, C]``.
            is_asked: Classes that count, bool ``[B, C]``; None: all of them.

        Returns:
            A scalar in nats.

        Raises:
            ValueError: If shapes differ, or no image would be left.
        """
        losses = self.per_image(logits, targets, is_asked)
        return losses[kept_images(losses, num_removed=self.remove_outliers)].mean()

    def per_image(self, logits: Tensor, targets: Tensor, is_asked: Tensor | None = None) -> Tensor:
        """The loss of each image, summed over classes as in Eq. 1, ``[B]``; see :meth:`__call__`.

        A none-class's weight is also its size in the sets of the Lovasz hinge.
        """
        per_class = FAMILIES[self.family](self, logits, targets)
        weights = torch.ones_like(per_class)
        weights[:, list(self.none_indices)] = self.none_weight
        if is_asked is not None:
            weights = weights * is_asked
        loss = (weights * per_class).sum(dim=-1)
        if self.lovasz_weight:
            loss = loss + self.lovasz_weight * symmetric_lovasz_hinge(
                logits, targets, scaling=self.lovasz_scaling, weights=weights
            )
        return loss


FAMILIES: Mapping[str, Callable[[Objective, Tensor, Tensor], Tensor]] = {
    "bce": lambda _, logits, targets: binary_cross_entropy(logits, targets),
    "focal": lambda objective, logits, targets: focal_loss(
        logits, targets, gamma=objective.gamma
    ),
    "class_balanced": lambda objective, logits, targets: class_balanced_focal_loss(
        logits,
        targets,
        class_counts=objective.class_counts,
        beta=objective.beta,
        gamma=objective.gamma,
        normalized=objective.normalized,
    ),
    "reduced": lambda objective, logits, targets: reduced_focal_loss(
        logits,
        targets,
        threshold=objective.threshold,
        gamma=objective.gamma,
        variant=objective.variant,
    ),
}
