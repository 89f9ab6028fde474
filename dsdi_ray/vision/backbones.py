"""Networks by name: those of the paper, and any other that timm knows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.vision.attention_branch import (
    AttentionBranchResNet50,
    abn_resnet50,
    copy_last_stage,
)
from dsdi_ray.vision.ibn import (
    IbnResNet50,
    from_published_layout,
    ibn_resnet50,
    se_ibn_resnet50,
    split_batch_norms,
)
from dsdi_ray.vision.precision import with_full_precision_head

Builder = Callable[..., nn.Module]


def _timm(name: str) -> Builder:
    return partial(timm.create_model, name)


# Those of the paper's Table 2, then those that its section 2.3 says were tried, each at about the
# size of ResNet-50. For SENet that is SE-ResNet-50: SENet-154 keeps 27 GB of a batch of 28 at
# 360 px (14 GB in mixed precision), the paper's GPU has 11. RegNet is Y, or X: it does not say.
BACKBONES: Mapping[str, Builder] = {
    "regnety_064": _timm("regnety_064"),
    "regnetx_064": _timm("regnetx_064"),
    "hrnet_w18": _timm("hrnet_w18"),
    "resnest50d": _timm("resnest50d"),
    "se_ibn_resnet50": se_ibn_resnet50,
    "abn_resnet50": abn_resnet50,
    "seresnet50": _timm("seresnet50"),
    "densenet121": _timm("densenet121"),
    "ibn_resnet50": ibn_resnet50,
    "resnext50_32x4d": _timm("resnext50_32x4d"),
    "efficientnet_b0": _timm("efficientnet_b0"),
}


# Slower with channels last, see tests/benchmarks/bench_memory_format.py.
_CONTIGUOUS = ("resnest",)


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects: mean and std per colour channel of pixels in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def build_backbone(name: str, *, num_classes: int, from_hub: bool = False) -> nn.Module:
    """Build a network with a head of ``num_classes`` logits.

    Args:
        name: A key of :data:`BACKBONES`, or any name of timm's.
        num_classes: C.
        from_hub: Start from timm's weights, which are fetched from a hub.

    Raises:
        ConfigError: If there is no such network, or the hub cannot be reached.
    """
    builder = BACKBONES.get(name)
    if builder is None:
        if not timm.is_model(name):
            close = timm.list_models(f"*{name[:6]}*")[:3]
            hint = f"; close: {', '.join(close)}" if close else ""
            raise ConfigError(f"backbone {name!r}: timm knows none of that name{hint}")
        builder = _timm(name)
    try:
        return with_full_precision_head(builder(num_classes=num_classes, pretrained=from_hub))
    except Exception as error:
        if not from_hub:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"backbone {name!r}: no weights from the hub ({reason}); pass a file with "
            "--set backbone.weights=FILE.safetensors, or none"
        ) from error


def preprocessing_of(backbone: nn.Module) -> Preprocessing:
    """The mean and std that a network's weights were trained with; ImageNet's by default."""
    config: dict[str, Any] = timm.data.resolve_model_data_config(backbone)  # type: ignore[attr-defined, no-untyped-call]
    return Preprocessing(mean=tuple(config["mean"]), std=tuple(config["std"]))


def prefers_channels_last(name: str) -> bool:
    """Whether a network's forward pass is the faster with its channels last in memory.

    A rule and not a trial, since the two give bits of their own: a job that goes on elsewhere must
    come to the same scores.
    """
    return not name.startswith(_CONTIGUOUS)


def load_pretrained(backbone: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Start from weights of the same network; a head of another size is left out.

    Networks with IBN also start from the plain ResNet of timm's, or from IBN-Net's published
    layout; the Attention Branch Network from a plain ResNet.

    Raises:
        DataError: If less than nine tenths of the network's other weights are there.
    """
    if isinstance(backbone, IbnResNet50):
        weights = split_batch_norms(from_published_layout(weights), backbone)
    elif isinstance(backbone, AttentionBranchResNet50):
        weights = copy_last_stage(weights)
    own = backbone.state_dict()
    fitting = {k: t for k, t in weights.items() if k in own and own[k].shape == t.shape}
    head = backbone.pretrained_cfg["classifier"] if hasattr(backbone, "pretrained_cfg") else ()  # type: ignore[index]
    heads = tuple(f"{name}." for name in ([head] if isinstance(head, str) else head))
    sizes = {k: t.numel() for k, t in own.items() if not k.startswith(heads)}
    share = sum(n for k, n in sizes.items() if k in fitting) / max(1, sum(sizes.values()))
    if share < 0.9:
        raise DataError(
            f"weights {source}: only {share:.0%} of the network's weights are in it; they are of "
            "another network"
        )
    backbone.load_state_dict(fitting, strict=False)


def load_exactly(backbone: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Load a whole network; one with IBN also from IBN-Net's published layout.

    Raises:
        DataError: Naming the first tensor that is missing, too many, or of another shape.
    """
    if isinstance(backbone, IbnResNet50):
        weights = from_published_layout(weights)
    own = backbone.state_dict()
    for name, tensor in own.items():
        if name not in weights:
            raise DataError(f"weights {source}: {name} {list(tensor.shape)} is missing")
        if weights[name].shape != tensor.shape:
            raise DataError(
                f"weights {source}: {name} is {list(weights[name].shape)}, the network with this "
                f"taxonomy needs {list(tensor.shape)}"
            )
    extra = sorted(set(weights) - set(own))
    if extra:
        raise DataError(f"weights {source}: {extra[0]} is not of this network")
    with torch.no_grad():
        backbone.load_state_dict(dict(weights))
