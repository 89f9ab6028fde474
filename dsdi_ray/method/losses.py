"""Losses on soft labels (paper section 2.2).

Shapes: B batch, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float = 2.0) -> Tensor:
    r"""Soft-label focal loss per class (paper section 2.2, Eq. 1-2).

    .. math:: \ell_i = -(1-\hat p_i)^\gamma \log \hat p_i, \quad \hat p_i = 1 - |y_i - \sigma(x_i)|

    Zero exactly where ``sigmoid(logits) == targets``. Equals Lin et al. (2017) without alpha
    for targets in {0, 1}, and binary cross-entropy for those with gamma 0.

    Args:
        logits: Scores before the sigmoid, ``[B, C]``, floating.
        targets: Soft labels in [0, 1], ``[B, C]``.
        gamma: Focusing exponent, 0 or >= 1 (in between the gradient at p = y is infinite).

    Returns:
        Loss in nats, ``[B, C]``, unreduced, float32 at least; Eq. 1 is ``.sum(dim=-1)``.

    Raises:
        ValueError: If shapes differ or gamma is out of range.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"shapes must agree, got {tuple(logits.shape)} and {tuple(targets.shape)}")
    if gamma != 0 and gamma < 1:
        raise ValueError(f"gamma must be 0 or at least 1, got {gamma}")
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    targets = targets.to(logits.dtype)
    distance, log_p_hat = _distance_and_log_agreement(logits, targets)
    return -(distance**gamma) * log_p_hat


def _distance_and_log_agreement(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """|y - p| and log(1 - |y - p|), neither of which cancels.

    With p >= y, 1 - |y - p| = y + sigmoid(-x); else it is (1 - y) + sigmoid(x). Either way it is
    r + sigmoid(z), so its log is logaddexp(log r, logsigmoid(z)): exact where sigmoid underflows.
    """
    p = torch.sigmoid(logits)
    # A hard label is never passed, though p may round to it: what is left stays exact.
    is_above = (p >= targets) & (targets < 1)
    z = torch.where(is_above, -logits, logits)
    rest = torch.where(is_above, targets, 1 - targets)
    log_sigmoid = F.logsigmoid(z)
    is_hard = rest == 0
    # log(0) is kept out of the graph: logaddexp with -inf would give a gradient of nan.
    log_rest = torch.log(torch.where(is_hard, torch.ones_like(rest), rest))
    log_soft = torch.logaddexp(log_rest, log_sigmoid)
    # 1 - sigmoid(z) = sigmoid(-z) exactly; p - y and y - p both equal it less the rest.
    distance = (torch.sigmoid(-z) - rest).clamp_min(0)
    return distance, torch.where(is_hard, log_sigmoid, log_soft.clamp_max(0))
