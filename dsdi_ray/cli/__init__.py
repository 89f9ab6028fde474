"""The ``dsdi`` command: parse, call, print.

Commands import what they need when they run, so that ``dsdi --help`` answers at once.
"""

import sys
from typing import Annotated

import typer

from dsdi_ray import __version__
from dsdi_ray.cli import (
    archive,
    demo,
    fuse,
    prepare,
    pseudo_label,
    reproduce,
    results,
    store,
    sweep,
    train,
    training,
)
from dsdi_ray.cli.commands import CommandLine
from dsdi_ray.cli.output import (
    EXIT_ERROR,
    file_problem,
    leave_interrupted,
    leave_with,
    one_line,
)
from dsdi_ray.distributed.network_libraries import skip_last_collection
from dsdi_ray.errors import DsdiError

app = CommandLine(
    name="dsdi",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Find disaster scenes in archives of aerial video.\n\n"
        "The way of an archive: prepare (answers and images to labels), train (labels to members), "
        "sweep (many trainings, compared), ensemble build or select, index (footage to a manifest), "
        "score (clips to a score store), rank (store to ranked clips), fuse (runs of several "
        "systems), evaluate. `dsdi demo` shows most of it on a synthetic archive.\n\n"
        "Exit status: 0 done, 1 an error, 2 a mistake in what was given, 3 clips failed (with "
        "--strict) or a store has problems (store verify)."
    ),
)
prepare.register(app)
pseudo_label.register(app)
train.register(app)
sweep.register(app)
training.register(app)
archive.register(app)
results.register(app)
fuse.register(app)
store.register(app)
demo.register(app)
reproduce.register(app)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"dsdi {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error; goes before the command."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """Options that go before the command."""


def main() -> None:
    """Run the command line; an error is one line on standard error, its traceback with --debug."""
    skip_last_collection()
    try:
        app()
    except KeyboardInterrupt:
        leave_interrupted(name="dsdi")
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        if isinstance(error, DsdiError):
            leave_with(error, name="dsdi")
        if isinstance(error, OSError) and error.filename is not None:
            leave_with(file_problem(error), name="dsdi")
        problem = f"{type(error).__name__}: {one_line(error)[:500]}"
        typer.echo(f"dsdi: internal error: {problem} (see dsdi --debug)", err=True)
        sys.exit(EXIT_ERROR)
