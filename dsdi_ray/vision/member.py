"""A member's forward pass: uint8 pictures in, float32 logits out."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Normalize(nn.Module):
    """uint8 ``[B, 3, S, S]`` to floats of zero mean and unit variance, on the pictures' device."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        floats = pictures.to(torch.float32, memory_format=torch.channels_last)
        return (floats - self.mean) / self.std


class Member:
    """A trained network, ready to score.

    Args:
        backbone: The network with its weights.
        input_px: S, the side of its square input.
        mean: Per colour channel, of pixels scaled to [0, 1].
        std: Per colour channel.
        device: Where it runs, ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        input_px: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: str = "cpu",
    ) -> None:
        self.input_px = input_px
        self._device = torch.device(device)
        self._normalize = Normalize(mean, std).to(self._device)
        self._backbone = backbone.eval().to(self._device).to(memory_format=torch.channels_last)

    def logits(self, frames: NDArray[np.uint8], *, micro_batch: int = 32) -> NDArray[np.float32]:
        """Score frames.

        Args:
            frames: RGB, ``[T, S, S, 3]`` with S the ``input_px``; may be read-only.
            micro_batch: Frames per forward pass.

        Returns:
            Logits, ``[T, C]``.

        Raises:
            ValueError: If the frames are of another size.
        """
        side = self.input_px
        if frames.ndim != 4 or frames.shape[1:] != (side, side, 3):
            raise ValueError(f"frames must be [T, {side}, {side}, 3], got {list(frames.shape)}")
        parts = [
            self._forward(frames[i : i + micro_batch]) for i in range(0, len(frames), micro_batch)
        ]
        return np.concatenate(parts)

    @torch.inference_mode()
    def _forward(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        is_cuda = self._device.type == "cuda"
        pictures = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_cuda):
            logits = self._backbone(self._normalize(pictures))
        return np.asarray(logits.float().cpu().numpy(), dtype=np.float32)
