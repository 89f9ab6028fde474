"""The moving average of a network's weights over the steps of its training."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class MovingAverage:
    """A second network that follows the first: ``average += (1 - decay) * (weight - average)``.

    Early on, decay is less, so that the start is soon forgotten: ``min(decay, (1 + n) / (10 + n))``
    at update n. The statistics of batch normalisation are averaged like weights.

    Args:
        network: What is followed.
        decay: In (0, 1).

    Attributes:
        network: The average, in eval mode.
        num_updates: So far.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self.num_updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Follow the network one step."""
        decay = min(self._decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages, weights = [], []
        for average, weight in zip(_state(self.network), _state(network), strict=True):
            if average.is_floating_point():
                averages.append(average)
                weights.append(weight.detach())
            else:
                average.copy_(weight)
        torch._foreach_lerp_(averages, weights, 1 - decay)  # as torch's swa_utils


def _state(network: nn.Module) -> Iterator[Tensor]:
    yield from network.state_dict().values()
