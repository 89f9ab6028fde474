"""Submissions: the runs of the paper's Table 3 as data, each an ensemble or a fusion of runs."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dsdi_ray.errors import ConfigError
from dsdi_ray.settings_file import Section, read_mapping, validated

Weight = Annotated[float, Field(gt=0)]


class PaperFigure(Section):
    """What the paper says of the submission (Table 3).

    Attributes:
        submission: Its name there.
        map: Its mAP.
        description: What it is made of, in the paper's words.
    """

    submission: str
    map: Annotated[float, Field(ge=0, le=1)]
    description: str


class FusedPart(Section):
    """A run in a fusion: one of this folder, or that of another system.

    Attributes:
        run: Name of another submission.
        outside: What to call a system whose run is given as a file.
        weight: Only the ratios matter.
    """

    run: str | None = None
    outside: str | None = None
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _is_one_run(self) -> Self:
        if (self.run is None) == (self.outside is None):
            raise ValueError("must name either `run` or `outside`")
        return self


class Fusion(Section):
    """Runs that are fused at clip level, see :func:`dsdi_ray.method.fusion.fuse_runs`."""

    parts: Annotated[tuple[FusedPart, ...], Field(min_length=2)]
    normalisation: Literal["none", "minmax", "rank"] = "none"


class Submission(Section):
    """How a run is made.

    Attributes:
        ensemble: Names of the recipes whose members are averaged with equal weight.
        fusion: Instead: the runs that are fused.
    """

    name: str
    paper: PaperFigure | None = None
    ensemble: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    fusion: Fusion | None = None

    @model_validator(mode="after")
    def _is_made_one_way(self) -> Self:
        if (self.ensemble is None) == (self.fusion is None):
            raise ValueError("must have either `ensemble` or `fusion`")
        members = self.ensemble or ()
        twice = next((name for name in members if members.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"ensemble names {twice} twice")
        return self

    @property
    def fused_parts(self) -> tuple[FusedPart, ...]:
        """The parts of its fusion, none for an ensemble."""
        return self.fusion.parts if self.fusion else ()

    @property
    def made_of(self) -> str:
        """What it is made of, in a line."""
        if self.ensemble is not None:
            return ", ".join(name.upper() for name in self.ensemble)
        return " + ".join(
            f"{p.run.upper() if p.run else p.outside} x {p.weight:g}" for p in self.fused_parts
        )


def load_submission(path: Path) -> Submission:
    """Load a submission.

    Raises:
        ConfigError: Naming the file, the key, the rule and the value.
    """
    data = read_mapping(path, what="submission")
    return validated(Submission, data, source=f"submission {path}")


def load_submissions(folder: Path) -> list[Submission]:
    """Load all submissions of a folder, each after those that it is fused of.

    Raises:
        ConfigError: If there is none, one is wrong, two have one name, or a fusion names a run
            that is not there or is fused of itself.
    """
    by_name: dict[str, Submission] = {}
    for path in sorted(folder.glob("*.yaml")):
        submission = load_submission(path)
        if submission.name in by_name:
            raise ConfigError(f"submission {path}: another file is named {submission.name} too")
        by_name[submission.name] = submission
    if not by_name:
        raise ConfigError(f"{folder}: no submission in it (*.yaml)")
    ordered: dict[str, Submission] = {}
    for name in by_name:
        _add(name, by_name, ordered, above=())
    return list(ordered.values())


def _add(
    name: str,
    by_name: Mapping[str, Submission],
    ordered: dict[str, Submission],
    *,
    above: Sequence[str],
) -> None:
    """Add a submission to those in order, after its parts."""
    if name in above:
        raise ConfigError(f"submission {name}: is fused of itself: {' <- '.join((*above, name))}")
    for part in by_name[name].fused_parts:
        if part.run is None:
            continue
        if part.run not in by_name:
            close = difflib.get_close_matches(part.run, list(by_name), n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; has {', '.join(by_name)}"
            raise ConfigError(f"submission {name}: no run is named {part.run}{hint}")
        _add(part.run, by_name, ordered, above=(*above, name))
    ordered.setdefault(name, by_name[name])
