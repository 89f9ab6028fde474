"""What a network costs, found without computing it: tensors that have shapes and no data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dsdi_ray.errors import ConfigError
from dsdi_ray.vision.backbones import build_backbone

_SIDE_STEP_PX = 32


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """A network's size and what it asks of a machine.

    Attributes:
        num_parameters: Numbers that are trained.
        weight_bytes: Of parameters and buffers. Training with momentum holds the parameters three
            times (gradients, momentum), with AdamW four times.
        forward_gflops: Per picture; a multiplication and an addition count as two. A training
            step costs about three times that.
        activation_bytes: What a training step keeps of a batch for its backward pass.
    """

    num_parameters: int
    weight_bytes: int
    forward_gflops: float
    activation_bytes: int


def network_facts(
    name: str,
    *,
    num_classes: int,
    input_px: int,
    batch_size: int,
    mixed_precision: bool = False,
) -> NetworkFacts:
    """What a backbone costs.

    Args:
        name: A name of :func:`dsdi_ray.vision.backbones.build_backbone`.
        num_classes: C.
        input_px: Side of the square pictures.
        batch_size: Pictures per training step.
        mixed_precision: Whether activations are bfloat16 where autocast makes them so.

    Raises:
        ConfigError: If there is no such network, or it cannot take that size.
    """
    check_input_px(name, input_px)
    return measure_network(
        partial(build_backbone, name, num_classes=num_classes),
        input_px=input_px,
        batch_size=batch_size,
        mixed_precision=mixed_precision,
    )


def measure_network(
    build: Callable[[], nn.Module], *, input_px: int, batch_size: int, mixed_precision: bool = False
) -> NetworkFacts:
    """What the network that ``build`` makes costs; see :func:`network_facts`."""
    with torch.device("meta"):
        network = build().train()
    # Autocast knows no meta tensors, but fake ones that say they are on a CPU.
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        weights = [*network.parameters(), *network.buffers()]
        pictures = torch.empty(batch_size, 3, input_px, input_px)
        kept = _kept_for_backward(network, pictures, mixed_precision=mixed_precision)
        own = {t.untyped_storage()._cdata for t in weights}  # noqa: SLF001
        with FlopCounterMode(display=False) as counter:
            network.eval()(pictures[:1])
        return NetworkFacts(
            num_parameters=sum(p.numel() for p in network.parameters()),
            weight_bytes=sum(t.nbytes for t in weights),
            forward_gflops=counter.get_total_flops() / 1e9,
            activation_bytes=sum(s.nbytes() for k, s in kept.items() if k not in own),
        )


def _kept_for_backward(
    network: nn.Module, pictures: Tensor, *, mixed_precision: bool
) -> dict[int, torch.UntypedStorage]:
    """The memory that autograd saves in a forward pass, each piece once."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # noqa: SLF001  # held, so that no other gets its address
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision),
    ):
        network(pictures)
    return kept


def check_input_px(name: str, input_px: int) -> None:
    """Refuse a size that a network cannot take, before anything is loaded or trained.

    The network is tried on a picture without data, so it takes a fraction of a second. One that
    cannot be tried so, not even with the size that it was made for, is not refused.

    Args:
        name: A name of :func:`dsdi_ray.vision.backbones.build_backbone`.
        input_px: Side of the square pictures.

    Raises:
        ConfigError: If there is no such network, or it cannot take that size.
    """
    with torch.device("meta"):
        network = build_backbone(name, num_classes=2).eval()
    if _takes(network, input_px):
        return
    made_for: int = network.pretrained_cfg["input_size"][-1]  # type: ignore[index, assignment]
    below = input_px // _SIDE_STEP_PX * _SIDE_STEP_PX
    candidates = sorted({below, below + _SIDE_STEP_PX, made_for} - {0, input_px})
    fitting = [str(px) for px in candidates if _takes(network, px)]
    if fitting:
        raise ConfigError(
            f"input_px: backbone {name!r} cannot take pictures of {input_px} px; it takes "
            f"{' or '.join(fitting)}"
        )


@torch.inference_mode()
def _takes(network: nn.Module, input_px: int) -> bool:
    try:
        network(torch.empty(1, 3, input_px, input_px, device="meta"))
    except Exception:  # each network has its own way of refusing
        return False
    return True
