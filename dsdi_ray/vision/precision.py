"""Mixed precision: activations of 16 bits on GPUs that are made for it, logits of 32."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Earlier GPUs have no instructions for bfloat16, and cuDNN no convolutions in it.
_AMPERE = (8, 0)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device is a GPU that computes in bfloat16: Ampere or later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE


def autocast(device: torch.device, *, is_wanted: bool = True) -> torch.autocast:
    """bfloat16 where operations allow it and the device has it; elsewhere nothing changes."""
    is_mixed = is_wanted and has_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=is_mixed)


class FullPrecisionLinear(nn.Linear):
    """A head that computes in the precision of its parameters under autocast as well.

    In bfloat16 a logit has 8 significant bits: of 2,000 clips most would tie with others.
    """

    @classmethod
    def of(cls, head: nn.Linear) -> "FullPrecisionLinear":
        """One with another's parameters."""
        own = cls(head.in_features, head.out_features, bias=head.bias is not None, device="meta")
        own.weight, own.bias = head.weight, head.bias
        return own

    def forward(self, features: Tensor) -> Tensor:
        """``[..., K]`` to ``[..., C]``."""
        kind = features.device.type
        if not torch.amp.is_autocast_available(kind):  # meta tensors, which tell sizes alone
            return super().forward(features)
        with torch.autocast(kind, enabled=False):
            return F.linear(features.to(self.weight.dtype), self.weight, self.bias)


def with_full_precision_head(network: nn.Module) -> nn.Module:
    """Make the last layer of one of timm's networks a :class:`FullPrecisionLinear`, where it is linear."""
    find: Callable[[], nn.Module] | None = getattr(network, "get_classifier", None)
    head = find() if find else None
    if isinstance(head, nn.Linear):
        (name,) = [name for name, module in network.named_modules() if module is head]
        network.set_submodule(name, FullPrecisionLinear.of(head))
    return network
