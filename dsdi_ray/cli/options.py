"""Options that several commands share."""

from typing import Annotated

import typer

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
Fps = Annotated[float, typer.Option("--fps", help="Frames per second that are scored.")]
TaxonomyName = Annotated[
    str, typer.Option("--taxonomy", "-t", help="ladi_v1, ladi_v2a, or a YAML file of your own.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value: --set loss.gamma=1.5 (may be repeated)."),
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
