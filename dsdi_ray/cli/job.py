"""What the jobs in ``jobs/`` have in common as commands of their own."""

import sys
from pathlib import Path

import typer

from dsdi_ray.distributed.network_libraries import skip_last_collection
from dsdi_ray.errors import DsdiError


def job_app() -> typer.Typer:
    """The application of a job that is one command."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_job(app: typer.Typer) -> None:
    """Run a job; an error that was raised on purpose is one line, and the exit status is 1."""
    skip_last_collection()
    try:
        app()
    except DsdiError as error:
        # A Ray task's error is of the class of its cause but speaks with its whole traceback.
        sys.exit(f"{Path(sys.argv[0]).stem}: error: {getattr(error, 'cause', error)}")


def say_stage(text: str) -> None:
    """Say on standard error which stage begins."""
    typer.secho(f"\n== {text}", bold=True, err=True)
