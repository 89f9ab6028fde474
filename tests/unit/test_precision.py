"""Logits keep 32 bits where activations have 16."""

import numpy as np
import pytest
import torch
from torch import nn

from dsdi_ray.vision.backbones import build_backbone
from dsdi_ray.vision.precision import (
    FullPrecisionLinear,
    autocast,
    has_bfloat16,
    with_full_precision_head,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "abn_resnet50", "densenet121"])
def test_logits_of_a_network_are_float32_under_autocast(name):
    torch.manual_seed(0)
    network = build_backbone(name, num_classes=5).eval()
    pictures = torch.randn(4, 3, 64, 64)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = network(pictures)
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16().float()).any(), "rounded to 8 bits on the way"


def test_the_head_has_the_parameters_and_bits_of_the_one_it_replaces():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    network.get_classifier = lambda: network[1]
    pictures, names = torch.randn(2, 3, 2, 2), list(network.state_dict())
    before = network(pictures)
    changed = with_full_precision_head(network)
    assert isinstance(changed[1], FullPrecisionLinear)
    assert list(changed.state_dict()) == names
    np.testing.assert_array_equal(changed(pictures).detach(), before.detach())


def test_a_cpu_computes_in_float32():
    assert not has_bfloat16(CPU)
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
