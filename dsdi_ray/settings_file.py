"""Files of settings: YAML that is checked against models, with errors that name the key.

Recipes, sweeps and submissions are read by it.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dsdi_ray.errors import ConfigError

SectionT = TypeVar("SectionT", bound=BaseModel)


class Section(BaseModel):
    """A part of a file of settings: unknown keys and numbers that are none are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def read_mapping(path: Path, *, what: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file of keys and apply ``dotted.key=value`` overrides.

    Raises:
        ConfigError: If it cannot be read or is none.
    """
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} {path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{what} {path}: must be a mapping of keys")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: must be key=value, such as loss.gamma=1.5")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: not a valid value: {error}") from error
        set_key(data, key, value)
    return data


def set_key(data: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key; sections that are not there are made.

    Raises:
        ConfigError: If a section is a value.
    """
    *sections, last = key.split(".")
    for section in sections:
        inner = data.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}={value}: {section} is a value, not a section")
        data = inner
    data[last] = value


def validated(model: type[SectionT], data: Mapping[str, Any], *, source: str) -> SectionT:
    """Make a model of a mapping.

    Raises:
        ConfigError: Naming the source, the key, the rule and the value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_explain(model, e) for e in error.errors())
        raise ConfigError(f"{source}: {problems}") from error


def _explain(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, list(_dotted_keys(model)), n=1)
        return f"{key}: unknown key" + (f"; did you mean {close[0]}?" if close else "")
    if error["type"] == "missing":
        return f"{key}: must be given"
    rule = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], dict):  # a rule of a whole section
        return f"{key}: {rule}" if key else rule
    return f"{key}: {rule[0].lower()}{rule[1:]}, got {error['input']!r}"


def _dotted_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _sections_in(field.annotation):
            yield from _dotted_keys(inner, f"{prefix}{name}.")


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field holds: itself, or in a tuple, a mapping, an option."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)
