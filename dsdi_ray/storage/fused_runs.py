"""Fuse runs of several systems into one (paper Table 3: 2:1, 5:1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dsdi_ray.errors import DataError
from dsdi_ray.method.fusion import fuse_runs
from dsdi_ray.storage.run_table import feature_names
from dsdi_ray.storage.runs import run_of_scores, scores_of_run
from dsdi_ray.taxonomy import Taxonomy

_ROUNDING = 1e-6  # of scores written as text


@dataclass(frozen=True, kw_only=True)
class WeightedRun:
    """A system's run and its part in a fusion.

    Attributes:
        name: What messages call it.
        run: A table of ``RUN_SCHEMA``.
        weight: Above 0; only the ratios of weights matter.
    """

    name: str
    run: pa.Table
    weight: float


def fuse_run_tables(
    parts: Sequence[WeightedRun],
    *,
    normalisation: str = "none",
    taxonomy: Taxonomy | None = None,
    top: int = 1000,
) -> pa.Table:
    """Fuse runs and rank anew; peaks are unknown.

    Args:
        parts: The runs.
        normalisation: See :func:`dsdi_ray.method.fusion.fuse_runs`; ``none`` is for probabilities.
        taxonomy: Names the features; a run with others is refused.
        top: Clips kept per feature.

    Returns:
        A table of ``RUN_SCHEMA``.

    Raises:
        ConfigError: If there is no such normalisation.
        DataError: If a weight or a score is out of range, scores are no probabilities where none
            are normalised, or a run shares no clip or no feature with the others: it is of another
            archive, or names clips another way.
    """
    for part in parts:
        if not 0 < part.weight < float("inf"):
            raise DataError(f"run {part.name}: weight must be above 0, got {part.weight:g}")
    _check_features(parts, taxonomy)
    for part in parts[1:]:
        _check_same_archive(parts[0], part)
    if normalisation == "none" and len(parts) > 1:
        for part in parts:
            check_probabilities(part)
    fused = fuse_runs(
        [scores_of_run(part.run) for part in parts],
        [part.weight for part in parts],
        normalisation=normalisation,
    )
    return run_of_scores(fused, taxonomy=taxonomy, top=top)


def _check_features(parts: Sequence[WeightedRun], taxonomy: Taxonomy | None) -> None:
    """Refuse features that the taxonomy has not, or calls otherwise."""
    if taxonomy is None:
        return
    names = feature_names(taxonomy)
    for part in parts:
        found = part.run.group_by(["feature_id", "feature"]).aggregate([]).to_pylist()
        for feature in sorted(found, key=lambda row: int(row["feature_id"])):
            number, name = feature["feature_id"], feature["feature"]
            if number not in names:
                raise DataError(
                    f"run {part.name}: feature {number} is not in taxonomy {taxonomy.name!r}"
                )
            if name not in {None, names[number]}:
                raise DataError(
                    f"run {part.name}: feature {number} is {name!r}, in taxonomy "
                    f"{taxonomy.name!r} it is {names[number]!r}; give the run's own --taxonomy"
                )


def check_probabilities(part: WeightedRun) -> None:
    """Refuse scores that do not add up with those of others: one run would decide nearly alone.

    Raises:
        DataError: If scores are above 1, or ranks in disguise.
    """
    scores, ranks = part.run["score"].to_numpy(), part.run["rank"].to_numpy()
    if (scores > 1 + _ROUNDING).any():
        row = part.run.slice(int(scores.argmax()), 1).to_pylist()[0]
        raise DataError(
            f"run {part.name}, feature {row['feature_id']}, clip {row['clip_id']}: score must be a "
            f"probability without normalisation, got {row['score']:g}; give --normalisation rank "
            "or minmax"
        )
    if (ranks > 1).any() and np.allclose(scores, 1 / ranks, rtol=0, atol=_ROUNDING):
        raise DataError(
            f"run {part.name}: has ranks alone (its scores are 1 / rank, as those of XML), which do "
            "not add up with probabilities; give --normalisation rank"
        )


def _check_same_archive(first: WeightedRun, other: WeightedRun) -> None:
    for what, column in (("feature", "feature_id"), ("clip", "clip_id")):
        a, b = (set(part.run[column].to_pylist()) for part in (first, other))
        if a and b and not a & b:
            raise DataError(
                f"runs {first.name} and {other.name} have no {what} in common, such as "
                f"{min(a)!r} and {min(b)!r}; are they of one archive?"
            )
