"""What the jobs in ``jobs/`` have in common as commands of their own."""

import sys
from pathlib import Path

import typer

from dsdi_ray.cli.commands import CommandLine
from dsdi_ray.cli.output import file_problem, leave_interrupted, leave_with
from dsdi_ray.distributed.network_libraries import skip_last_collection
from dsdi_ray.errors import DsdiError


def job_app() -> typer.Typer:
    """The application of a job that is one command."""
    return CommandLine(
        rich_markup_mode="markdown",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_job(app: typer.Typer) -> None:
    """Run a job; it ends as ``dsdi`` does, but shows the traceback of an error of the program."""
    skip_last_collection()
    name = Path(sys.argv[0]).stem
    try:
        app()
    except KeyboardInterrupt:
        leave_interrupted(name=name)
    except DsdiError as error:
        leave_with(error, name=name)
    except OSError as error:
        if error.filename is None:
            raise
        leave_with(file_problem(error), name=name)


def say_stage(text: str) -> None:
    """Say on standard error which stage begins."""
    typer.secho(f"\n== {text}", bold=True, err=True)
