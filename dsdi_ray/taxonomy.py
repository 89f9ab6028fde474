"""Taxonomies as data: the classes in order, which are features, and how raw answers spell them.

Built-in: ``ladi_v1`` (37 classes of the paper's Table 1, the default) and ``ladi_v2a`` (12). Any
YAML file of the same form works everywhere the built-in ones do::

    name: my_taxonomy
    classes:
      - {name: flooded road, category: damage, feature: 1, aliases: ["damage:flood"]}
      - {name: "damage: none", category: damage, none: true}

Only ``name`` is required of a class. A class that is not a none-class is a feature; its number is
``feature`` or, where no class gives one, its place in the list.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from dsdi_ray.errors import TaxonomyError

DEFAULT_TAXONOMY = "ladi_v1"
BUILT_IN_TAXONOMIES = ("ladi_v1", "ladi_v2a")
_CLASS_KEYS = frozenset({"name", "category", "feature", "none", "count", "aliases"})


@dataclass(frozen=True, kw_only=True)
class TaxonomyClass:
    """One label.

    Attributes:
        name: Its name, unique in the taxonomy.
        category: The group of labels that one labelling task asks about.
        is_none: True for "nothing of this category"; such a class is never evaluated.
        feature_id: The feature's number in runs and qrels, None for a none-class.
        count: How often the label was given in the reference data (n_y of Eq. 3), if known.
        aliases: Raw answer strings that mean this class, besides its name.
    """

    name: str
    category: str = "all"
    is_none: bool = False
    feature_id: int | None = None
    count: int | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taxonomy:
    """Classes in order; the order is the order of every label and logit vector."""

    name: str
    classes: tuple[TaxonomyClass, ...]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in order of first appearance."""
        return tuple(dict.fromkeys(c.category for c in self.classes))

    @property
    def features(self) -> tuple[TaxonomyClass, ...]:
        """The classes that are ranked and evaluated, in the taxonomy's order."""
        return tuple(c for c in self.classes if c.feature_id is not None)

    @property
    def feature_indices(self) -> tuple[int, ...]:
        """Positions of :attr:`features` in a class vector."""
        return tuple(i for i, c in enumerate(self.classes) if c.feature_id is not None)

    @property
    def none_indices(self) -> tuple[int, ...]:
        """Positions of the none-classes in a class vector."""
        return tuple(i for i, c in enumerate(self.classes) if c.is_none)

    @property
    def class_counts(self) -> tuple[int, ...] | None:
        """Count per class, or None where any is unknown."""
        counts = tuple(c.count for c in self.classes if c.count is not None)
        return counts if len(counts) == len(self.classes) else None

    @cached_property
    def _index_by_spelling(self) -> Mapping[str, int]:
        return {_fold(s): i for i, c in enumerate(self.classes) for s in (c.name, *c.aliases)}

    def index_of(self, spelling: str) -> int | None:
        """Position of the class that a raw answer string means, None where unknown.

        Letter case and surrounding space do not matter.
        """
        return self._index_by_spelling.get(_fold(spelling))

    @cached_property
    def taxonomy_id(self) -> str:
        """Hash of what a trained network depends on: name, order, categories, feature numbers.

        Aliases and counts do not change it: they say how raw data is read, not what a logit means.
        """
        meaning = [(c.name, c.category, c.is_none, c.feature_id) for c in self.classes]
        digest = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"

    def to_dict(self) -> dict[str, Any]:
        """The YAML form, complete; :func:`taxonomy_from_dict` reads it back."""
        return {
            "name": self.name,
            "classes": [
                {
                    "name": c.name,
                    "category": c.category,
                    **({"none": True} if c.is_none else {}),
                    **({"feature": c.feature_id} if c.feature_id is not None else {}),
                    **({"count": c.count} if c.count is not None else {}),
                    **({"aliases": list(c.aliases)} if c.aliases else {}),
                }
                for c in self.classes
            ],
        }


def load_taxonomy(name_or_path: str | Path = DEFAULT_TAXONOMY) -> Taxonomy:
    """Load a built-in taxonomy by name, or a YAML file.

    Raises:
        TaxonomyError: If it is neither, or the file breaks a rule; the message says which.
    """
    text = str(name_or_path)
    if text in BUILT_IN_TAXONOMIES:
        content = files("dsdi_ray").joinpath("taxonomies", f"{text}.yaml").read_text("utf-8")
    else:
        try:
            content = Path(text).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TaxonomyError(
                f"taxonomy {text!r}: neither built in ({', '.join(BUILT_IN_TAXONOMIES)}) nor a "
                f"readable YAML file ({error})"
            ) from error
    try:
        data = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise TaxonomyError(f"taxonomy {text}: not valid YAML: {error}") from error
    return taxonomy_from_dict(data, source=text)


def taxonomy_from_dict(data: Any, *, source: str = "taxonomy") -> Taxonomy:
    """Build a taxonomy from its YAML form, checking every rule.

    Raises:
        TaxonomyError: Naming ``source``, the class and the rule.
    """
    if not isinstance(data, Mapping) or not data.get("name") or not data.get("classes"):
        raise TaxonomyError(f"{source}: must be a mapping with `name` and a non-empty `classes`")
    if not isinstance(data["classes"], list):
        raise TaxonomyError(f"{source}: `classes` must be a list, got {data['classes']!r}")
    classes = [_class_from_dict(c, place=i, source=source) for i, c in enumerate(data["classes"])]
    if all(c.feature_id is None for c in classes):
        classes = [
            c if c.is_none else TaxonomyClass(**{**vars(c), "feature_id": place})
            for place, c in enumerate(classes, start=1)
        ]
    for c in classes:
        if c.feature_id is None and not c.is_none:
            raise TaxonomyError(
                f"{source}: class {c.name!r} has no `feature` number and others have one; number "
                "all of them, or say `none: true`"
            )
    _check(classes, source=source)
    return Taxonomy(name=str(data["name"]), classes=tuple(classes))


def check_same_taxonomy(expected: Taxonomy, got: Taxonomy, *, what: str) -> None:
    """Refuse to mix artifacts of two taxonomies.

    Raises:
        TaxonomyError: If their classes differ.
    """
    if expected.taxonomy_id != got.taxonomy_id:
        raise TaxonomyError(
            f"{what} has taxonomy {got.taxonomy_id} ({len(got)} classes), expected "
            f"{expected.taxonomy_id} ({len(expected)} classes): they cannot be mixed"
        )


def _fold(spelling: str) -> str:
    return " ".join(spelling.split()).casefold()


def _class_from_dict(data: Any, *, place: int, source: str) -> TaxonomyClass:
    if isinstance(data, str):
        data = {"name": data}
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise TaxonomyError(f"{source}: class {place + 1} has no `name`, got {data!r}")
    unknown = sorted(set(data) - _CLASS_KEYS)
    if unknown:
        raise TaxonomyError(
            f"{source}: class {data['name']!r}: unknown key {unknown[0]!r}, "
            f"known: {', '.join(sorted(_CLASS_KEYS))}"
        )
    is_none, feature_id, count = data.get("none", False), data.get("feature"), data.get("count")
    if not isinstance(is_none, bool) or (is_none and feature_id is not None):
        raise TaxonomyError(
            f"{source}: class {data['name']!r}: `none` must be a boolean and excludes `feature`"
        )
    for key, number in (("feature", feature_id), ("count", count)):
        if number is not None and (not isinstance(number, int) or number < 1):
            raise TaxonomyError(
                f"{source}: class {data['name']!r}: `{key}` must be an integer from 1, got {number!r}"
            )
    aliases = data.get("aliases") or []
    if not isinstance(aliases, list):
        raise TaxonomyError(
            f"{source}: class {data['name']!r}: `aliases` must be a list, got {aliases!r}"
        )
    return TaxonomyClass(
        name=data["name"],
        category=str(data.get("category", "all")),
        is_none=is_none,
        feature_id=feature_id,
        count=count,
        aliases=tuple(str(a) for a in aliases),
    )


def _check(classes: Sequence[TaxonomyClass], *, source: str) -> None:
    owner_by_spelling: dict[str, int] = {}
    owner_by_feature: dict[int, int] = {}
    for i, c in enumerate(classes):
        for spelling in {_fold(s) for s in (c.name, *c.aliases)}:
            other = owner_by_spelling.setdefault(spelling, i)
            if other != i:
                raise TaxonomyError(
                    f"{source}: {spelling!r} means both {classes[other].name!r} and {c.name!r}"
                )
        if c.feature_id is not None:
            other = owner_by_feature.setdefault(c.feature_id, i)
            if other != i:
                raise TaxonomyError(
                    f"{source}: feature {c.feature_id} is both {classes[other].name!r} and "
                    f"{c.name!r}"
                )
    if not owner_by_feature:
        raise TaxonomyError(f"{source}: no class is a feature, nothing could be ranked")
