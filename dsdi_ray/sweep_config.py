"""Sweeps: which recipes are tried. Strict and frozen, as recipes are."""

import copy
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dsdi_ray.config import LOSS_KEYS_BY_FAMILY, Recipe, parse_recipe
from dsdi_ray.errors import ConfigError
from dsdi_ray.settings_file import Section, read_mapping, set_key, validated

Scalar = str | bool | int | float | None
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
Point = Mapping[str, Scalar]
"""Dotted key of a recipe -> its value in one trial."""


class Axis(Section):
    """The values that a key may take; one of the fields is given. A plain list means ``grid``.

    Attributes:
        grid: Each of them.
        choice: One of them.
        uniform: Between two numbers.
        loguniform: Between two numbers above 0, evenly in their logarithm.
        integer: Whole numbers from the first to the second, in steps of the third (1 if left out).
    """

    grid: Annotated[tuple[Scalar, ...], Field(min_length=1)] | None = None
    choice: Annotated[tuple[Scalar, ...], Field(min_length=1)] | None = None
    uniform: tuple[float, float] | None = None
    loguniform: tuple[Annotated[float, Field(gt=0)], float] | None = None
    integer: Annotated[tuple[int, ...], Field(min_length=2, max_length=3)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _list_is_a_grid(cls, value: Any) -> Any:
        return {"grid": value} if isinstance(value, list | tuple) else value

    @field_validator("grid", "choice")
    @classmethod
    def _numbers_are_numbers(cls, values: tuple[Scalar, ...] | None) -> tuple[Scalar, ...] | None:
        """YAML reads 1e-3, without a point, as text."""
        return None if values is None else tuple(_number_or_text(value) for value in values)

    @model_validator(mode="after")
    def _is_one_range(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "must be a list of values, or one of grid, choice, uniform, loguniform, integer"
            )
        ends = self.uniform or self.loguniform or self.integer
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError(f"{given[0]} must go up, from the smaller to the larger number")
        if self.step < 1:
            raise ValueError("the step of integer must be at least 1")
        return self

    @property
    def values(self) -> tuple[Scalar, ...] | None:
        """What a grid or a choice lists."""
        return self.grid or self.choice

    @property
    def step(self) -> int:
        """Of ``integer``."""
        return self.integer[2] if self.integer is not None and len(self.integer) == 3 else 1

    def draw(self, source: random.Random) -> Scalar:
        """A value at random."""
        if self.values is not None:
            return source.choice(self.values)
        if self.uniform is not None:
            return source.uniform(*self.uniform)
        if self.loguniform is not None:
            low, high = self.loguniform
            return math.exp(source.uniform(math.log(low), math.log(high)))
        assert self.integer is not None
        return source.randrange(self.integer[0], self.integer[1] + 1, self.step)


def _number_or_text(value: Scalar) -> Scalar:
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


class Search(Section):
    """How points are chosen.

    Attributes:
        algorithm: ``grid``: every combination of the lists, other axes drawn ``num_samples`` times
            for each. ``random``: all axes drawn, ``num_samples`` points. ``optuna``: Optuna's
            tree-structured Parzen estimator, which learns from the trials that are over.
        num_samples: See there.
        seed: Of what is drawn.
    """

    algorithm: Literal["grid", "random", "optuna"] = "grid"
    num_samples: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0)] = 0


class EarlyStopping(Section):
    """Asynchronous successive halving over epochs, see :mod:`dsdi_ray.method.halving`.

    Attributes:
        grace_epochs: No trial is stopped before.
        reduction_factor: One in so many goes on at each rung; each is so many times later.
    """

    grace_epochs: Annotated[int, Field(ge=1)] = 3
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0


class Resources(Section):
    """What a trial gets.

    Attributes:
        workers: Data-parallel workers that share each batch.
        gpus_per_worker: Where GPUs are used; a part of one for small networks, such as 0.5.
        max_concurrent: Trials at the same time; None: as many as fit.
    """

    workers: Annotated[int, Field(ge=1)] = 1
    gpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    max_concurrent: Annotated[int, Field(ge=1)] | None = None

    @field_validator("gpus_per_worker")
    @classmethod
    def _is_whole_above_one(cls, gpus: float) -> float:
        if gpus > 1:
            raise ValueError("must be at most 1: more GPUs are more workers")
        return gpus


class Sweep(Section):
    """What is tried.

    Attributes:
        name: Of the sweep.
        recipe: File of the recipe that all trials start from, relative to the sweep's own.
        overrides: Keys of the recipe that are changed in all trials.
        space: Dotted key of the recipe -> its values. A key that the loss family of a trial does
            not take (beta, threshold, variant, ...) is left out there.
        search: How points are chosen.
        seeds: Each point is trained so many times, with the recipe's seed and the ones after it.
        metric: What is best: ``lrap``, ``map`` (higher) or ``loss`` (lower), on the validation part.
        early_stopping: None trains every trial to its end.
        resources: Of a trial.
    """

    name: str
    recipe: Path
    overrides: Mapping[str, Scalar] = {}
    space: Annotated[Mapping[str, Axis], Field(min_length=1)]
    search: Search = Search()
    seeds: Annotated[int, Field(ge=1)] = 1
    metric: Literal["lrap", "map", "loss"] = "lrap"
    early_stopping: EarlyStopping | None = EarlyStopping()
    resources: Resources = Resources()

    @field_validator("space")
    @classmethod
    def _family_comes_first(
        cls, space: Mapping[str, Axis], _: ValidationInfo
    ) -> Mapping[str, Axis]:
        if "seed" in space:
            raise ValueError("seed is no axis: set seeds to train each point several times")
        for key in space:
            if key in _VALIDATION_KEYS:
                raise ValueError(
                    f"{key} is no axis: trials would validate on different images or labels and "
                    "could not be compared; give all of them one in overrides"
                )
        return dict(sorted(space.items(), key=lambda item: item[0] != _FAMILY))

    @model_validator(mode="after")
    def _metric_is_one_for_all(self) -> Self:
        of_loss = [key for key in self.space if key.startswith("loss.")]
        if self.metric == "loss" and of_loss:
            raise ValueError(
                f"metric loss cannot compare trials of different {of_loss[0]}, each of which "
                "measures a loss of its own; take lrap or map"
            )
        return self


_FAMILY = "loss.family"
_VALIDATION_KEYS = ("split_seed", "train_on", "labels.encoding", "labels.masked")


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Load a sweep's file; its recipe's path becomes absolute.

    Args:
        path: YAML.
        overrides: ``dotted.key=value`` of the sweep's own keys.

    Raises:
        ConfigError: Naming the file, the key, the rule and the value.
    """
    data = read_mapping(path, what="sweep", overrides=overrides)
    sweep = validated(Sweep, data, source=f"sweep {path}")
    return sweep.model_copy(update={"recipe": (path.parent / sweep.recipe).resolve()})


def base_recipe(sweep: Sweep) -> dict[str, Any]:
    """The recipe that all trials start from, as a mapping.

    Raises:
        ConfigError: If it cannot be read.
    """
    data = read_mapping(sweep.recipe, what="recipe")
    for key, value in sweep.overrides.items():
        set_key(data, key, value)
    return data


def points(sweep: Sweep, base: Mapping[str, Any]) -> list[Point]:
    """The points of a search by grid or at random, each once, in their order.

    Args:
        sweep: Of algorithm grid or random.
        base: See :func:`base_recipe`; its loss family counts where the point has none.
    """
    source = random.Random(sweep.search.seed)
    listed = sweep.space if sweep.search.algorithm == "grid" else {}
    grids = {key: axis.grid for key, axis in listed.items() if axis.grid is not None}
    found: dict[tuple[tuple[str, Scalar], ...], Point] = {}
    for combination in itertools.product(*grids.values()):
        given = dict(zip(grids, combination, strict=True))
        for _ in range(sweep.search.num_samples):
            point: dict[str, Scalar] = {}
            for key, axis in sweep.space.items():
                # Drawn in any case, so that a family's keys do not shift what others get.
                value = given[key] if key in given else axis.draw(source)
                if is_of_family(key, family_of(point, base)):
                    point[key] = value
            found.setdefault(tuple(point.items()), point)
    return list(found.values())


def family_of(point: Point, base: Mapping[str, Any]) -> str:
    """The loss family of a trial."""
    loss = base.get("loss")
    of_base = loss.get("family") if isinstance(loss, Mapping) else None
    return str(point.get(_FAMILY) or of_base or "focal")


def is_of_family(key: str, family: str) -> bool:
    """Whether a trial of a loss family has this key."""
    section, _, name = key.rpartition(".")
    if section != "loss" or not any(name in keys for keys in LOSS_KEYS_BY_FAMILY.values()):
        return True
    return name in LOSS_KEYS_BY_FAMILY.get(family, ())


def trial_recipe(sweep: Sweep, base: Mapping[str, Any], point: Point, *, seed: int) -> Recipe:
    """The recipe of a trial.

    Keys of the base's loss that the trial's family does not take are dropped, and the epoch with
    the best value of the sweep's metric becomes the member where the recipe names none.

    Args:
        sweep: Its metric.
        base: See :func:`base_recipe`.
        point: What is changed.
        seed: Added to the recipe's own.

    Raises:
        ConfigError: Naming the point and the rule that it breaks.
    """
    data = copy.deepcopy(dict(base))
    for key, value in point.items():
        set_key(data, key, value)
    loss = data.get("loss")
    if isinstance(loss, dict):
        family = family_of(point, base)
        for name in [name for name in loss if not is_of_family(f"loss.{name}", family)]:
            del loss[name]
    recipe = parse_recipe(data, source=f"sweep {sweep.name}, trial {say_point(point)}")
    if recipe.train_on == "all":
        raise ConfigError(
            f"sweep {sweep.name}: train_on: all holds no images back to compare trials by; "
            "set train_on in overrides"
        )
    own: dict[str, Any] = {"seed": recipe.seed + seed, "paper": None}
    if recipe.select is None and recipe.schedule.name != "cyclic":
        own["select"] = sweep.metric
    return recipe.model_copy(update=own)


def say_point(point: Point) -> str:
    """A point in one line, for people."""
    return ", ".join(f"{key}={_say(value)}" for key, value in point.items()) or "(as the recipe)"


def _say(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
