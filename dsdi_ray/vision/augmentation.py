"""The paper's augmentation (section 3), on a whole batch where the network runs.

Every picture is changed in a way of its own, which is drawn on its own: from the seeds alone that
it is given, so that it does not depend on the batch, the worker or the process. Shapes: B pictures
of side S.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_WHITE = 255.0
_PART = 8  # pictures that a thread changes at once
_LUMA = (0.2989, 0.587, 0.114)  # torchvision's


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How each picture of a batch is changed.

    Attributes:
        is_mirrored: Left is right, bool ``[B]``.
        is_upturned: Top is bottom, bool ``[B]``.
        radians: Rotation counter-clockwise, ``[B]``.
        factors: Of brightness, contrast and saturation, ``[B, 3]``.
        turns: Of the colour circle, ``[B]``.
        order: Which of the four colour changes comes first, second, ..., ``[B, 4]``.
    """

    is_mirrored: Tensor
    is_upturned: Tensor
    radians: Tensor
    factors: Tensor
    turns: Tensor
    order: Tensor

    def only(self, part: slice) -> "Changes":
        """Those of some pictures of the batch."""
        return Changes(**{field.name: getattr(self, field.name)[part] for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Flips, rotation and colour jitter, as torchvision defines each.

    Attributes:
        horizontal_flip: Probability.
        vertical_flip: Probability.
        rotation_degrees: Largest angle either way; what comes from outside is black.
        brightness: Largest relative change.
        contrast: Largest relative change.
        saturation: Largest relative change.
        hue: Largest turn of the colour circle, in turns.
    """

    horizontal_flip: float
    vertical_flip: float
    rotation_degrees: float
    brightness: float
    contrast: float
    saturation: float
    hue: float

    def draw(self, seeds: Sequence[Sequence[int]]) -> Changes:
        """Draw how each picture is changed.

        Args:
            seeds: Of each picture, such as (seed of the recipe, epoch, index), ``[B]``.
        """
        generators = [np.random.default_rng(list(seed)) for seed in seeds]
        drawn = torch.from_numpy(np.stack([g.random(7, np.float32) for g in generators]))
        order = torch.from_numpy(np.stack([g.permutation(4) for g in generators]))
        either_way = 2 * drawn - 1
        spread = torch.tensor([self.brightness, self.contrast, self.saturation])
        low = (1 - spread).clamp_min(0)
        return Changes(
            is_mirrored=drawn[:, 0] < self.horizontal_flip,
            is_upturned=drawn[:, 1] < self.vertical_flip,
            radians=either_way[:, 2] * math.radians(self.rotation_degrees),
            factors=low + drawn[:, 3:6] * (1 + spread - low),
            turns=either_way[:, 6] * self.hue,
            order=order,
        )

    def apply(self, pictures: Tensor, changes: Changes, *, pool: Executor | None = None) -> Tensor:
        """Change pictures.

        Args:
            pictures: ``[B, 3, S, S]``, uint8.
            changes: One for each.
            pool: Threads that change some pictures each, on a CPU, see
                :class:`dsdi_ray.vision.cpu_threads.LoneThreads`.

        Returns:
            ``[B, 3, S, S]``, float32 from 0 to 255, on the pictures' device.
        """
        parts = [slice(None)]
        if pictures.device.type == "cpu":
            parts = [slice(i, i + _PART) for i in range(0, len(pictures), _PART)]
        of_parts = ([pictures[part] for part in parts], [changes.only(part) for part in parts])
        return torch.cat(list((pool.map if pool else map)(self._apply_to_part, *of_parts)))

    def _apply_to_part(self, pictures: Tensor, changes: Changes) -> Tensor:
        floats = pictures.to(torch.float32, memory_format=torch.contiguous_format)
        place = _rotate if self.rotation_degrees else _flip
        return self._jitter(place(floats, changes), changes)

    def _jitter(self, pictures: Tensor, changes: Changes) -> Tensor:
        """Change colours, of each picture in its own order."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        wanted = [i for i, strength in enumerate(strengths) if strength]
        if not wanted:
            return pictures
        order = changes.order[torch.isin(changes.order, torch.tensor(wanted))]
        order = order.view(len(pictures), len(wanted))
        amounts = torch.cat([changes.factors, changes.turns[:, None]], dim=1)[..., None, None]
        jitter = jitter_in_turn if pictures.device.type == "cpu" else jitter_together
        return jitter(pictures, order, amounts)


def jitter_in_turn(pictures: Tensor, order: Tensor, amounts: Tensor) -> Tensor:
    """Change picture after picture: each stays in the cache of its CPU core.

    Args:
        pictures: ``[B, 3, S, S]``, float32; changed in place.
        order: Which change comes first, second, ..., of each, ``[B, up to 4]``.
        amounts: Of each change, ``[B, 4, 1, 1]``.
    """
    for i, own_order in enumerate(order.tolist()):
        rows = slice(i, i + 1)
        for change in own_order:
            pictures[rows] = _COLOUR_CHANGES[change](pictures[rows], amounts[rows, change])
    return pictures


def jitter_together(pictures: Tensor, order: Tensor, amounts: Tensor) -> Tensor:
    """As :func:`jitter_in_turn`, all pictures at once that have a change at the same turn."""
    for turn in order.unbind(1):
        for change in order[0].tolist():
            # Found on the CPU: a GPU would have to be waited for.
            chosen = torch.nonzero(turn == change).squeeze(1)
            amount = amounts[chosen, change].to(pictures.device, non_blocking=True)
            rows = chosen.to(pictures.device, non_blocking=True)
            pictures[rows] = _COLOUR_CHANGES[change](pictures[rows], amount)
    return pictures


def _flip(pictures: Tensor, changes: Changes) -> Tensor:
    """Flip whole pictures: nothing is resampled."""
    for is_flipped, dimension in ((changes.is_mirrored, -1), (changes.is_upturned, -2)):
        rows = torch.nonzero(is_flipped).squeeze(1).to(pictures.device, non_blocking=True)
        pictures[rows] = pictures[rows].flip(dimension)
    return pictures


def _rotate(pictures: Tensor, changes: Changes) -> Tensor:
    """Flip and rotate in one resampling."""
    cos, sin = torch.cos(changes.radians), torch.sin(changes.radians)
    across = torch.where(changes.is_mirrored, -1.0, 1.0)
    down = torch.where(changes.is_upturned, -1.0, 1.0)
    zero = torch.zeros_like(cos)
    rows = [across * cos, -across * sin, zero, down * sin, down * cos, zero]
    matrices = torch.stack(rows, dim=1).view(-1, 2, 3).to(pictures.device, non_blocking=True)
    grid = F.affine_grid(matrices, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def _grey(pictures: Tensor) -> Tensor:
    red, green, blue = pictures.unbind(1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _brighten(pictures: Tensor, factor: Tensor) -> Tensor:
    return (pictures * factor[:, None]).clamp_(0, _WHITE)


def _contrast(pictures: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(pictures).mean(dim=(1, 2))[:, None, None]
    return torch.lerp(mean[:, None], pictures, factor[:, None]).clamp_(0, _WHITE)


def _saturate(pictures: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(pictures)[:, None], pictures, factor[:, None]).clamp_(0, _WHITE)


def _turn_hue(pictures: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue h: channel n of HSV's value v and chroma c is v - c clamp(min(k, 4 - k), 0, 1).

    With k = (n + 6 h) mod 6, and n = 5, 3, 1 for red, green, blue. Written for few passes over the
    pixels: of all the changes this costs the most.
    """
    red, green, blue = pictures.unbind(1)
    value = torch.maximum(red, green).maximum(blue)
    chroma = value - torch.minimum(red, green).minimum(blue)
    from_green = torch.where(
        value == green, (blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4)
    )
    hue = torch.where(value == red, green - blue, from_green)
    hue = hue.div_((6 * chroma).clamp_min_(1e-9)).add_(turns)
    changed = torch.empty_like(pictures)
    for channel, n in enumerate((5, 3, 1)):
        k = hue + (n - 2) / 6
        # From the middle of the plateau of min(k, 4 - k), in turns: at most half a turn away.
        share = k.sub_(k.round()).abs_().mul_(-6).add_(2).clamp_(0, 1)
        torch.sub(value, share.mul_(chroma), out=changed[:, channel])
    return changed


_COLOUR_CHANGES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _brighten,
    _contrast,
    _saturate,
    _turn_hue,
)
