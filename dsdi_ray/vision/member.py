"""A member's forward pass: uint8 pictures in, float32 logits out."""

import sys
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dsdi_ray.vision.cpu_threads import LoneThreads
from dsdi_ray.vision.precision import autocast
from dsdi_ray.vision.uploads import Uploads


class Normalize(nn.Module):
    """uint8 ``[B, 3, S, S]`` to floats of zero mean and unit variance, on the pictures' device."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], *, channels_last: bool = True
    ) -> None:
        super().__init__()
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        floats = pictures.to(torch.float32, memory_format=self._format)
        return (floats - self.mean) / self.std


class Member:
    """A trained network, ready to score.

    Args:
        backbone: The network with its weights.
        input_px: S, the side of its square input.
        mean: Per colour channel, of pixels scaled to [0, 1].
        std: Per colour channel.
        device: Where it runs, ``cpu`` or ``cuda``.
        channels_last: How its tensors lie in memory.
        compile_network: Whether ``torch.compile`` makes code for it at its first frames.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        input_px: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: str = "cpu",
        channels_last: bool = True,
        compile_network: bool = False,
    ) -> None:
        self.input_px = input_px
        self._device = torch.device(device)
        self._normalize = Normalize(mean, std, channels_last=channels_last).to(self._device)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        network = backbone.eval().to(self._device).to(memory_format=layout)
        self._network = torch.compile(network, dynamic=True) if compile_network else network
        self._most_per_pass = sys.maxsize

    def logits(
        self,
        frames: NDArray[np.uint8] | Uploads,
        *,
        micro_batch: int = 32,
        threads: LoneThreads | None = None,
    ) -> NDArray[np.float32]:
        """Score frames.

        Where a GPU's memory does not do for a micro-batch, it is halved.

        Args:
            frames: RGB, ``[T, S, S, 3]`` with S the ``input_px``; may be read-only. Members of one
                size on one device can share what was uploaded once.
            micro_batch: Frames per forward pass.
            threads: Threads that run forward passes beside each other, on a CPU.

        Returns:
            Logits, ``[T, C]``.

        Raises:
            ValueError: If the frames are of another size.
        """
        side = self.input_px
        if len(frames.shape) != 4 or frames.shape[1:] != (side, side, 3):
            raise ValueError(f"frames must be [T, {side}, {side}, 3], got {list(frames.shape)}")
        if threads is not None and isinstance(frames, np.ndarray):
            sizes = threads.pass_sizes(len(frames), micro_batch=micro_batch)
            parts = [frames[i:j] for i, j in pairwise(accumulate(sizes, initial=0))]
            return torch.cat(list(threads.map(self._forward, parts))).numpy()
        if isinstance(frames, np.ndarray):
            frames = Uploads(frames, device=self._device, micro_batch=micro_batch)
        while True:
            most = min(micro_batch, self._most_per_pass)
            try:
                passes = (p[i : i + most] for p in frames for i in range(0, len(p), most))
                logits = torch.cat([self._forward(one) for one in passes])
                return np.asarray(logits.cpu().numpy(), dtype=np.float32)
            except torch.OutOfMemoryError:
                if most == 1:
                    raise
            torch.cuda.empty_cache()
            self._most_per_pass = most // 2  # what did not fit once does not fit the next time

    @torch.inference_mode()
    def _forward(self, frames: Tensor | NDArray[np.uint8]) -> Tensor:
        if isinstance(frames, np.ndarray):
            frames = torch.from_numpy(frames.copy())
        with autocast(self._device):
            logits: Tensor = self._network(self._normalize(frames.permute(0, 3, 1, 2)))
        return logits.float()
