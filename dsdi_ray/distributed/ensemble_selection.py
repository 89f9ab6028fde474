"""Choose an ensemble among trained members by what they said of the images held back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.fusion import sigmoid
from dsdi_ray.method.quick_metrics import METRICS, Judge
from dsdi_ray.method.selection import (
    Selection,
    divide_images,
    first_best,
    logit_correlations,
    select_members,
    value_of,
    values_of_steps,
)
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.bundles import write_ensemble
from dsdi_ray.storage.member_library import MemberLibrary, encoding_of_labels
from dsdi_ray.storage.selection_files import (
    ChosenMember,
    ComparedSystem,
    ReportedStep,
    SelectionReport,
    finite_or_none,
    write_selection,
)

_PRESENT = 0.5  # a soft label from here on is present, as in every other metric


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How members are chosen, see :func:`dsdi_ray.method.selection.select_members`.

    Attributes:
        size: Steps; with equal weights the number of members.
        metric: ``map`` (over the features that an image shows) or ``lrap`` (over all classes).
        weights: ``equal`` or ``free``.
        initial: So many best members are the start.
        bags: 1 for all members at once, more for a random half of them each.
        seed: Of the halves of the images and of the bags.
    """

    size: int = 10
    metric: str = "map"
    weights: str = "equal"
    initial: int = 1
    bags: int = 1
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class _Half:
    """Some of the images: the members' probabilities there, ``[M, N, C]``, and their metric."""

    probs: NDArray[np.float64]
    judge: Judge

    def value(self, counts: NDArray[np.int64]) -> float:
        return value_of(self.probs, self.judge, counts)


def select_ensemble(
    library: MemberLibrary, settings: SelectionSettings, *, out: Path
) -> SelectionReport:
    """Choose an ensemble and write it: its bundle, and how it came about beside it.

    Args:
        library: What is chosen from.
        settings: How.
        out: Folder of the ensemble.

    Raises:
        UserError: As :func:`choose_ensemble`.
    """
    report = choose_ensemble(library, settings, out=out)
    write_ensemble([(member.path, member.weight) for member in report.chosen], out)
    write_selection(report)
    return report


def choose_ensemble(
    library: MemberLibrary, settings: SelectionSettings, *, out: Path
) -> SelectionReport:
    """Choose members on half of the images; the other half tells what the choice is worth.

    Args:
        library: What is chosen from.
        settings: How.
        out: Folder of the ensemble; nothing is written there.

    Raises:
        ConfigError: If a setting is out of range.
        DataError: If a half of the images shows no feature.
    """
    if settings.metric not in METRICS:
        known = ", ".join(METRICS)
        raise ConfigError(f"metric must be one of {known}, got {settings.metric!r}")
    held_back, unit = divide_images(library.image_ids, library.groups, seed=settings.seed)
    selecting, held = (
        _half_of(library, mask, settings.metric, what)
        for mask, what in ((~held_back, "chosen on"), (held_back, "held back"))
    )
    with progress_bar(
        total=settings.size * settings.bags, description="Choosing", unit="step"
    ) as bar:
        selection = select_members(
            selecting.probs,
            selecting.judge,
            size=settings.size,
            weights=settings.weights,
            initial=settings.initial,
            bags=settings.bags,
            seed=settings.seed,
            after_step=bar.update,
        )
    compared = _compared(library, selection, (selecting, held), settings.weights)
    chosen = np.flatnonzero(selection.counts)
    correlation = logit_correlations(library.logits[chosen])
    return SelectionReport(
        out=out,
        settings=asdict(settings),
        num_members=len(library.members),
        left_out=library.left_out,
        num_selecting=int((~held_back).sum()),
        num_held_back=int(held_back.sum()),
        divided_by=unit,
        steps=_steps(library, selection, held),
        compared=compared,
        chosen=_chosen(library, selection, held),
        correlation=finite_or_none(correlation.tolist()),
        beats_best_single=compared[2].held_back > compared[0].held_back,
        notes=_notes(library, compared, settings.metric, unit),
    )


def _half_of(library: MemberLibrary, is_in: NDArray[np.bool_], metric: str, what: str) -> _Half:
    taxonomy = library.taxonomy
    columns = [c for c in range(len(taxonomy)) if metric != "map" or c not in taxonomy.none_indices]
    try:
        judge = METRICS[metric](library.labels[is_in] >= _PRESENT, columns)
    except DataError as error:
        raise DataError(f"the {int(is_in.sum())} images that are {what}: {error}") from error
    probs = np.stack([sigmoid(one[is_in]) for one in library.logits])
    probs[:, ~library.is_asked[is_in]] = -1.0  # behind all others, where the metrics pass them over
    return _Half(probs=probs, judge=judge)


def _compared(
    library: MemberLibrary, selection: Selection, halves: Sequence[_Half], weights: str
) -> list[ComparedSystem]:
    num_members = len(library.members)
    best = first_best(selection.singles)
    single = (np.arange(num_members) == best).astype(np.int64)
    systems = {
        f"best single member ({library.members[best].name})": single,
        f"equal mean of all {num_members}": np.ones(num_members, np.int64),
        f"selected, {weights} weights": selection.counts,
    }
    return [
        ComparedSystem(
            system=name, selecting=halves[0].value(counts), held_back=halves[1].value(counts)
        )
        for name, counts in systems.items()
    ]


def _steps(library: MemberLibrary, selection: Selection, held: _Half) -> list[ReportedStep]:
    values = values_of_steps(held.probs, held.judge, selection.steps)
    steps: list[ReportedStep] = []
    for step, value in zip(selection.steps, values, strict=True):
        before = steps[-1] if steps and steps[-1].bag == step.bag else None
        member = library.members[step.member]
        steps.append(
            ReportedStep(
                bag=step.bag,
                step=before.step + 1 if before else 1,
                member=member.name,
                member_id=member.spec.member_id,
                selecting=step.value,
                held_back=value,
                gain=step.value - before.selecting if before else None,
                is_kept=step.is_kept,
            )
        )
    return steps


def _chosen(library: MemberLibrary, selection: Selection, held: _Half) -> list[ChosenMember]:
    return [
        ChosenMember(
            member=library.members[place].name,
            member_id=library.members[place].spec.member_id,
            path=str(library.members[place].path),
            weight=float(selection.counts[place]),
            selecting=float(selection.singles[place]),
            held_back=held.judge(held.probs[place]),
        )
        for place in np.flatnonzero(selection.counts).tolist()
    ]


def _notes(
    library: MemberLibrary, compared: Sequence[ComparedSystem], metric: str, unit: str
) -> list[str]:
    """What a reader should know before trusting the ensemble."""
    single, mean, selected = compared
    notes = [
        f"on the images held back the selection does not beat the {other.system}: "
        f"{metric} {selected.held_back:.4f} against {other.held_back:.4f}"
        for other in (single, mean)
        if selected.held_back <= other.held_back
    ]
    if unit == "image" and any(group is not None for group in library.groups):
        notes.append(
            "the images were divided one by one: their groups are too large to be divided, so "
            "that images of one group are in both halves and the half held back flatters"
        )
    if library.other_encodings:
        encoding = encoding_of_labels(library.members[0])
        notes.append(
            f"{len(library.other_encodings)} of {len(library.members)} members learnt labels of another "
            f"encoding, such as {library.other_encodings[0]}; all are judged by those of "
            f"{library.members[0].name} ({encoding}), which was named first"
        )
    return notes
