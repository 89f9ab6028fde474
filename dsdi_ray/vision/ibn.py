"""IBN-Net: ResNet-50 whose first stages normalise half of their channels per image.

X. Pan, P. Luo, J. Shi, X. Tang, "Two at Once: Enhancing Learning and Generalization Capacities via
IBN-Net", ECCV 2018, variant a, as in the authors' repository (github.com/XingangPan/IBN-Net). With
squeeze-and-excitation (J. Hu et al., CVPR 2018) it is the paper's model D13, SE-IBN-ResNet50.

Shapes: B batch, K channels, H height, W width, C classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.models import build_model_with_cfg
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

_PUBLISHED_NAMES = {
    ".bn1.IN.": ".bn1.instance_norm.",
    ".bn1.BN.": ".bn1.batch_norm.",
    ".se.fc.0.": ".se.fc1.",
    ".se.fc.2.": ".se.fc2.",
}


class InstanceBatchNorm(nn.Module):
    """Instance normalisation of the first half of the channels, batch normalisation of the rest.

    What makes instances alike, such as light and haze, goes from the first half; what tells them
    apart stays in the second. Has as many parameters as batch normalisation of all channels.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_instance = num_channels // 2
        self.instance_norm = nn.InstanceNorm2d(self.num_instance, affine=True)
        self.batch_norm = nn.BatchNorm2d(num_channels - self.num_instance)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, K, H, W]`` to the same."""
        first, rest = features[:, : self.num_instance], features[:, self.num_instance :]
        return torch.cat([self.instance_norm(first), self.batch_norm(rest)], dim=1)


class IbnBottleneck(Bottleneck):
    """A residual block with IBN behind its first convolution, where IBN-a has it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bn1 = InstanceBatchNorm(self.conv1.out_channels)


class IbnResNet50(ResNet):
    """ResNet-50 with IBN-a in stages 1 to 3: ``[B, 3, H, W]`` to logits ``[B, C]``.

    The last stage has none, since what it tells apart are the classes.
    """

    def __init__(self, **kwargs: Any) -> None:
        block: Any = (IbnBottleneck, IbnBottleneck, IbnBottleneck, Bottleneck)
        super().__init__(block=block, layers=(3, 4, 6, 3), **kwargs)


def ibn_resnet50(*, pretrained: bool = False, **options: Any) -> nn.Module:
    """IBN-Net's ``resnet50_ibn_a``; ``pretrained``: begins with timm's ResNet-50."""
    network: nn.Module = build_model_with_cfg(
        IbnResNet50, "resnet50", pretrained, pretrained_filter_fn=split_batch_norms, **options
    )
    return network


def se_ibn_resnet50(*, pretrained: bool = False, **options: Any) -> nn.Module:
    """IBN-Net's ``se_resnet50_ibn_a``; ``pretrained``: begins with timm's SE-ResNet-50.

    The SE blocks stand before the residual addition. They are timm's, whose two layers have biases
    that the published ones lack: so timm's ImageNet weights can be loaded whole, and the published
    layout with biases of 0.
    """
    network: nn.Module = build_model_with_cfg(
        IbnResNet50,
        "seresnet50",
        pretrained,
        pretrained_filter_fn=split_batch_norms,
        block_args={"attn_layer": "se"},
        **options,
    )
    return network


def from_published_layout(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of IBN-Net's repository to ours; others are left as they are.

    Published are ``bn1.IN`` and ``bn1.BN`` for the halves of an IBN layer, and for an SE block the
    linear layers ``se.fc.0`` and ``se.fc.2`` without biases, which are 1x1 convolutions here.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        theirs = next((part for part in _PUBLISHED_NAMES if part in name), None)
        if theirs is None:
            renamed[name] = tensor
            continue
        own = name.replace(theirs, _PUBLISHED_NAMES[theirs])
        is_linear = ".se." in own and own.endswith(".weight")
        renamed[own] = tensor[:, :, None, None] if is_linear else tensor
        if is_linear:
            renamed.setdefault(own.replace(".weight", ".bias"), tensor.new_zeros(len(tensor)))
    return renamed


def split_batch_norms(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Share a plain ResNet's batch normalisations out among the halves of IBN layers.

    To start from, not to compute the same: instances are normalised by statistics of their own.

    Args:
        weights: Of a network with or without IBN.
        network: One with IBN.
    """
    started = dict(weights)
    for name, module in network.named_modules():
        if not isinstance(module, InstanceBatchNorm):
            continue
        half = module.num_instance
        for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            whole = started.pop(f"{name}.{kind}", None)
            if whole is None:
                continue
            is_per_channel = whole.ndim > 0
            started[f"{name}.batch_norm.{kind}"] = whole[half:] if is_per_channel else whole
            if kind in ("weight", "bias"):
                started[f"{name}.instance_norm.{kind}"] = whole[:half]
    return started
