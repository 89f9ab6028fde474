"""Losses on soft labels (paper section 2.2).

Shapes: B batch, C classes.
"""

from collections.abc import Sequence

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
    _check_gamma(gamma)
    distance, log_p_hat = _distance_and_log_agreement(*in_full_precision(logits, targets))
    return -(distance**gamma) * log_p_hat


def class_balanced_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: Sequence[int] | Tensor,
    beta: float = 0.9999,
    gamma: float = 2.0,
    normalized: bool = True,
) -> Tensor:
    r"""Class-balanced soft-label focal loss per class (paper section 2.2, Eq. 3).

    .. math:: \ell_i = -w_i (1-\hat p_i)^\gamma \log \hat p_i, \quad
        w_i = \frac{1-\beta}{1-\beta^{n_i}}

    Rare classes weigh more, the more so the nearer beta is to 1; with beta 0 it is the focal loss.
    A class's weight holds for its presence and its absence.

    Args:
        logits: Scores before the sigmoid, ``[B, C]``, floating.
        targets: Soft labels in [0, 1], ``[B, C]``.
        class_counts: n_y of each class, ``[C]``. One of 0, which would outweigh all others, weighs
            as little as the most frequent class and stays out of the mean.
        beta: In [0, 1); the paper's are 0.999 and 0.9999.
        gamma: Focusing exponent, 0 or >= 1.
        normalized: Whether weights are scaled to a mean of 1, as Cui et al. (2019) do. As printed
            they are not, and a class of n_i far beyond 1 / (1 - beta) weighs 1 - beta.

    Returns:
        Loss in nats, ``[B, C]``, unreduced, float32 at least; Eq. 3 is ``.sum(dim=-1)``.

    Raises:
        ValueError: If shapes differ or beta, gamma or a count is out of range.
    """
    weights = class_balanced_weights(class_counts, beta=beta, normalized=normalized)
    if weights.shape != logits.shape[-1:]:
        raise ValueError(f"class_counts must be of {logits.shape[-1]} classes, got {len(weights)}")
    loss = focal_loss(logits, targets, gamma=gamma)
    return weights.to(loss, non_blocking=True) * loss


def class_balanced_weights(
    class_counts: Sequence[int] | Tensor, *, beta: float, normalized: bool = True
) -> Tensor:
    """The weights of Eq. 3, float64 ``[C]``; see :func:`class_balanced_focal_loss`."""
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    counts = torch.as_tensor(class_counts, dtype=torch.float64, device="cpu")
    if counts.ndim != 1 or not (torch.isfinite(counts) & (counts >= 0)).all():
        raise ValueError(f"class_counts must be [C] and not negative, got {counts.tolist()}")
    # 1 - beta^n would cancel where beta is near 1 and n is small.
    log_beta = torch.log(torch.tensor(beta, dtype=torch.float64))
    weights = (1 - beta) / -torch.expm1(counts.clamp_min(1) * log_beta)
    is_counted = counts > 0 if counts.any() else torch.ones_like(counts, dtype=torch.bool)
    weights = torch.where(is_counted, weights, weights[is_counted].min())
    return weights / weights[is_counted].mean() if normalized else weights


def reduced_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    threshold: float = 0.5,
    gamma: float = 2.0,
    variant: str = "as_printed",
) -> Tensor:
    r"""Reduced soft-label focal loss per class (paper section 2.2, Eq. 4-6).

    .. math:: \ell_i = -f_i \log \hat p_i

    ``as_printed``: f is 1 where p_i > th and :math:`((1-\hat p_i)/th)^\gamma` elsewhere, a
    condition on the prediction, whatever the label. ``original`` (Sergievskiy & Ponamarev 2019):
    f is 1 where p_hat_i < th, so that what is classified wrongly is not damped, and
    :math:`((1-\hat p_i)/th)^\gamma` elsewhere. Either jumps at the threshold in general.

    Args:
        logits: Scores before the sigmoid, ``[B, C]``, floating.
        targets: Soft labels in [0, 1], ``[B, C]``.
        threshold: th, in (0, 1); the paper's are 0.3, 0.5 and 0.7.
        gamma: Focusing exponent, 0 or >= 1.
        variant: ``as_printed`` or ``original``.

    Returns:
        Loss in nats, ``[B, C]``, unreduced, float32 at least; Eq. 4 is ``.sum(dim=-1)``.

    Raises:
        ValueError: If shapes differ, threshold or gamma is out of range, or the variant unknown.
    """
    _check_gamma(gamma)
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be in (0, 1), got {threshold}")
    if variant not in ("as_printed", "original"):
        raise ValueError(f"variant must be as_printed or original, got {variant!r}")
    logits, targets = in_full_precision(logits, targets)
    distance, log_p_hat = _distance_and_log_agreement(logits, targets)
    is_damped = torch.sigmoid(logits) <= threshold
    if variant == "original":
        is_damped = distance <= 1 - threshold
    # Chosen before the power: an infinite one that is not chosen would make the gradient nan.
    factor = (torch.where(is_damped, distance, threshold) / threshold) ** gamma
    return -factor * log_p_hat


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Binary cross-entropy per class, the baseline: :math:`-y \log p - (1-y) \log(1-p)`.

    For a soft label the least loss, at p = y, is the label's entropy, not 0.

    Args:
        logits: Scores before the sigmoid, ``[B, C]``, floating.
        targets: Soft labels in [0, 1], ``[B, C]``.

    Returns:
        Loss in nats, ``[B, C]``, unreduced, float32 at least.

    Raises:
        ValueError: If shapes differ.
    """
    logits, targets = in_full_precision(logits, targets)
    # torch's own subtracts the logit from log p, and a hard label's tiny loss cancels to 0.
    return -targets * F.logsigmoid(logits) - (1 - targets) * F.logsigmoid(-logits)


def in_full_precision(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the logits' precision, float32 at least.

    Raises:
        ValueError: If shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"shapes must agree, got {tuple(logits.shape)} and {tuple(targets.shape)}")
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, targets.to(logits.dtype)


def _check_gamma(gamma: float) -> None:
    if gamma != 0 and gamma < 1:
        raise ValueError(f"gamma must be 0 or at least 1, got {gamma}")


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
