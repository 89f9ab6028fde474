import numpy as np
import pytest
import torch
from torch import nn

from dsdi_ray.vision.backbones import build_backbone
from dsdi_ray.vision.cpu_threads import LoneThreads
from dsdi_ray.vision.member import Member

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ChannelMeans(nn.Module):
    """Logits are the means of the colour channels as the network sees them."""

    def forward(self, pictures):
        return pictures.mean((2, 3))


def noise(num, side=32):
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def member(backbone=None):
    return Member(backbone or ChannelMeans(), input_px=32, mean=MEAN, std=STD)


def test_pixels_are_normalised_per_channel():
    frames = np.zeros((1, 32, 32, 3), np.uint8)
    frames[..., 0] = 255
    expected = [(1 - MEAN[0]) / STD[0], -MEAN[1] / STD[1], -MEAN[2] / STD[2]]
    np.testing.assert_allclose(member().logits(frames)[0], expected, rtol=1e-5)


def test_logits_are_float32_one_row_per_frame():
    logits = member().logits(noise(5))
    assert logits.dtype == np.float32
    assert logits.shape == (5, 3)


@pytest.mark.parametrize("micro_batch", [1, 2, 7, 32])
def test_the_micro_batch_does_not_change_what_a_frame_scores(micro_batch):
    torch.manual_seed(0)
    network = member(build_backbone("test_resnet", num_classes=4))
    whole = network.logits(noise(9), micro_batch=9)
    np.testing.assert_allclose(network.logits(noise(9), micro_batch=micro_batch), whole, atol=1e-5)


def test_threads_score_what_one_after_the_other_does_in_the_same_order():
    network, frames = member(), noise(9)
    with LoneThreads(3) as threads:
        beside = network.logits(frames, micro_batch=2, threads=threads)
    np.testing.assert_array_equal(beside, network.logits(frames, micro_batch=2))


@pytest.mark.parametrize(
    ("num_frames", "sizes"),
    [
        (64, [16] * 4),
        (48, [24, 24]),  # by 16 one thread would wait for the other
        (40, [20, 20]),
        (33, [17, 16]),
        (24, [16, 8]),
        (16, [16]),
        (1, [1]),
        (100, [16] * 4 + [18, 18]),
    ],
)
def test_two_threads_end_together_where_passes_stay_full(num_frames, sizes):
    with LoneThreads(2) as threads:
        assert threads.pass_sizes(num_frames, micro_batch=16) == sizes


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_passes_hold_all_frames_and_none_is_much_larger_than_a_micro_batch(num_threads):
    with LoneThreads(num_threads) as threads:
        for num_frames in range(1, 300):
            sizes = threads.pass_sizes(num_frames, micro_batch=16)
            assert sum(sizes) == num_frames
            assert 0 < min(sizes) <= max(sizes) <= 24


def test_the_network_is_in_evaluation_mode():
    network = member(nn.Sequential(ChannelMeans(), nn.Dropout(0.9)).train())
    np.testing.assert_array_equal(network.logits(noise(2)), member().logits(noise(2)))


def test_read_only_frames_are_taken_and_left_as_they_are():
    frames = noise(2)
    frames.setflags(write=False)
    before = frames.copy()
    member().logits(frames)
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 16, 32, 3), (32, 32, 3)])
def test_frames_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"frames must be \[T, 32, 32, 3\]"):
        member().logits(np.zeros(shape, np.uint8))
