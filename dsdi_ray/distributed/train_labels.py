"""Which images of a prepared set a recipe learns from, which it holds back, and their labels.

No picture is read for it. Shapes: N images of a part, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dsdi_ray.config import Labels, Recipe
from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.soft_labels import encode_per_category, majority_labels
from dsdi_ray.storage.prepared import TRAIN, VALIDATION, PreparedSet, labels_matrix
from dsdi_ray.taxonomy import Taxonomy

_COLUMNS = ("image_id", "soft_label", "answer_counts", "num_asked", "split", "group")


@dataclass(frozen=True, kw_only=True)
class LabelledPart:
    """One part of a prepared set, without its pictures.

    Attributes:
        places: Its rows in the set, ascending, ``[N]``.
        image_ids: Of each, ``[N]``.
        groups: What splits keep together, ``[N]``; None: the image by itself.
        labels: Soft labels, ``[N, C]``.
        is_asked: Classes that count, ``[N, C]``; None: all.
    """

    places: NDArray[np.integer]
    image_ids: Sequence[str]
    groups: Sequence[str | None]
    labels: NDArray[np.float32]
    is_asked: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.labels)


def labelled_parts(prepared: PreparedSet, recipe: Recipe) -> tuple[LabelledPart, LabelledPart]:
    """The training and validation parts, split by the recipe's seed or as the set was prepared.

    With ``train_on: all`` the validation part is empty.

    Args:
        prepared: Where from.
        recipe: Its split and labels.

    Raises:
        ConfigError: If the set, or an image of it, has no answers and the recipe's labels are made
            of them.
        DataError: If less than two images are left to train.
    """
    _check_encoding(prepared, recipe.labels)
    table = prepared.read(_COLUMNS)
    labels, is_asked = encode_labels(
        table,
        recipe.labels,
        taxonomy=prepared.taxonomy,
        has_answers=prepared.encoding != "as_given",
    )
    splits: list[str | None] = table["split"].to_pylist()
    if recipe.train_on == "all":
        splits = [TRAIN] * len(table)
    elif recipe.split_seed is not None:
        splits = prepared.split_again(recipe.split_seed)
    num_train = splits.count(TRAIN)
    if num_train < 2:
        raise DataError(f"{prepared.path}: has {num_train} images to train, needs at least 2")
    ids, groups = table["image_id"].to_pylist(), table["group"].to_pylist()

    def part(split: str) -> LabelledPart:
        places = np.flatnonzero([name == split for name in splits])
        return LabelledPart(
            places=places,
            image_ids=[ids[i] for i in places],
            groups=[groups[i] for i in places],
            labels=labels[places],
            is_asked=None if is_asked is None else is_asked[places],
        )

    return part(TRAIN), part(VALIDATION)


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
