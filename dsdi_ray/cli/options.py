"""Options that several commands share."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from dsdi_ray.errors import ConfigError

MAX_FPS = 1000.0  # as DecodeSettings has it
MAX_TIMEOUT_SECONDS = 86_400.0


def bounded(name: str, *, low: float, high: float, low_counts: bool = True) -> Callable[[Any], Any]:
    """A check of an option's number, or numbers; infinities and NaN are never in the range.

    Raises:
        ConfigError: From the check, if one is out of range.
    """

    def check(value: Any) -> Any:
        for number in value if isinstance(value, list | tuple) else [value]:
            if number is not None and not (low <= number <= high and (low_counts or number > low)):
                span = f"{'[' if low_counts else '('}{low:g}, {high:g}]"
                raise ConfigError(f"{name} must be in {span}, got {number:g}")
        return value

    return check


def _check_tag(tag: str) -> str:
    from dsdi_ray.storage.trec import check_tag

    check_tag(tag)
    return tag


Json = Annotated[
    bool, typer.Option("--json", help="Print a machine-readable summary on standard output.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RAY_ADDRESS",
        show_envvar=True,
        help="A running Ray cluster; without it a local Ray starts on loopback and ends with the "
        "command.",
    ),
]
Fps = Annotated[
    float,
    typer.Option(
        "--fps",
        callback=bounded("--fps", low=0, high=MAX_FPS, low_counts=False),
        help="Frames per second that are scored.",
    ),
]
TaxonomyName = Annotated[
    str, typer.Option("--taxonomy", "-t", help="ladi_v1, ladi_v2a, or a YAML file of your own.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value: --set loss.gamma=1.5 (may be repeated)."),
]
Pool = Annotated[
    Literal["max", "mean", "topk_mean", "logsumexp"],
    typer.Option("--pool", help="What frames give a clip: their maximum is the paper's."),
]
Tag = Annotated[
    str, typer.Option("--tag", callback=_check_tag, help="The run's name in run.trec, one word.")
]
Description = Annotated[
    str, typer.Option("--description", help="Of the run, in run.xml; default: the tag.")
]
Team = Annotated[str, typer.Option("--team", help="Team in run.xml.")]
TrainingType = Annotated[
    Literal["L", "O", "N"],
    typer.Option(
        "--training-type",
        help="What the members learned from, in run.xml: LADI only (L), LADI and other data (O), "
        "other data only (N).",
    ),
]
Priority = Annotated[
    int,
    typer.Option("--priority", min=1, max=4, help="The run's place among the team's, in run.xml."),
]
Gpu = Annotated[
    bool | None,
    typer.Option("--gpu/--cpu", help="Where to train; default: GPU if there is one."),
]
Mlflow = Annotated[
    str | None,
    typer.Option(
        "--mlflow", help="Folder or tracking URI where MLflow, if installed, records each run."
    ),
]


def path_and_weight(text: str) -> tuple[str, float]:
    """``PATH:WEIGHT`` as its two parts; the weight is 1 where none is given."""
    path, colon, weight = text.rpartition(":")
    try:
        return (path, float(weight)) if colon and path else (text, 1.0)
    except ValueError:
        return text, 1.0
