"""Frames on a device, once for all members that score them."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Uploads:
    """Frames on a device, in parts of a micro-batch.

    A part goes up when it is first asked for, on a GPU beside the forward pass of the part before,
    and stays there: the members after the first find it. Iterating gives uint8 ``[B, S, S, 3]``.

    Args:
        frames: RGB, ``[T, S, S, 3]``; may be read-only.
        device: Where they go.
        micro_batch: B, frames per part; the last one may have fewer.
    """

    def __init__(
        self, frames: NDArray[np.uint8], *, device: torch.device, micro_batch: int
    ) -> None:
        self.shape = frames.shape
        self._parts = np.split(frames, range(micro_batch, len(frames), micro_batch))
        self._device = device
        self._uploaded: list[Tensor] = []

    def __iter__(self) -> Iterator[Tensor]:
        for place, part in enumerate(self._parts):
            if place == len(self._uploaded):
                self._uploaded.append(self._upload(torch.from_numpy(part.copy())))
            yield self._uploaded[place]

    def _upload(self, part: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return part
        computing = torch.cuda.current_stream(self._device)
        uploading = _stream(self._device)
        with torch.cuda.stream(uploading):
            uploaded = part.pin_memory().to(self._device, non_blocking=True)
        computing.wait_stream(uploading)
        uploaded.record_stream(computing)
        return uploaded


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one of a device on which frames go up."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
