"""Members between disk and network: load a bundle, make one of weights from elsewhere."""

from pathlib import Path

from dsdi_ray.errors import ConfigError
from dsdi_ray.storage.bundles import MemberSpec, read_member_spec
from dsdi_ray.storage.member_weights import read_member_weights, read_weights_file, write_member
from dsdi_ray.taxonomy import Taxonomy
from dsdi_ray.vision.backbones import (
    build_backbone,
    load_exactly,
    prefers_channels_last,
    preprocessing_of,
)
from dsdi_ray.vision.member import Member
from dsdi_ray.vision.network_facts import check_input_px


def import_member(
    *, backbone: str, weights_file: Path, taxonomy: Taxonomy, input_px: int, out: Path
) -> MemberSpec:
    """Check weights against a network and write a member bundle.

    Args:
        backbone: A name of :func:`dsdi_ray.vision.backbones.build_backbone`.
        weights_file: ``.safetensors``, ``.pt`` or ``.pth`` state dict of the whole network.
        taxonomy: What its outputs mean, in order.
        input_px: Side of its square input.
        out: Folder of the bundle.

    Raises:
        ConfigError: If there is no such network, or it cannot take that size.
        DataError: If the weights are not of it.
    """
    if input_px < 32:
        raise ConfigError(f"input_px must be at least 32, got {input_px}")
    check_input_px(backbone, input_px)
    network = build_backbone(backbone, num_classes=len(taxonomy))
    load_exactly(network, read_weights_file(weights_file), source=str(weights_file))
    preprocessing = preprocessing_of(network)
    spec = MemberSpec(
        backbone=backbone,
        input_px=input_px,
        mean=preprocessing.mean,
        std=preprocessing.std,
        taxonomy=taxonomy,
    )
    return write_member(out, spec, network.state_dict())


def load_member(path: str | Path, *, device: str = "cpu", compile_network: bool = False) -> Member:
    """Load a member bundle, of a folder or a URI, onto a device.

    Args:
        path: The bundle.
        device: ``cpu`` or ``cuda``.
        compile_network: Whether ``torch.compile`` makes code for it at its first frames.

    Raises:
        DataError: If it is none, or damaged.
    """
    spec = read_member_spec(path)
    network = build_backbone(spec.backbone, num_classes=len(spec.taxonomy))
    load_exactly(network, read_member_weights(path, spec), source=str(path))
    return Member(
        network,
        input_px=spec.input_px,
        mean=spec.mean,
        std=spec.std,
        device=device,
        channels_last=prefers_channels_last(spec.backbone),
        compile_network=compile_network,
    )
