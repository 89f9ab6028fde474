"""Greedy selection of an ensemble's members on validation predictions.

R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble selection from libraries of models",
ICML 2004: to an ensemble that starts with the best members, the member is added that helps it most,
again and again. What is chosen for doing well on some images does less well on others, the more so
the more members there are to choose from; so the images are divided, and the half that nothing was
chosen on tells what the choice is worth.

Shapes: M members, N images, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.quick_metrics import Judge
from dsdi_ray.method.sampling import assign_splits

Float64Array = NDArray[np.float64]

WEIGHTS = ("equal", "free")
_SMALLEST_HALF = 0.25
_DECIMALS = 12  # of a metric: what differs less is equal, and was rounded in another order


@dataclass(frozen=True, kw_only=True)
class SelectionStep:
    """A member that was added.

    Attributes:
        bag: In which bag, from 1.
        member: Its place in the library.
        value: Metric of the ensemble with it.
        is_kept: False where the bag's best ensemble was an earlier one.
    """

    bag: int
    member: int
    value: float
    is_kept: bool


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was chosen.

    Attributes:
        counts: Weight of each member, 0 for those that are not in the ensemble, ``[M]``.
        singles: Metric of each member by itself, ``[M]``.
        steps: How it came about, bag by bag.
    """

    counts: NDArray[np.int64]
    singles: Float64Array
    steps: tuple[SelectionStep, ...]


def select_members(
    probs: Float64Array,
    judge: Judge,
    *,
    size: int,
    weights: str = "equal",
    initial: int = 1,
    bags: int = 1,
    seed: int = 0,
    after_step: Callable[[], object] | None = None,
) -> Selection:
    """Choose members whose averaged probabilities do best.

    Args:
        probs: Probabilities of the library, ``[M, N, C]``, as the ensemble averages them
            (:func:`dsdi_ray.method.fusion.ensemble_frames`).
        judge: Metric of :mod:`dsdi_ray.method.quick_metrics`; only the order of scores may matter
            to it, since it is given sums.
        size: Steps of a bag, those of the start included.
        weights: ``equal``: a member is added once and counts once, and exactly ``size`` are chosen
            (as the paper's ensembles); ``free``: it may be added again, counts as often as it was,
            and of the ensembles on the way each bag keeps the best, of equals the first.
        initial: So many best members are the start.
        bags: 1 chooses among all members; more choose among a random half of them each (bagging),
            and counts add up. With equal weights those that most bags chose are taken, of equals
            the best by itself.
        seed: Of the halves.
        after_step: Called after each step, for progress.

    Returns:
        The choice; it is the same for the same arguments. Of equals the earlier member is taken.

    Raises:
        ConfigError: If an option is out of range.
    """
    num_members = len(probs)
    _check_options(num_members, size=size, weights=weights, initial=initial, bags=bags)
    singles = np.array([judge(one) for one in probs])
    counts = np.zeros(num_members, np.int64)
    steps: list[SelectionStep] = []
    for bag, candidates in enumerate(_bags_of(num_members, bags, seed), start=1):
        grown = _grow(
            probs,
            judge,
            sorted(candidates, key=lambda m: (-singles[m].round(_DECIMALS), m)),
            size=size if weights == "free" else min(size, len(candidates)),
            initial=initial,
            with_replacement=weights == "free",
            after_step=after_step,
        )
        values = [value for _, value in grown]
        num_kept = first_best(values) + 1 if weights == "free" else len(grown)
        for place, (member, value) in enumerate(grown):
            is_kept = place < num_kept
            counts[member] += is_kept
            steps.append(SelectionStep(bag=bag, member=member, value=value, is_kept=is_kept))
    if weights == "equal":
        chosen = np.lexsort((np.arange(num_members), -singles.round(_DECIMALS), -counts))[:size]
        counts = np.isin(np.arange(num_members), chosen).astype(np.int64)
    return Selection(counts=counts, singles=singles, steps=tuple(steps))


def first_best(values: Sequence[float] | Float64Array) -> int:
    """Place of the largest value of a metric, of equals the first."""
    return int(np.argmax(np.round(values, _DECIMALS)))


def values_of_steps(
    probs: Float64Array, judge: Judge, steps: Sequence[SelectionStep]
) -> list[float]:
    """The metric on other images, after each step."""
    total, bag, values = np.zeros_like(probs[0]), 0, []
    for step in steps:
        if step.bag != bag:
            total, bag = np.zeros_like(probs[0]), step.bag
        total += probs[step.member]
        values.append(judge(total))
    return values


def value_of(probs: Float64Array, judge: Judge, counts: NDArray[np.int64]) -> float:
    """The metric of an ensemble by its members' weights, ``[M]``."""
    total = np.zeros_like(probs[0])
    for one, count in zip(probs, counts, strict=True):
        if count:
            total += count * one
    return judge(total)


def divide_images(
    image_ids: Sequence[str], groups: Sequence[str | None], *, seed: int
) -> tuple[NDArray[np.bool_], str]:
    """Divide images into a half to choose on and a half that is held back.

    Args:
        image_ids: Names, ``[N]``.
        groups: What stays together, ``[N]``; None: the image by itself.
        seed: Which ones.

    Returns:
        Which are held back, ``[N]``; and whether by ``group`` or by ``image``: that is where no
        group is known, or groups are so large that less than a quarter would be on one side.

    Raises:
        DataError: If there are less than two images.
    """
    if len(image_ids) < 2:
        raise DataError(f"at least 2 images are needed to divide them, there are {len(image_ids)}")
    if any(group is not None for group in groups):
        held_back = assign_splits(image_ids, validation_fraction=0.5, seed=seed, groups=groups)
        if _SMALLEST_HALF <= held_back.mean() <= 1 - _SMALLEST_HALF:
            return held_back, "group"
    return assign_splits(image_ids, validation_fraction=0.5, seed=seed), "image"


def logit_correlations(logits: NDArray[np.floating]) -> Float64Array:
    """Pearson's correlation of the members' logits over the images, averaged over classes.

    Args:
        logits: ``[M, N, C]``. Classes in which a member says the same of all images are left out.

    Returns:
        ``[M, M]``; NaN where no class is left.
    """
    varies = (np.ptp(logits, axis=1) > 0).all(axis=0)
    wide = logits[:, :, varies].astype(np.float64)
    wide -= wide.mean(axis=1, keepdims=True)
    wide /= np.sqrt((wide**2).sum(axis=1, keepdims=True))
    flat = wide.reshape(len(wide), -1)
    num_classes = int(varies.sum())
    return flat @ flat.T / num_classes if num_classes else np.full((len(flat), len(flat)), np.nan)


def _bags_of(num_members: int, bags: int, seed: int) -> list[list[int]]:
    if bags == 1:
        return [list(range(num_members))]
    rng, half = np.random.default_rng(seed), (num_members + 1) // 2
    return [rng.choice(num_members, half, replace=False).tolist() for _ in range(bags)]


def _grow(
    probs: Float64Array,
    judge: Judge,
    best_first: Sequence[int],
    *,
    size: int,
    initial: int,
    with_replacement: bool,
    after_step: Callable[[], object] | None,
) -> list[tuple[int, float]]:
    """Members in the order in which they are added, and the metric with each."""
    total, summed = np.zeros_like(probs[0]), np.empty_like(probs[0])
    grown: list[tuple[int, float]] = []
    candidates = sorted(best_first)
    while len(grown) < size:
        free = [best_first[len(grown)]] if len(grown) < initial else candidates
        values = [judge(np.add(total, probs[member], out=summed)) for member in free]
        best = first_best(values)
        total += probs[free[best]]
        grown.append((free[best], values[best]))
        if not with_replacement:
            candidates.remove(free[best])
        if after_step is not None:
            after_step()
    return grown


def _check_options(num_members: int, *, size: int, weights: str, initial: int, bags: int) -> None:
    if weights not in WEIGHTS:
        raise ConfigError(f"weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
    most = num_members if weights == "equal" else None
    if size < 1 or (most is not None and size > most):
        rule = f"from 1 to {most}, the number of members" if most is not None else "at least 1"
        raise ConfigError(f"size must be {rule}, with weights {weights}, got {size}")
    most_initial = min(size, (num_members + 1) // 2 if bags > 1 else num_members)
    if not 1 <= initial <= most_initial:
        raise ConfigError(f"initial must be from 1 to {most_initial} here, got {initial}")
    if bags < 1:
        raise ConfigError(f"bags must be at least 1, got {bags}")
