"""Training pictures: read from a prepared set, decoded, and handed out in batches.

Shapes: N pictures of side S, B of a micro-batch, C classes.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dsdi_ray.config import Labels, Recipe
from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.soft_labels import encode_per_category, majority_labels
from dsdi_ray.storage.prepared import TRAIN, VALIDATION, PreparedSet, labels_matrix
from dsdi_ray.taxonomy import Taxonomy
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
        cached: Decoded pictures, ``[N, S, S, 3]``, where they fit in memory.
    """

    image_ids: Sequence[str]
    jpegs: Sequence[pa.Buffer]
    labels: NDArray[np.float32]
    is_asked: NDArray[np.bool_] | None
    side_px: int
    cached: NDArray[np.uint8] | None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Indices) -> Tensor:
        """Some pictures, uint8 ``[B, 3, S, S]``, the channels last in memory."""
        if self.cached is not None:
            pictures = self.cached[indices]
        else:
            pictures = np.stack([decode_square(self.jpegs[i], self.side_px) for i in indices])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def load_pictures(
    prepared: PreparedSet, recipe: Recipe, *, cache_bytes: int = CACHE_BYTES
) -> tuple[Pictures, Pictures]:
    """The training and validation parts, split by the recipe's seed or as the set was prepared.

    Args:
        prepared: Where from.
        recipe: Its split, labels and input size.
        cache_bytes: A part whose decoded pictures take no more is decoded once, in advance.

    Raises:
        ConfigError: If the set, or an image of it, has no answers and the recipe's labels are made
            of them.
        DataError: If less than two images are left to train.
    """
    _check_encoding(prepared, recipe.labels)
    table = prepared.read(["image_id", "jpeg", "soft_label", "answer_counts", "num_asked", "split"])
    labels, is_asked = encode_labels(
        table,
        recipe.labels,
        taxonomy=prepared.taxonomy,
        has_answers=prepared.encoding != "as_given",
    )
    splits = table["split"].to_pylist()
    if recipe.split_seed is not None:
        splits = prepared.split_again(recipe.split_seed)
    num_train = splits.count(TRAIN)
    if num_train < 2:
        raise DataError(f"{prepared.path}: has {num_train} images to train, needs at least 2")
    ids, jpegs = table["image_id"].to_pylist(), [value.as_buffer() for value in table["jpeg"]]
    parts = []
    for split in (TRAIN, VALIDATION):
        chosen = [place for place, name in enumerate(splits) if name == split]
        files = [jpegs[i] for i in chosen]
        is_cached = 0 < len(chosen) * recipe.input_px**2 * 3 <= cache_bytes
        parts.append(
            Pictures(
                image_ids=[ids[i] for i in chosen],
                jpegs=[] if is_cached else files,
                labels=labels[chosen],
                is_asked=None if is_asked is None else is_asked[chosen],
                side_px=recipe.input_px,
                cached=_decode_all(files, recipe.input_px) if is_cached else None,
            )
        )
    return parts[0], parts[1]


def _check_encoding(prepared: PreparedSet, labels: Labels) -> None:
    if prepared.num_pseudo_labelled and labels.encoding != "paper":
        raise ConfigError(
            f"labels.encoding: {labels.encoding} is made of answers, and the set has "
            f"{prepared.num_pseudo_labelled} pseudo-labelled images without any; "
            "set labels.encoding=paper"
        )


def encode_labels(
    table: pa.Table, labels: Labels, *, taxonomy: Taxonomy, has_answers: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """A recipe's labels, ``[N, C]``, and which of them count; None: all of them.

    Args:
        table: Columns soft_label, answer_counts and num_asked.
        labels: How.
        taxonomy: Of the classes.
        has_answers: Whether the set was made of answers and not of labels.

    Raises:
        ConfigError: If the labels are made of answers and there are none.
    """
    num_asked = labels_matrix(table, "num_asked")
    is_asked = num_asked > 0 if labels.masked else None
    if labels.encoding == "paper":
        return labels_matrix(table, "soft_label"), is_asked
    if not has_answers:
        raise ConfigError(
            f"labels.encoding: {labels.encoding} is made of answers, the set was made of labels; "
            "set labels.encoding=paper to take them as they are"
        )
    counts = labels_matrix(table, "answer_counts")
    if labels.encoding == "per_category":
        categories = [one.category for one in taxonomy.classes]
        return encode_per_category(counts, categories), is_asked
    return majority_labels(counts, num_asked).astype(np.float32), is_asked


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


def _decode_all(jpegs: Sequence[pa.Buffer], side_px: int) -> NDArray[np.uint8]:
    """Decode in threads: most of the work is done without the interpreter's lock."""
    decoded = np.empty((len(jpegs), side_px, side_px, 3), np.uint8)

    def decode(i: int) -> None:
        decoded[i] = decode_square(jpegs[i], side_px)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(decode, range(len(jpegs))))
    return decoded
