import pytest
import torch

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.vision.backbones import (
    BACKBONES,
    build_backbone,
    load_exactly,
    load_pretrained,
    preprocessing_of,
)

SMALL = "test_resnet"


# With 1000 classes. Those of timm are as published, in millions: RegNetY and X-6.4GF 30.6 and 26.2,
# HRNetV2-W18 21.3, ResNeSt-50 27.5, SE-ResNet-50 28.1, DenseNet-121 8.0, ResNeXt-50 25.0,
# EfficientNet-B0 5.3. ResNet-50 has 25,557,032, and IBN as many as batch normalisation. SE adds two
# layers to each block of K channels: 2 * K**2 / 16 weights and K / 16 + K biases. The attention
# branch adds a last stage (14,964,736), convolutions (2048 * C, C * C, 9 * C) and normalisations.
SE = sum(n * (2 * k * k // 16 + k // 16 + k) for n, k in [(3, 256), (4, 512), (6, 1024), (3, 2048)])
BRANCH = 14_964_736 + 2048 * 1000 + 1000 * 1000 + 9 * 1000 + 2 * (2048 + 1000 + 1)
NUM_PARAMETERS = {
    "regnety_064": 30_583_252,
    "regnetx_064": 26_209_256,
    "hrnet_w18": 21_299_004,
    "resnest50d": 27_483_240,
    "se_ibn_resnet50": 25_557_032 + SE,
    "abn_resnet50": 25_557_032 + BRANCH,
    "seresnet50": 28_088_024,
    "densenet121": 7_978_856,
    "ibn_resnet50": 25_557_032,
    "resnext50_32x4d": 25_028_904,
    "efficientnet_b0": 5_288_548,
}


@pytest.mark.parametrize("name", BACKBONES)
def test_the_papers_networks_have_their_number_of_weights_and_a_logit_per_class(name):
    with torch.device("meta"):
        network = build_backbone(name, num_classes=1000).eval()
        small = build_backbone(name, num_classes=37).eval()
    assert sum(p.numel() for p in network.parameters()) == NUM_PARAMETERS[name]
    assert small(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 37)


@pytest.mark.parametrize("name", ["resnest50d", "hrnet_w18", "regnety_064", "se_ibn_resnet50"])
def test_the_networks_of_table_2_compute(name):
    network = build_backbone(name, num_classes=37).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).isfinite().all()


@pytest.mark.parametrize("name", ["ibn_resnet50", "se_ibn_resnet50", "abn_resnet50"])
@pytest.mark.parametrize("is_training", [False, True])
def test_our_networks_compile_into_one_graph_for_any_batch(name, is_training):
    network = build_backbone(name, num_classes=3).train(is_training)
    compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=True)
    for num in (2, 3):
        pictures = torch.randn(num, 3, 64, 64)
        torch.testing.assert_close(compiled(pictures), network(pictures), rtol=1e-4, atol=1e-4)


def test_any_other_network_of_timm_can_be_named():
    assert build_backbone(SMALL, num_classes=5)(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_an_unknown_network_is_one_line_with_a_hint():
    with pytest.raises(ConfigError, match=r"'resnest50x': timm knows none .* close: resnes"):
        build_backbone("resnest50x", num_classes=3)


def test_without_a_hub_the_error_says_how_to_give_a_file(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"--set backbone.weights=FILE") as caught:
        build_backbone("resnest26d", num_classes=3, from_hub=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnest50d", "se_ibn_resnet50", "abn_resnet50"])
def test_preprocessing_is_that_of_the_networks_weights(name):
    found = preprocessing_of(build_backbone(name, num_classes=2))
    assert found.mean == pytest.approx((0.485, 0.456, 0.406))
    assert found.std == pytest.approx((0.229, 0.224, 0.225))


def test_pretrained_weights_replace_all_but_a_head_of_another_size():
    source = build_backbone(SMALL, num_classes=1000)
    target = build_backbone(SMALL, num_classes=3)
    head = target.get_classifier().weight.clone()
    load_pretrained(target, source.state_dict(), source="w")
    assert torch.equal(target.get_classifier().weight, head)
    own, given = dict(target.named_parameters()), dict(source.named_parameters())
    assert all(torch.equal(t, given[k]) for k, t in own.items() if given[k].shape == t.shape)


def test_weights_without_a_head_are_enough_to_start_from():
    network = build_backbone(SMALL, num_classes=3)
    weights = {k: t for k, t in network.state_dict().items() if not k.startswith("fc.")}
    started = build_backbone(SMALL, num_classes=5)
    load_pretrained(started, weights, source="w")
    own = started.state_dict()
    assert all(torch.equal(own[k], t) for k, t in weights.items())


@pytest.mark.parametrize("other", ["test_byobnet", "resnet10t"])
def test_pretrained_weights_of_another_network_are_refused(other):
    weights = build_backbone(other, num_classes=3).state_dict()
    with pytest.raises(DataError, match="they are of another network"):
        load_pretrained(build_backbone(SMALL, num_classes=3), weights, source="w.pth")


def test_no_weights_at_all_are_refused():
    with pytest.raises(DataError, match="only 0%"):
        load_pretrained(build_backbone(SMALL, num_classes=3), {}, source="w.pth")


def test_a_whole_network_is_loaded_exactly_or_not_at_all():
    source = build_backbone(SMALL, num_classes=3)
    weights = source.state_dict()
    target = build_backbone(SMALL, num_classes=3)
    load_exactly(target, weights, source="w")
    assert all(torch.equal(t, weights[k]) for k, t in target.state_dict().items())
    with pytest.raises(DataError, match=r"w: fc.weight is \[3, .*needs \[4, "):
        load_exactly(build_backbone(SMALL, num_classes=4), weights, source="w")
    with pytest.raises(DataError, match="w: extra is not of this network"):
        load_exactly(target, weights | {"extra": torch.zeros(1)}, source="w")
    without = {k: t for k, t in weights.items() if k != "fc.bias"}
    with pytest.raises(DataError, match=r"w: fc.bias \[3\] is missing"):
        load_exactly(target, without, source="w")
