"""Members that were validated on the same images: what an ensemble is chosen from.

Shapes: M members, N images, C classes.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.bundles import MEMBER_FILE, MemberSpec, read_member_spec
from dsdi_ray.storage.validation_logits import VALIDATION_FILE, ValidationLogits, read_validation
from dsdi_ray.taxonomy import Taxonomy, check_same_taxonomy

_UNFINISHED = ".training"
_NUM_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class LibraryMember:
    """A member that may be chosen.

    Attributes:
        path: Its bundle.
        name: The bundle's path in the folder that was searched.
        spec: What it says of itself.
    """

    path: Path
    name: str
    spec: MemberSpec


@dataclass(frozen=True, kw_only=True)
class MemberLibrary:
    """Members, and what each says of the images.

    Attributes:
        members: M of them.
        image_ids: The images that all of them were validated on, ``[N]``.
        groups: What splits keep together, ``[N]``; None: the image by itself.
        labels: Soft labels by which all are judged, those of the first member, ``[N, C]``.
        is_asked: Which of them count, ``[N, C]``.
        logits: ``[M, N, C]``, float32.
        taxonomy: Of the classes.
        prepared_id: Of the set that the images are of.
        left_out: Bundles that cannot be chosen, each with the reason.
        other_encodings: Names of the members that learnt labels of another encoding than the first's.
    """

    members: Sequence[LibraryMember]
    image_ids: Sequence[str]
    groups: Sequence[str | None]
    labels: NDArray[np.float32]
    is_asked: NDArray[np.bool_]
    logits: NDArray[np.float32]
    taxonomy: Taxonomy
    prepared_id: str
    left_out: Sequence[tuple[str, str]]
    other_encodings: Sequence[str]


def find_bundles(places: Sequence[Path], *, with_snapshots: bool = False) -> list[tuple[Path, str]]:
    """Find member bundles: the folders themselves, or those in them at any depth.

    Hidden folders and those of runs that are not over (``*.training``) are passed over.

    Args:
        places: Folders.
        with_snapshots: Whether the members in a member (``last``, ``snapshots/``) are found too.

    Returns:
        Each with its path in the folder that was searched; in the order of the places, then of the
        paths.

    Raises:
        DataError: If there is no such folder, or no bundle in one.
    """
    found: dict[Path, str] = {}
    for place in places:
        if not place.is_dir():
            raise DataError(f"{place}: no such folder")
        here = list(_bundles_in(place, with_snapshots=with_snapshots))
        if not here:
            raise DataError(f"{place}: there is no member bundle in it (no {MEMBER_FILE})")
        for path in here:
            name = path.relative_to(place).as_posix()
            found.setdefault(path.resolve(), place.resolve().name if name == "." else name)
    names = list(found.values())
    return [(p, name if names.count(name) == 1 else str(p)) for p, name in found.items()]


def read_library(bundles: Sequence[tuple[Path, str]]) -> MemberLibrary:
    """Read the validation logits of members; those that have none are left out.

    Args:
        bundles: Of :func:`find_bundles`.

    Raises:
        DataError: If no member is left, a file is damaged, or members were validated on different
            images.
        TaxonomyError: If taxonomies differ.
    """
    members: list[LibraryMember] = []
    validations: list[ValidationLogits] = []
    left_out: list[tuple[str, str]] = []
    with progress_bar(total=len(bundles), description="Reading members", unit="member") as bar:
        for path, name in bundles:
            member = LibraryMember(path=path, name=name, spec=read_member_spec(path))
            validation = _read_own(member, members)
            if isinstance(validation, str):
                left_out.append((name, validation))
            else:
                members.append(member)
                validations.append(validation)
            bar.update()
    if not members:
        raise DataError(
            f"none of {len(bundles)} member bundles can be chosen: {left_out[0][0]} has "
            f"{left_out[0][1]}; members that were trained with images held back have one"
        )
    first = validations[0]
    _check_same_images(members, validations)
    others = [
        member.name
        for member, validation in zip(members, validations, strict=True)
        if not np.array_equal(validation.soft_labels, first.soft_labels)
    ]
    return MemberLibrary(
        members=members,
        image_ids=first.image_ids,
        groups=first.groups,
        labels=first.soft_labels,
        is_asked=first.is_asked,
        logits=np.stack([validation.logits for validation in validations]),
        taxonomy=members[0].spec.taxonomy,
        prepared_id=first.prepared_id,
        left_out=left_out,
        other_encodings=others,
    )


def encoding_of_labels(member: LibraryMember) -> str | None:
    """Key ``labels.encoding`` of a member's recipe, None where it is not known."""
    labels = (member.spec.recipe or {}).get("labels") or {}
    return labels.get("encoding")


def _bundles_in(folder: Path, *, with_snapshots: bool) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        kept = [f for f in sorted(folders) if not f.startswith(".") and not f.endswith(_UNFINISHED)]
        if MEMBER_FILE in files:
            yield Path(parent)
            kept = kept if with_snapshots else []
        folders[:] = kept


def _read_own(member: LibraryMember, known: Sequence[LibraryMember]) -> ValidationLogits | str:
    """What a member says of its images; or why it is left out."""
    if not (member.path / VALIDATION_FILE).is_file():
        return f"no {VALIDATION_FILE}"
    twins = [other.name for other in known if other.spec.member_id == member.spec.member_id]
    if twins:
        return f"the same weights as {twins[0]}"
    validation, spec = read_validation(member.path), member.spec
    if validation.member_id != spec.member_id:
        raise DataError(
            f"member {member.path}: {VALIDATION_FILE} is of member {validation.member_id}, not of "
            f"{spec.member_id}; train it again"
        )
    if validation.logits.shape[1] != len(spec.taxonomy):
        raise DataError(
            f"member {member.path}: {VALIDATION_FILE} has {validation.logits.shape[1]} classes, "
            f"its taxonomy {len(spec.taxonomy)}; train it again"
        )
    return validation if np.isfinite(validation.logits).all() else "logits that are not finite"


def _check_same_images(
    members: Sequence[LibraryMember], validations: Sequence[ValidationLogits]
) -> None:
    for member in members:
        check_same_taxonomy(members[0].spec.taxonomy, member.spec.taxonomy, what=str(member.path))
    differing = []
    for member, validation in zip(members, validations, strict=True):
        how = _difference(members[0], validations[0], member, validation)
        if how:
            differing.append(f"{member.name} ({how})")
    if differing:
        named = ", ".join(differing[:_NUM_NAMED])
        more = f" and {len(differing) - _NUM_NAMED} more" if len(differing) > _NUM_NAMED else ""
        raise DataError(
            f"members were not validated on the images of {members[0].name}: {named}{more}; an "
            "ensemble is chosen among members of one prepared set and one split: train them with "
            "the same split_seed"
        )


def _difference(
    first: LibraryMember, expected: ValidationLogits, member: LibraryMember, got: ValidationLogits
) -> str | None:
    """In what the images that two members were validated on differ, or their labels."""
    if got.prepared_id != expected.prepared_id:
        return f"prepared set {got.prepared_id}, not {expected.prepared_id}"
    if list(got.image_ids) != list(expected.image_ids):
        return f"split_seed {got.split_seed}, not {expected.split_seed}"
    encodings = encoding_of_labels(first), encoding_of_labels(member)
    if encodings[0] == encodings[1] and not np.array_equal(got.soft_labels, expected.soft_labels):
        return "other labels of the same images"
    return None
