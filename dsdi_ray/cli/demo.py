"""``dsdi demo``: the whole system on a synthetic archive."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import typer

from dsdi_ray.cli.options import Address, Json
from dsdi_ray.cli.output import json_alone, print_json
from dsdi_ray.errors import DataError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("demo")(demo)


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of all that the demo makes.")
    ] = Path("demo-output"),
    clips: Annotated[
        Path | None, typer.Option("--clips", help="Also score this folder of your own footage.")
    ] = None,
    size: Annotated[
        Literal["normal", "tiny"], typer.Option("--size", help="The tiny one takes about a minute.")
    ] = "normal",
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another archive.")] = 0,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """See the whole system work on a synthetic archive: train, score, rank, evaluate.

    Crowd-labelled images are rendered and prepared, two members are trained, real video files are
    indexed and scored by the ensemble, clips are ranked and evaluated against what is truly
    visible, and the best clips are shown with the frame where their score peaked.

    Example: dsdi demo --clips my-footage/
    """
    with json_alone(as_json):
        summary = load_job("demo").run(out=out, size=size, clips=clips, seed=seed, address=address)
    if as_json:
        print_json(summary)


def jobs_folder() -> Path:
    """Folder of the whole workflows and recipes: in the installed package, or beside it in a clone.

    Raises:
        DataError: If there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "jobs", package.parent / "jobs"):
        if (folder / "demo.py").is_file():
            return folder
    raise DataError(
        f"jobs/demo.py is neither in {package} nor beside it; install the package again"
    )


def load_job(name: str) -> ModuleType:
    """Import a workflow of :func:`jobs_folder` by its file name."""
    path = jobs_folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"dsdi_job_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
