import pytest
import timm
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


def test_all_of_the_papers_networks_are_known_to_timm():
    assert all(timm.is_model(name) for name in BACKBONES)


@pytest.mark.parametrize("name", ["resnest50d", "hrnet_w18", "regnety_064"])
def test_the_networks_of_table_2_give_a_logit_per_class(name):
    network = build_backbone(name, num_classes=37).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 37)


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


def test_preprocessing_is_that_of_the_networks_weights():
    found = preprocessing_of(build_backbone("resnest50d", num_classes=2))
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
    load_pretrained(build_backbone(SMALL, num_classes=5), weights, source="w")


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
