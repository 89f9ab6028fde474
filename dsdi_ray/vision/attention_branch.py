"""Attention Branch Network: a ResNet-50 that learns where to look, and is told by a second head.

H. Fukui, T. Hirakawa, T. Yamashita, H. Fujiyoshi, "Attention Branch Network: Learning of Attention
Mechanism for Visual Explanation", CVPR 2019; layers as in the authors' repository
(github.com/machine-perception-robotics-group/attention_branch_network).

Shapes: B batch, K channels, H height, W width, C classes.
"""

from collections.abc import Mapping
from typing import Any

from timm.models import build_model_with_cfg
from timm.models.resnet import Bottleneck, ResNet, downsample_conv
from torch import Tensor, nn

_STAGE = "attention_branch.stage."
# Layers whose sizes follow the number of classes.
_HEADS = (
    "fc",
    "attention_branch.class_maps",
    "attention_branch.class_norm",
    "attention_branch.classifier",
    "attention_branch.to_map",
)


class AttentionBranch(nn.Module):
    """Features to an attention map, and to logits of its own.

    A copy of the last stage that keeps the resolution, a map per class, and from these maps both
    the attention and, by their means, the logits.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stage = nn.Sequential(
            Bottleneck(1024, 512, downsample=downsample_conv(1024, 2048, kernel_size=1)),
            Bottleneck(2048, 512),
            Bottleneck(2048, 512),
        )
        self.stage_norm = nn.BatchNorm2d(2048)
        self.class_maps = nn.Conv2d(2048, num_classes, kernel_size=1, bias=False)
        self.class_norm = nn.BatchNorm2d(num_classes)
        self.act = nn.ReLU(inplace=True)
        self.classifier = nn.Conv2d(num_classes, num_classes, kernel_size=1, bias=False)
        self.to_map = nn.Conv2d(num_classes, 1, kernel_size=3, padding=1, bias=False)
        self.map_norm = nn.BatchNorm2d(1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, 1024, H, W]`` to attention ``[B, 1, H, W]`` in [0, 1] and logits ``[B, C]``."""
        maps = self.class_maps(self.stage_norm(self.stage(features)))
        maps = self.act(self.class_norm(maps))
        attention = self.map_norm(self.to_map(maps)).sigmoid()
        return attention, self.classifier(maps).mean((2, 3))


class AttentionBranchResNet50(ResNet):
    """ResNet-50 whose last stage sees ``(1 + attention) * features``.

    In training ``[B, 3, H, W]`` becomes (logits, attention logits), each ``[B, C]``, and the loss is
    that of both, added up; in evaluation it becomes the logits alone.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, *, num_classes: int, **kwargs: Any) -> None:
        block: Any = Bottleneck
        super().__init__(block=block, layers=(3, 4, 6, 3), num_classes=num_classes, **kwargs)
        self.attention_branch = AttentionBranch(num_classes)
        self.init_weights()

    def forward(self, pictures: Tensor) -> Any:
        """Logits, or two of them: see the class."""
        features = self.maxpool(self.act1(self.bn1(self.conv1(pictures))))
        features = self.layer3(self.layer2(self.layer1(features)))
        attention, attention_logits = self.attention_branch(features)
        logits = self.forward_head(self.layer4((1 + attention) * features))
        return (logits, attention_logits) if self.training else logits


def abn_resnet50(*, pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 with an attention branch; ``pretrained``: begins with timm's ResNet-50."""
    network: AttentionBranchResNet50 = build_model_with_cfg(
        AttentionBranchResNet50,
        "resnet50",
        pretrained,
        pretrained_filter_fn=lambda weights, _: copy_last_stage(weights),
        pretrained_strict=False,  # the maps are the branch's own
        **options,
    )
    network.pretrained_cfg["classifier"] = _HEADS  # type: ignore[assignment, index, operator]
    return network


def copy_last_stage(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Let the attention branch begin with a plain ResNet's last stage, where it has none."""
    if any(name.startswith(_STAGE) for name in weights):
        return dict(weights)
    last = {k: t for k, t in weights.items() if k.startswith("layer4.")}
    return {**weights, **{k.replace("layer4.", _STAGE, 1): t for k, t in last.items()}}
