import pytest
import torch
from torch import nn

from dsdi_ray.errors import ConfigError
from dsdi_ray.vision.backbones import build_backbone
from dsdi_ray.vision.network_facts import check_input_px, measure_network, network_facts


def small():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(4 * 8 * 8, 5),
    )


def test_a_small_networks_costs_are_those_reckoned_by_hand():
    facts = measure_network(small, input_px=8, batch_size=2)
    num_weights = 3 * 4 * 9 + 4 + 4 + (256 * 5 + 5)
    assert facts.num_parameters == num_weights
    assert facts.weight_bytes == 4 * (num_weights + 4 + 4) + 8  # two buffers and a counter
    assert facts.forward_gflops == pytest.approx(2 * (8 * 8 * 4 * 27 + 256 * 5) / 1e9)
    pictures, convolved, activated = 2 * 3 * 64, 2 * 4 * 64, 2 * 4 * 64
    assert facts.activation_bytes == 4 * (
        pictures + convolved + activated + 4 + 4
    )  # its statistics


def test_mixed_precision_keeps_half_of_the_activations_and_copies_of_the_weights():
    facts = measure_network(small, input_px=8, batch_size=2, mixed_precision=True)
    activations = 2 * (2 * 3 * 64 + 2 * 4 * 64 + 2 * 4 * 64)
    copies = 2 * (3 * 4 * 9 + 256 * 5)
    assert facts.activation_bytes == pytest.approx(activations + copies + 4 * (4 + 4), rel=0.01)


def test_activations_grow_with_the_batch_and_nothing_else_does():
    one, four = (
        network_facts("test_resnet", num_classes=5, input_px=64, batch_size=n) for n in (1, 4)
    )
    assert four.activation_bytes == pytest.approx(4 * one.activation_bytes, rel=0.01)
    assert (four.num_parameters, four.weight_bytes, four.forward_gflops) == (
        one.num_parameters,
        one.weight_bytes,
        one.forward_gflops,
    )


# Multiply-adds at 224 px as published: RegNet (Radosavovic et al., Tables 3-4: 6.4 and 6.5 GF),
# HRNetV2-W18 (Wang et al.: 4.3), ResNeSt-50 (Zhang et al.: 5.4), ResNet-50 (4.1).
@pytest.mark.parametrize(
    ("name", "giga_multiply_adds"),
    [
        ("resnet50", 4.09),
        ("ibn_resnet50", 4.09),
        ("se_ibn_resnet50", 4.09),
        ("regnety_064", 6.4),
        ("regnetx_064", 6.5),
        ("hrnet_w18", 4.3),
        ("resnest50d", 5.4),
    ],
)
def test_the_papers_networks_cost_what_is_published_of_them(name, giga_multiply_adds):
    facts = network_facts(name, num_classes=1000, input_px=224, batch_size=2)
    assert facts.forward_gflops / 2 == pytest.approx(giga_multiply_adds, rel=0.02)


def test_a_second_head_is_counted():
    plain, branched = (
        network_facts(name, num_classes=5, input_px=64, batch_size=2)
        for name in ("resnet50", "abn_resnet50")
    )
    assert branched.forward_gflops > 1.5 * plain.forward_gflops
    assert branched.activation_bytes > plain.activation_bytes


def test_the_estimate_is_what_autograd_really_keeps():
    network = small().train()
    own = {t.data_ptr() for t in network.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.randn(3, 3, 8, 8))
    buffers = {t.data_ptr() for t in network.buffers()}
    expected = sum(s.nbytes() for at, s in kept.items() if at not in own | buffers)
    assert measure_network(small, input_px=8, batch_size=3).activation_bytes == expected


@pytest.mark.parametrize(
    ("name", "input_px", "fitting"),
    [
        ("hrnet_w18", 360, "224 or 352 or 384"),
        ("hrnet_w18", 100, "96 or 128 or 224"),
        ("vit_tiny_patch16_224", 360, "224"),
        ("test_vit", 150, "128 or 160"),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused_with_those_that_it_can(
    name, input_px, fitting
):
    with pytest.raises(ConfigError, match=f"{name}' cannot take .* {input_px} px; .* {fitting}"):
        check_input_px(name, input_px)


@pytest.mark.parametrize(
    ("name", "input_px"),
    [("hrnet_w18", 448), ("resnest50d", 360), ("abn_resnet50", 33), ("se_ibn_resnet50", 32)],
)
def test_a_size_that_a_network_can_take_passes(name, input_px):
    check_input_px(name, input_px)
    network = build_backbone(name, num_classes=2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, input_px, input_px)).shape == (1, 2)


def test_an_unknown_network_is_named_as_when_it_is_built():
    with pytest.raises(ConfigError, match="timm knows none"):
        check_input_px("resnest50x", 224)
