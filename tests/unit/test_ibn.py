"""IBN-Net's networks against its published layout, written out here with nothing but torch."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from dsdi_ray.distributed.members import import_member, load_member
from dsdi_ray.errors import DataError
from dsdi_ray.taxonomy import load_taxonomy
from dsdi_ray.vision.backbones import build_backbone, load_exactly, load_pretrained
from dsdi_ray.vision.ibn import InstanceBatchNorm, ibn_resnet50

STAGES = {1: (3, 64), 2: (4, 128), 3: (6, 256), 4: (3, 512)}
NAMES = pytest.mark.parametrize("name", ["ibn_resnet50", "se_ibn_resnet50"])


def published_weights(*, num_classes, with_se):
    """A state dict with the names and shapes of IBN-Net's repository."""
    torch.manual_seed(0)
    weights = {}

    def conv(name, num_out, num_in, side):
        scale = (2 / (num_in * side**2)) ** 0.5
        weights[f"{name}.weight"] = scale * torch.randn(num_out, num_in, side, side)

    def affine(name, num):
        weights[f"{name}.weight"] = 0.5 + torch.rand(num)
        weights[f"{name}.bias"] = 0.2 * torch.randn(num)

    def norm(name, num):
        affine(name, num)
        weights[f"{name}.running_mean"] = 0.2 * torch.randn(num)
        weights[f"{name}.running_var"] = 0.5 + torch.rand(num)
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    num_in = 64
    for stage, (num_blocks, width) in STAGES.items():
        for block in range(num_blocks):
            at = f"layer{stage}.{block}"
            conv(f"{at}.conv1", width, num_in, 1)
            if stage < 4:
                affine(f"{at}.bn1.IN", width // 2)
                norm(f"{at}.bn1.BN", width // 2)
            else:
                norm(f"{at}.bn1", width)
            conv(f"{at}.conv2", width, width, 3)
            norm(f"{at}.bn2", width)
            conv(f"{at}.conv3", 4 * width, width, 1)
            norm(f"{at}.bn3", 4 * width)
            if with_se:
                weights[f"{at}.se.fc.0.weight"] = 0.1 * torch.randn(width // 4, 4 * width)
                weights[f"{at}.se.fc.2.weight"] = 0.1 * torch.randn(4 * width, width // 4)
            if block == 0:
                conv(f"{at}.downsample.0", 4 * width, num_in, 1)
                norm(f"{at}.downsample.1", 4 * width)
            num_in = 4 * width
    weights["fc.weight"] = 0.05 * torch.randn(num_classes, 2048)
    weights["fc.bias"] = torch.randn(num_classes)
    return weights


def published_logits(weights, x):
    """What such weights compute in evaluation."""

    def conv(name, x, stride=1):
        kernel = weights[f"{name}.weight"]
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(name, x):
        means, scales, shifts, gains = (
            weights[f"{name}.{kind}"][:, None, None]
            for kind in ("running_mean", "running_var", "bias", "weight")
        )
        return (x - means) / (scales + 1e-5).sqrt() * gains + shifts

    def ibn(name, x):
        half = x.shape[1] // 2
        first = x[:, :half]
        centred = first - first.mean((2, 3), keepdim=True)
        scaled = centred / ((centred**2).mean((2, 3), keepdim=True) + 1e-5).sqrt()
        gain, shift = (weights[f"{name}.IN.{kind}"][:, None, None] for kind in ("weight", "bias"))
        return torch.cat([scaled * gain + shift, norm(f"{name}.BN", x[:, half:])], 1)

    def block(at, x, stride):
        first_norm = ibn if f"{at}.bn1.IN.weight" in weights else norm
        y = first_norm(f"{at}.bn1", conv(f"{at}.conv1", x)).relu()
        y = norm(f"{at}.bn2", conv(f"{at}.conv2", y, stride)).relu()
        y = norm(f"{at}.bn3", conv(f"{at}.conv3", y))
        if f"{at}.se.fc.0.weight" in weights:
            squeezed = (y.mean((2, 3)) @ weights[f"{at}.se.fc.0.weight"].T).relu()
            y = y * (squeezed @ weights[f"{at}.se.fc.2.weight"].T).sigmoid()[:, :, None, None]
        if f"{at}.downsample.0.weight" in weights:
            x = norm(f"{at}.downsample.1", conv(f"{at}.downsample.0", x, stride))
        return (x + y).relu()

    x = norm("bn1", conv("conv1", x, 2)).relu()
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, (num_blocks, _) in STAGES.items():
        for index in range(num_blocks):
            x = block(f"layer{stage}.{index}", x, 2 if stage > 1 and index == 0 else 1)
    return x.mean((2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]


@NAMES
@torch.inference_mode()
def test_published_weights_give_the_logits_that_they_are_published_for(name):
    weights = published_weights(num_classes=5, with_se=name.startswith("se"))
    weights = {k: t.double() for k, t in weights.items()}
    pictures = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = published_logits(weights, pictures)
    for load in (load_exactly, load_pretrained):
        network = build_backbone(name, num_classes=5).eval().double()
        load(network, weights, source="w")
        torch.testing.assert_close(network(pictures), expected)


def test_published_weights_without_se_start_a_network_with_it():
    weights = published_weights(num_classes=1000, with_se=False)
    network = build_backbone("se_ibn_resnet50", num_classes=3)
    load_pretrained(network, weights, source="w")
    assert torch.equal(network.layer3[5].conv2.weight, weights["layer3.5.conv2.weight"])


def test_published_weights_become_a_member(tmp_path):
    taxonomy = load_taxonomy("ladi_v2a")
    weights = published_weights(num_classes=len(taxonomy), with_se=True)
    torch.save({"state_dict": {f"module.{k}": t for k, t in weights.items()}}, tmp_path / "w.pth")
    import_member(
        backbone="se_ibn_resnet50",
        weights_file=tmp_path / "w.pth",
        taxonomy=taxonomy,
        input_px=64,
        out=tmp_path / "member",
    )
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = published_logits(weights, ((frames / 255 - mean) / std).permute(0, 3, 1, 2))
    logits = load_member(tmp_path / "member").logits(frames.numpy())
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-2, atol=1e-2)


@NAMES
def test_ibn_stands_behind_the_first_convolution_of_each_block_of_stages_1_to_3(name):
    with torch.device("meta"):
        network = build_backbone(name, num_classes=2)
    found = [n for n, m in network.named_modules() if isinstance(m, InstanceBatchNorm)]
    assert found == [f"layer{s}.{b}.bn1" for s in (1, 2, 3) for b in range(STAGES[s][0])]


def test_half_of_the_channels_are_normalised_per_image_and_half_per_batch():
    torch.manual_seed(0)
    features = 3 * torch.randn(4, 6, 5, 5) + torch.arange(4.0)[:, None, None, None]
    out = InstanceBatchNorm(6)(features).detach()
    first, rest = out[:, :3], out[:, 3:]
    torch.testing.assert_close(first.mean((2, 3)), torch.zeros(4, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(first.var((2, 3), correction=0), torch.ones(4, 3))
    torch.testing.assert_close(rest.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(rest.var((0, 2, 3), correction=0), torch.ones(3))
    assert rest.mean((2, 3)).abs().min() > 1e-3


def test_what_shifts_a_whole_image_is_gone_from_the_first_half_in_evaluation_too():
    layer = InstanceBatchNorm(6).eval()
    features = torch.randn(2, 6, 5, 5)
    before, after = layer(features), layer(2 * features + 1)
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=0.1)


@torch.inference_mode()
def test_squeeze_and_excitation_acts_before_the_residual_addition():
    block = build_backbone("se_ibn_resnet50", num_classes=2).layer1[1].eval()
    nn.init.ones_(block.bn3.weight)
    features = torch.randn(1, 256, 8, 8)
    assert not torch.equal(block(features), features.relu())
    nn.init.constant_(block.se.fc2.bias, -1e4)  # the gate shuts
    assert torch.equal(block(features), features.relu())


@NAMES
def test_all_weights_learn(name):
    torch.manual_seed(0)
    network = build_backbone(name, num_classes=3)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    for _ in range(2):  # timm's blocks begin with a last factor of 0
        optimizer.zero_grad()
        network(torch.randn(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()
    still = [n for n, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []


@NAMES
def test_a_plain_resnet_shares_its_normalisations_out_among_the_halves(name):
    source = build_backbone("seresnet50" if name.startswith("se") else "resnet50", num_classes=10)
    for parameter in [*source.parameters(), *source.buffers()]:
        if parameter.is_floating_point():
            parameter.data.uniform_(0.5, 1.5)
    weights = source.state_dict()
    network = build_backbone(name, num_classes=3)
    head = network.fc.weight.clone()
    load_pretrained(network, weights, source="w")
    own = network.state_dict()
    mixed = network.layer2[1].bn1
    for kind in ("weight", "bias"):
        halves = getattr(mixed.instance_norm, kind), getattr(mixed.batch_norm, kind)
        assert torch.equal(torch.cat(halves), weights[f"layer2.1.bn1.{kind}"])
    for kind in ("running_mean", "running_var"):
        assert torch.equal(getattr(mixed.batch_norm, kind), weights[f"layer2.1.bn1.{kind}"][64:])
    same = [k for k in weights if k in own and not k.startswith("fc.")]
    assert len(same) > 200
    assert all(torch.equal(own[k], weights[k]) for k in same)
    assert torch.equal(network.fc.weight, head)


def test_a_plain_resnet_is_no_whole_network_with_ibn():
    weights = build_backbone("resnet50", num_classes=3).state_dict()
    with pytest.raises(DataError, match="bn1.instance_norm.weight .* is missing"):
        load_exactly(build_backbone("ibn_resnet50", num_classes=3), weights, source="w")


def test_what_the_hub_has_is_a_plain_resnet_and_is_a_start(tmp_path):
    source = timm.create_model("resnet50").state_dict()
    save_file(source, tmp_path / "w.safetensors")
    overlay = {"file": str(tmp_path / "w.safetensors")}
    network = ibn_resnet50(num_classes=3, pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(network.layer4[2].conv2.weight, source["layer4.2.conv2.weight"])
    assert network.fc.weight.shape == (3, 2048)


@pytest.mark.parametrize("other", ["densenet121", "regnetx_064"])
def test_weights_of_another_network_are_refused(other):
    weights = build_backbone(other, num_classes=3).state_dict()
    with pytest.raises(DataError, match="they are of another network"):
        load_pretrained(build_backbone("ibn_resnet50", num_classes=3), weights, source="w")
