"""Member and ensemble bundles: folders of YAML and safetensors, never pickles.

A member is ``member.yaml`` and ``model.safetensors`` (:mod:`dsdi_ray.storage.member_weights`), with
``validation.parquet`` beside them where images were held back
(:mod:`dsdi_ray.storage.validation_logits`). An ensemble is ``ensemble.yaml``, which names members by
relative path or URI, weight and id. Both are read from folders and URIs.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import yaml

from dsdi_ray.errors import DataError
from dsdi_ray.storage.filesystems import is_remote, join, local_path, read_bytes, short_reason
from dsdi_ray.taxonomy import Taxonomy, check_same_taxonomy, taxonomy_from_dict

MEMBER_FILE = "member.yaml"
ENSEMBLE_FILE = "ensemble.yaml"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class MemberSpec:
    """What a trained network is, beside its weights.

    Attributes:
        backbone: Name in :mod:`dsdi_ray.vision.backbones`.
        input_px: Side of its square input.
        mean: Per colour channel, of pixels scaled to [0, 1].
        std: Per colour channel.
        taxonomy: What its outputs mean.
        weights_sha256: Hash of the weights file.
        recipe: How it was trained, None if elsewhere.
        metrics: On the validation part.
        training_data_id: The prepared set's id.
    """

    backbone: str
    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    taxonomy: Taxonomy
    weights_sha256: str = ""
    recipe: Mapping[str, Any] | None = None
    metrics: Mapping[str, float] | None = None
    training_data_id: str | None = None

    @property
    def member_id(self) -> str:
        """Hash of all that decides its scores: weights, architecture, preprocessing, taxonomy."""
        meaning = [
            self.weights_sha256,
            self.backbone,
            self.input_px,
            [float(x) for x in (*self.mean, *self.std)],
            self.taxonomy.taxonomy_id,
        ]
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """A member's place in an ensemble."""

    path: str
    member_id: str
    weight: float
    spec: MemberSpec


@dataclass(frozen=True, kw_only=True)
class EnsembleSpec:
    """A weighted list of members of one taxonomy."""

    members: tuple[EnsembleMember, ...]
    taxonomy: Taxonomy

    @property
    def ensemble_id(self) -> str:
        """Hash of its members and of their shares in the whole."""
        total = sum(member.weight for member in self.members)
        shares = sorted((m.member_id, f"{m.weight / total:.9f}") for m in self.members)
        return hashlib.sha256(json.dumps(shares).encode()).hexdigest()[:16]

    def only(self, index: int) -> Self:
        """The ensemble that is one member alone."""
        return replace(self, members=(self.members[index],))


def check_place(out: Path, *, bundle_file: str = MEMBER_FILE) -> None:
    """See whether a bundle may be written to a folder.

    Args:
        out: The folder.
        bundle_file: :data:`MEMBER_FILE` or :data:`ENSEMBLE_FILE`.

    Raises:
        DataError: If ``out`` holds something else.
    """
    if out.is_file():
        raise DataError(f"{out} is a file; choose a folder")
    if out.exists() and not (out / bundle_file).is_file() and any(out.iterdir()):
        what = "member" if bundle_file == MEMBER_FILE else "ensemble"
        raise DataError(f"{out} is not empty and no {what} bundle; choose another folder")


def write_member_spec(folder: Path, spec: MemberSpec) -> None:
    """Write what a member is; its weights lie beside, see :mod:`dsdi_ray.storage.member_weights`."""
    content = {
        "format": _FORMAT,
        "member_id": spec.member_id,
        "backbone": spec.backbone,
        "input_px": spec.input_px,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "weights_sha256": spec.weights_sha256,
        "metrics": dict(spec.metrics) if spec.metrics else None,
        "training_data_id": spec.training_data_id,
        "recipe": dict(spec.recipe) if spec.recipe else None,
        "taxonomy": spec.taxonomy.to_dict(),
    }
    _write_yaml(folder / MEMBER_FILE, content)


def read_member_spec(path: str | Path) -> MemberSpec:
    """Read what a member is.

    Args:
        path: Folder of the bundle, or its URI.

    Raises:
        DataError: If it is no member bundle, or its id does not fit its content.
    """
    data = _read_yaml(path, MEMBER_FILE, what="member bundle")
    try:
        spec = MemberSpec(
            backbone=data["backbone"],
            input_px=data["input_px"],
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            taxonomy=taxonomy_from_dict(data["taxonomy"], source=f"{path}/{MEMBER_FILE}"),
            weights_sha256=data["weights_sha256"],
            recipe=data.get("recipe"),
            metrics=data.get("metrics"),
            training_data_id=data.get("training_data_id"),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"member bundle {path}: {MEMBER_FILE} lacks {error}") from error
    if spec.member_id != data.get("member_id"):
        raise DataError(
            f"member bundle {path}: member_id is {data.get('member_id')}, its content gives "
            f"{spec.member_id}: {MEMBER_FILE} was edited; import the weights again"
        )
    return spec


def write_ensemble(members: Sequence[tuple[str | Path, float]], out: Path) -> EnsembleSpec:
    """Write an ensemble bundle.

    Args:
        members: Member bundles, as folders or URIs, and their weights.
        out: Folder of the bundle.

    Raises:
        DataError: If a member is none, appears twice, or a weight is not above 0, or ``out`` holds
            something else.
        TaxonomyError: If taxonomies differ.
    """
    if not members:
        raise DataError("an ensemble needs at least one member")
    check_place(out, bundle_file=ENSEMBLE_FILE)
    entries: list[dict[str, Any]] = []
    seen: dict[str, str | Path] = {}
    for path, weight in members:
        spec = read_member_spec(path)
        if not 0 < weight < float("inf"):
            raise DataError(f"member {path}: weight must be above 0, got {weight}")
        if spec.member_id in seen:
            raise DataError(f"member {path} is the same as {seen[spec.member_id]}; use a weight")
        seen[spec.member_id] = path
        place = str(path) if is_remote(path) else _relative(local_path(path), out)
        entries.append({"path": place, "member_id": spec.member_id, "weight": float(weight)})
        check_same_taxonomy(
            read_member_spec(members[0][0]).taxonomy, spec.taxonomy, what=f"member {path}"
        )
    out.mkdir(parents=True, exist_ok=True)
    _write_yaml(out / ENSEMBLE_FILE, {"format": _FORMAT, "members": entries})
    return read_ensemble(out)


def read_ensemble(path: str | Path) -> EnsembleSpec:
    """Read an ensemble bundle and its members' specs.

    Args:
        path: Folder of the bundle, or its URI.

    Raises:
        DataError: If it is none, or a member is missing or has changed since.
        TaxonomyError: If taxonomies differ.
    """
    data = _read_yaml(path, ENSEMBLE_FILE, what="ensemble bundle")
    members: list[EnsembleMember] = []
    for entry in data.get("members") or []:
        _check_entry(entry, source=path)
        folder = join(path, entry["path"])
        spec = read_member_spec(folder)
        if spec.member_id in {m.member_id for m in members}:
            raise DataError(f"ensemble {path}: member {entry['path']} is in it twice")
        if spec.member_id != entry["member_id"]:
            raise DataError(
                f"ensemble {path}: member {entry['path']} has become {spec.member_id}, the "
                f"ensemble was built with {entry['member_id']}; build it again"
            )
        members.append(
            EnsembleMember(path=folder, member_id=spec.member_id, weight=entry["weight"], spec=spec)
        )
    if not members:
        raise DataError(f"ensemble {path}: {ENSEMBLE_FILE} names no members")
    for member in members:
        check_same_taxonomy(members[0].spec.taxonomy, member.spec.taxonomy, what=member.path)
    return EnsembleSpec(members=tuple(members), taxonomy=members[0].spec.taxonomy)


def _check_entry(entry: Any, *, source: str | Path) -> None:
    if not isinstance(entry, dict) or not {"path", "member_id", "weight"} <= set(entry):
        raise DataError(f"ensemble {source}: each member needs path, member_id and weight")
    weight = entry["weight"]
    if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise DataError(
            f"ensemble {source}: weight of {entry['path']} must be above 0, got {weight!r}"
        )


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), "utf-8")


def _read_yaml(folder: str | Path, name: str, *, what: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(read_bytes(join(folder, name)).decode("utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} is no {what}: {name} is missing") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{what} {folder}: {name} cannot be read: {short_reason(error)}") from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise DataError(f"{what} {folder}: {name} is not of format {_FORMAT}")
    return data


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.resolve(), folder.resolve())
