"""Train the members of a selection anew, on the images that were held back too."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.train_bundles import SNAPSHOTS
from dsdi_ray.distributed.train_members import train_members
from dsdi_ray.errors import DataError
from dsdi_ray.method.snapshots import cycle_ends
from dsdi_ray.storage.bundles import MemberSpec, read_member_spec, write_ensemble
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.storage.selection_files import SelectionReport, write_selection

MEMBERS = "members"


@dataclass(frozen=True, kw_only=True)
class Refit:
    """What takes the place of a member.

    Attributes:
        recipe: The member's own, but for ``train_on: all``; its name tells it from all others.
        bundle: Which bundle of its run: ``.``, or ``snapshots/cycle-K`` for a snapshot.
        weight: In the ensemble.
    """

    recipe: Recipe
    bundle: str
    weight: float


def check_refit_data(data: Path, prepared_id: str) -> None:
    """See whether the members' images are those of a prepared set.

    Raises:
        DataError: If they are not.
    """
    found = PreparedSet.open(data).prepared_id
    if found != prepared_id:
        raise DataError(
            f"--data {data} is prepared set {found}, the members were trained on {prepared_id}; "
            "give the set that they were trained on"
        )


def plan_refits(chosen: Sequence[tuple[MemberSpec, float]]) -> list[Refit]:
    """What is to be trained in the place of each member.

    A recipe that learns from all images ends with its last epoch, whatever it selected before.

    Args:
        chosen: Members and their weights.

    Raises:
        DataError: If a member has no recipe, or one that this version does not know.
    """
    refits = []
    for spec, weight in chosen:
        recipe = _recipe_on_all(spec)
        cycles = recipe.schedule.cycles
        ends = cycle_ends(recipe.epochs, cycles) if cycles else ()
        epoch = int((spec.metrics or {}).get("epoch", recipe.epochs))
        is_snapshot = epoch in ends and epoch != recipe.epochs
        bundle = f"{SNAPSHOTS}/cycle-{ends.index(epoch) + 1}" if is_snapshot else "."
        refits.append(Refit(recipe=recipe, bundle=bundle, weight=weight))
    return refits


def refit_ensemble(
    report: SelectionReport, *, data: Path, use_gpu: bool | None = None
) -> SelectionReport:
    """Train the chosen members' recipes on all images and build the ensemble of these.

    Members that are complete are kept and others go on from their last epoch. Two that come to the
    same network, such as the best and the last epoch of a run, are one of both weights.

    Args:
        report: Of the selection; the ensemble in its folder is replaced once all are trained.
        data: Prepared set of the members.
        use_gpu: None for GPUs where there are any.

    Raises:
        DsdiError: That of the first recipe that failed, when all others are through.
    """
    refits = plan_refits([(read_member_spec(m.path), m.weight) for m in report.chosen])
    recipes = {refit.recipe.name: refit.recipe for refit in refits}
    train_members(list(recipes.values()), data=data, out=report.out / MEMBERS, use_gpu=use_gpu)
    weights: defaultdict[Path, float] = defaultdict(float)
    for refit in refits:
        weights[report.out / MEMBERS / refit.recipe.name / refit.bundle] += refit.weight
    write_ensemble(list(weights.items()), report.out)
    report = replace(report, refitted=[(str(path), weight) for path, weight in weights.items()])
    write_selection(report)
    return report


def _recipe_on_all(spec: MemberSpec) -> Recipe:
    if spec.recipe is None:
        raise DataError(f"member {spec.member_id} has no recipe to be trained anew")
    changed = {**spec.recipe, "train_on": "all", "select": None}
    try:
        resolved = Recipe.model_validate(changed).model_dump(mode="json")
    except ValidationError as error:
        raise DataError(
            f"member {spec.member_id}: its recipe is not one of this version: "
            f"{' '.join(str(error).split())}"
        ) from error
    digest = hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:8]
    return Recipe.model_validate({**resolved, "name": f"{resolved['name']}-{digest}"})
