"""Recipes: how a member is trained. Strict and frozen; defaults live here and nowhere else."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dsdi_ray.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PaperRow(_Section):
    """What the paper says of this recipe (Table 2)."""

    model: str
    lrap: float
    note: str | None = None


class Backbone(_Section):
    """Which network, and what it starts from."""

    name: str
    weights: str = "hub"  # hub (timm's, trained on ImageNet), none, or a file


class Augmentation(_Section):
    """The paper's four augmentations; their strengths are not in the paper."""

    horizontal_flip: Fraction = 0.5
    vertical_flip: Fraction = 0.5
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    brightness: NotNegative = 0.2
    contrast: NotNegative = 0.2
    saturation: NotNegative = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05


class Loss(_Section):
    """Eq. 1-2."""

    family: Literal["focal"] = "focal"
    gamma: float = 2.0

    @field_validator("gamma")
    @classmethod
    def _gamma_has_a_gradient(cls, gamma: float) -> float:
        if gamma != 0 and gamma < 1:
            raise ValueError(
                "must be 0 or at least 1: in between the gradient at p = y is infinite"
            )
        return gamma


class Optimizer(_Section):
    """SGD as in IBN-Net's repository, or AdamW."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] | None = None  # None: 0.1 * batch_size / 256
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 1e-4


class Schedule(_Section):
    """How the learning rate goes: cosine to 0, or divided by 10 at 50 % and 75 % of the epochs."""

    name: Literal["cosine", "step"] = "cosine"
    warmup_epochs: NotNegative = 1.0


class Recipe(_Section):
    """How one member is trained.

    Attributes:
        split_seed: Which images are held back; None takes the prepared set's split.
    """

    name: str
    paper: PaperRow | None = None
    backbone: Backbone
    input_px: Annotated[int, Field(ge=32, le=2048)] = 360
    loss: Loss = Loss()
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    batch_size: Annotated[int, Field(ge=2)] = 28
    epochs: Annotated[int, Field(ge=1)] = 40
    seed: Annotated[int, Field(ge=0)] = 0
    split_seed: int | None = None
    mixed_precision: bool = True  # on GPUs; CPUs train in float32

    @property
    def learning_rate(self) -> float:
        """The peak learning rate; the default scales with the batch."""
        return self.optimizer.lr or 0.1 * self.batch_size / 256


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe and apply ``dotted.key=value`` overrides; values are read as YAML.

    Raises:
        ConfigError: Naming the file, the key, the rule and the value.
    """
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"recipe {path}: must be a mapping of keys")
    for override in overrides:
        _apply(data, override)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_explain(e) for e in error.errors())
        raise ConfigError(f"recipe {path}: {problems}") from error


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: must be key=value, such as loss.gamma=1.5")
    *sections, last = key.split(".")
    for section in sections:
        inner = data.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {section} is a value, not a section")
        data = inner
    try:
        data[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: not a valid value: {error}") from error


def _explain(error: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, list(_dotted_keys(Recipe)), n=1)
        return f"{key}: unknown key" + (f"; did you mean {close[0]}?" if close else "")
    if error["type"] == "missing":
        return f"{key}: must be given"
    rule = error["msg"].removeprefix("Value error, ")
    return f"{key}: {rule[0].lower()}{rule[1:]}, got {error['input']!r}"


def _dotted_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _dotted_keys(field.annotation, f"{prefix}{name}.")
