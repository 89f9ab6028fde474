"""Training pictures: read from a prepared set, decoded, augmented, and handed out in batches."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dsdi_ray.config import Recipe
from dsdi_ray.errors import DataError
from dsdi_ray.storage.prepared import VALIDATION, PreparedSet, labels_matrix
from dsdi_ray.vision.transforms import decode_square, to_channels_first

CACHE_BYTES = 4 * 2**30


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images and soft labels of one part of a prepared set.

    Attributes:
        jpegs: The files' bytes; empty where the pictures are cached.
        labels: Soft labels, ``[N, C]``.
        side_px: S.
        cached: Decoded pictures, ``[N, S, S, 3]``, where they fit in memory.
    """

    jpegs: Sequence[pa.Buffer]
    labels: NDArray[np.float32]
    side_px: int
    cached: NDArray[np.uint8] | None

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, i: int) -> Tensor:
        """Picture i, uint8 ``[3, S, S]``."""
        if self.cached is not None:
            return to_channels_first(self.cached[i])
        return to_channels_first(decode_square(self.jpegs[i], self.side_px))


def load_pictures(
    prepared: PreparedSet, recipe: Recipe, *, cache_bytes: int = CACHE_BYTES
) -> tuple[Pictures, Pictures]:
    """The training and validation parts, split by the recipe's seed or as the set was prepared.

    Args:
        prepared: Where from.
        recipe: Its split and input size.
        cache_bytes: A part whose decoded pictures take no more is decoded once, in advance.

    Raises:
        DataError: If less than two images are left to train.
    """
    table = prepared.read(["image_id", "jpeg", "soft_label", "split"])
    labels = labels_matrix(table, "soft_label")
    jpegs = [value.as_buffer() for value in table["jpeg"]]
    if recipe.split_seed is None:
        is_validation = np.array(table["split"].to_pylist()) == VALIDATION
    else:
        is_validation = prepared.split_again(recipe.split_seed)
    num_train = int((~is_validation).sum())
    if num_train < 2:
        raise DataError(f"{prepared.path}: has {num_train} images to train, needs at least 2")
    parts = []
    for mask in (~is_validation, is_validation):
        side = recipe.input_px
        chosen = [jpegs[i] for i in np.flatnonzero(mask)]
        cached = None
        if 0 < len(chosen) * side * side * 3 <= cache_bytes:
            cached = np.stack([decode_square(jpeg, side) for jpeg in chosen])
            chosen = []
        parts.append(Pictures(jpegs=chosen, labels=labels[mask], side_px=side, cached=cached))
    return parts[0], parts[1]


def epoch_batches(
    num_images: int, *, batch_size: int, seed: int, epoch: int, rank: int, num_workers: int
) -> list[NDArray[np.integer]]:
    """One worker's batches of an epoch: a seeded order, dealt out batch by batch.

    What does not fill a batch on every worker is left out; other images are, in another epoch.

    Returns:
        Indices, ``[B]`` each, as many on every worker.
    """
    order = np.random.default_rng([seed, epoch]).permutation(num_images)
    size = min(batch_size, num_images)
    batches: list[NDArray[np.integer]] = []
    for i in range(num_batches(num_images, batch_size=batch_size, num_workers=num_workers)):
        first = (i * num_workers + rank) * size
        batches.append(order.take(range(first, first + size), mode="wrap"))
    return batches


def num_batches(num_images: int, *, batch_size: int, num_workers: int) -> int:
    """Batches of an epoch on each worker, at least 1."""
    return max(1, num_images // (batch_size * num_workers))


def load_batches(
    pictures: Pictures,
    batches: Sequence[NDArray[np.integer]],
    *,
    augment: Callable[[Tensor], Tensor] | None = None,
    seed: tuple[int, ...] = (),
    num_processes: int = 0,
    pin_memory: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of pictures, uint8 ``[B, 3, S, S]``, and soft labels ``[B, C]``.

    A picture's augmentation depends on ``seed`` and its index alone: it is the same however many
    processes share the work.

    Args:
        pictures: N of them.
        batches: Indices, ``[B]`` each.
        augment: Random transform of one picture, drawing from torch's generator.
        seed: Such as (seed of the recipe, epoch).
        num_processes: That decode and augment beside the training, 0 for none.
        pin_memory: For quicker copies to a GPU.
    """
    items = _Items(pictures, augment, seed)
    if num_processes == 0:
        for batch in batches:
            with _one_thread():
                drawn = [items[int(i)] for i in batch]
                inputs = torch.stack([picture for picture, _ in drawn])
            yield inputs, torch.stack([label for _, label in drawn])
        return
    yield from DataLoader(
        items,
        batch_sampler=[batch.tolist() for batch in batches],
        num_workers=num_processes,  # one thread each
        pin_memory=pin_memory,
        multiprocessing_context="fork",  # anything else copies the pictures into every process
    )


class _Items(Dataset[tuple[Tensor, Tensor]]):
    def __init__(
        self,
        pictures: Pictures,
        augment: Callable[[Tensor], Tensor] | None,
        seed: tuple[int, ...],
    ) -> None:
        self._pictures = pictures
        self._augment = augment
        self._seed = seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        picture = self._pictures.picture(i)
        if self._augment is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(
                    int(np.random.SeedSequence([*self._seed, i]).generate_state(1)[0])
                )
                picture = self._augment(picture)
        return picture.contiguous(), torch.from_numpy(self._pictures.labels[i])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sharing out operations on single pictures costs far more than it saves.

    On two busy cores an augmentation took 55 ms of CPU time with two threads, 2 ms with one.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
