import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from dsdi_ray.distributed.members import import_member, load_member
from dsdi_ray.errors import DataError
from dsdi_ray.taxonomy import load_taxonomy
from dsdi_ray.vision.attention_branch import AttentionBranch, abn_resnet50
from dsdi_ray.vision.backbones import build_backbone, load_pretrained


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_backbone("abn_resnet50", num_classes=5)


def with_attention(network, *, everywhere):
    """The network with attention 0 or 1 at all places."""
    norm = network.attention_branch.map_norm
    nn.init.zeros_(norm.weight)
    nn.init.constant_(norm.bias, 1e4 if everywhere else -1e4)
    return network.eval()


def test_training_gets_two_logits_per_class_and_evaluation_one(network):
    pictures = torch.randn(2, 3, 64, 64)
    logits, attention_logits = network.train()(pictures)
    assert logits.shape == attention_logits.shape == (2, 5)
    with torch.inference_mode():
        alone = network.eval()(pictures)
    assert isinstance(alone, torch.Tensor)
    assert alone.shape == (2, 5)


@pytest.mark.parametrize("is_training", [True, False])
def test_attention_is_one_map_between_0_and_1_of_the_features_size(is_training):
    torch.manual_seed(0)
    branch = AttentionBranch(num_classes=7).train(is_training)
    attention, logits = branch(5 * torch.randn(2, 1024, 6, 9))
    assert attention.shape == (2, 1, 6, 9)
    assert logits.shape == (2, 7)
    assert 0 <= attention.min() < attention.max() <= 1


@torch.inference_mode()
def test_without_attention_it_is_the_resnet_that_it_is_made_of(network):
    plain = timm.create_model("resnet50", num_classes=5).eval()
    plain.load_state_dict({k: t for k, t in network.state_dict().items() if "attention" not in k})
    pictures = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(with_attention(network, everywhere=False)(pictures), plain(pictures))


@torch.inference_mode()
def test_full_attention_doubles_what_the_last_stage_sees(network):
    seen = []
    network.layer4.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pictures = torch.randn(2, 3, 64, 64)
    for everywhere in (False, True):
        with_attention(network, everywhere=everywhere)(pictures)
    torch.testing.assert_close(seen[1], 2 * seen[0])


def test_the_branch_learns_from_its_own_loss_and_from_the_classes(network):
    pictures = torch.randn(2, 3, 64, 64)
    logits, attention_logits = network.train()(pictures)
    branch = network.attention_branch
    (of_map,) = torch.autograd.grad(logits.sum(), branch.to_map.weight, retain_graph=True)
    (of_head,) = torch.autograd.grad(attention_logits.square().sum(), branch.classifier.weight)
    assert of_map.abs().sum() > 0
    assert of_head.abs().sum() > 0


def test_all_weights_learn_within_two_steps(network):
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    for _ in range(2):  # timm's blocks begin with a last factor of 0
        optimizer.zero_grad()
        logits, attention_logits = network.train()(torch.randn(2, 3, 64, 64))
        (logits.square().sum() + attention_logits.square().sum()).backward()
        optimizer.step()
    assert [n for n, p in network.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_a_plain_resnet_starts_the_trunk_and_the_branchs_copy_of_its_last_stage(network):
    source = timm.create_model("resnet50", num_classes=1000).state_dict()
    load_pretrained(network, source, source="w")
    own = network.state_dict()
    for name, tensor in source.items():
        if not name.startswith("fc."):
            assert torch.equal(own[name], tensor)
            copy = name.replace("layer4", "attention_branch.stage")
            assert torch.equal(own[copy], tensor)


def test_a_whole_network_of_other_classes_starts_all_but_what_has_their_number(network):
    source = build_backbone("abn_resnet50", num_classes=1500).state_dict()
    load_pretrained(network, source, source="w")
    name = "attention_branch.stage.2.conv3.weight"
    assert torch.equal(network.state_dict()[name], source[name])


def test_weights_of_another_network_are_refused(network):
    weights = build_backbone("resnext50_32x4d", num_classes=5).state_dict()
    with pytest.raises(DataError, match="they are of another network"):
        load_pretrained(network, weights, source="w")


def test_what_the_hub_has_is_a_plain_resnet_and_is_a_start(tmp_path):
    source = timm.create_model("resnet50").state_dict()
    save_file(source, tmp_path / "w.safetensors")
    overlay = {"file": str(tmp_path / "w.safetensors")}
    started = abn_resnet50(num_classes=3, pretrained=True, pretrained_cfg_overlay=overlay)
    last = source["layer4.2.conv2.weight"]
    assert torch.equal(started.attention_branch.stage[2].conv2.weight, last)
    assert torch.equal(started.layer4[2].conv2.weight, last)


def test_it_comes_back_from_a_member_bundle(tmp_path):
    taxonomy = load_taxonomy("ladi_v2a")
    network = build_backbone("abn_resnet50", num_classes=len(taxonomy)).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    import_member(
        backbone="abn_resnet50",
        weights_file=tmp_path / "w.safetensors",
        taxonomy=taxonomy,
        input_px=64,
        out=tmp_path / "member",
    )
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    logits = load_member(tmp_path / "member").logits(frames.numpy())
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = network(((frames / 255 - mean) / std).permute(0, 3, 1, 2))
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-4)
