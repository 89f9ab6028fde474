"""Training pictures: read from a prepared set, decoded, and handed out in batches.

Shapes: N pictures of side S, B of a micro-batch, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.decoded_pictures import decode_all, shared_pictures
from dsdi_ray.distributed.train_labels import labelled_parts
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.vision.transforms import decode_square

CACHE_BYTES = 4 * 2**30
Indices = NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images and labels of one part of a prepared set.

    Attributes:
        image_ids: Of each, ``[N]``.
        jpegs: The files' bytes; empty where the pictures are cached.
        labels: Soft labels, ``[N, C]``.
        is_asked: Classes that count, ``[N, C]``; None: all.
        side_px: S.
        cached: Decoded pictures, ``[N or more, S, S, 3]``, where they fit in memory.
        places: Where in ``cached`` each of them is, ``[N]``; None: in order.
    """

    image_ids: Sequence[str]
    jpegs: Sequence[pa.Buffer]
    labels: NDArray[np.float32]
    is_asked: NDArray[np.bool_] | None
    side_px: int
    cached: NDArray[np.uint8] | None
    places: Indices | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Indices) -> Tensor:
        """Some pictures, uint8 ``[B, 3, S, S]``, the channels last in memory."""
        if self.cached is not None:
            pictures = self.cached[indices if self.places is None else self.places[indices]]
        else:
            pictures = np.stack([decode_square(self.jpegs[i], self.side_px) for i in indices])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def load_pictures(
    prepared: PreparedSet,
    recipe: Recipe,
    *,
    cache_bytes: int = CACHE_BYTES,
    shared: Path | None = None,
) -> tuple[Pictures, Pictures]:
    """The training and validation parts, split by the recipe's seed or as the set was prepared.

    Args:
        prepared: Where from.
        recipe: Its split, labels and input size.
        cache_bytes: A part whose decoded pictures take no more is decoded once, in advance.
        shared: Folder where the decoded pictures of the whole set are kept for others that read
            them, if no part takes more than that and the disk has room.

    Raises:
        ConfigError: If the set, or an image of it, has no answers and the recipe's labels are made
            of them.
        DataError: If less than two images are left to train.
    """
    labelled = labelled_parts(prepared, recipe)
    jpegs = [value.as_buffer() for value in prepared.read(["jpeg"])["jpeg"]]
    in_common = None
    largest = max(len(part) for part in labelled)
    if shared is not None and largest * recipe.input_px**2 * 3 <= cache_bytes:
        in_common = shared_pictures(shared, prepared.prepared_id, jpegs, recipe.input_px)
    parts = []
    for part in labelled:
        files = [jpegs[i] for i in part.places]
        is_cached = 0 < len(files) * recipe.input_px**2 * 3 <= cache_bytes
        is_shared = is_cached and in_common is not None
        own = decode_all(files, recipe.input_px) if is_cached and not is_shared else None
        parts.append(
            Pictures(
                image_ids=part.image_ids,
                jpegs=[] if is_cached else files,
                labels=part.labels,
                is_asked=part.is_asked,
                side_px=recipe.input_px,
                cached=in_common if is_shared else own,
                places=part.places if is_shared else None,
            )
        )
    return parts[0], parts[1]


def epoch_batches(num_images: int, *, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """The batches of an epoch over all workers, ``[batch_size]`` each, in a seeded order.

    What does not fill a batch is left out; other images are, in another epoch. A set that is
    smaller than a batch is one batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(num_images)
    return [order[i * batch_size :][:batch_size] for i in range(num_steps(num_images, batch_size))]


def num_steps(num_images: int, batch_size: int) -> int:
    """Batches of an epoch, at least 1."""
    return max(1, num_images // batch_size)


def micro_batches(batch: Indices, *, rank: int, num_workers: int, accumulate: int) -> list[Indices]:
    """One worker's share of a batch, in parts of as equal a size as can be."""
    return np.array_split(batch, num_workers * accumulate)[rank * accumulate :][:accumulate]


class Feeder:
    """Hands out batches of a part, decoded in advance, here or by processes of their own.

    Args:
        pictures: The part.
        num_processes: That decode beside the training, 0 for none; a cached part needs none.
        pin_memory: For quicker copies to a GPU.
    """

    def __init__(
        self, pictures: Pictures, *, num_processes: int = 0, pin_memory: bool = False
    ) -> None:
        self._pictures = pictures
        self._batches: list[Indices] = []
        self._loader: DataLoader[Tensor] | None = None
        if num_processes and pictures.cached is None:
            self._loader = DataLoader(
                _Batches(pictures),
                batch_size=None,
                sampler=self._batches,
                num_workers=num_processes,
                pin_memory=pin_memory,
                persistent_workers=True,
                multiprocessing_context="fork",  # anything else copies the files into each
            )

    def __call__(self, batches: Sequence[Indices]) -> Iterator[Tensor]:
        """The pictures of each batch, uint8 ``[B, 3, S, S]``."""
        if self._loader is None:
            yield from (self._pictures.batch(batch) for batch in batches)
            return
        self._batches[:] = batches
        yield from self._loader


class _Batches(Dataset[Tensor]):
    """A dataset whose index is the indices of a batch."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def __getitem__(self, indices: Indices) -> Tensor:
        return self._pictures.batch(indices)
