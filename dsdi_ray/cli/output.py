"""What commands print: a table for people or JSON for programs, on standard output."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer
import yaml

from dsdi_ray.errors import DsdiError, UserError

EXIT_ERROR = 1
EXIT_USER_MISTAKE = 2
EXIT_INTERRUPTED = 130
_MAX_REASONS = 10


def leave_with(error: DsdiError, *, name: str) -> NoReturn:
    """End the program with an error that was raised on purpose, in one line."""
    typer.echo(f"{name}: error: {one_line(error)}", err=True)
    sys.exit(EXIT_USER_MISTAKE if isinstance(error, UserError) else EXIT_ERROR)


def file_problem(error: OSError) -> DsdiError:
    """A file or folder that cannot be read or written, in words."""
    return DsdiError(f"{error.filename}: {error.strerror or type(error).__name__}")


def leave_interrupted(*, name: str) -> NoReturn:
    """End the program that a user interrupted."""
    typer.echo(f"{name}: interrupted; the same command goes on where it stopped", err=True)
    sys.exit(EXIT_INTERRUPTED)


def one_line(error: Exception) -> str:
    """What an error says, on one line."""
    # A Ray task's error is of the class of its cause but speaks with its whole traceback.
    return " ".join(str(getattr(error, "cause", error)).split())


@contextlib.contextmanager
def json_alone(as_json: bool) -> Iterator[None]:
    """Where JSON is wanted, standard output is its alone.

    What is printed meanwhile goes to standard error: by jobs as they go, and by Ray, which tells
    there of workers that died.
    """
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        yield


def print_json(value: Any) -> None:
    """Print a summary, a list or a mapping as JSON."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    typer.echo(json.dumps(plain, indent=2, default=_as_json))


def print_yaml(value: Mapping[str, Any]) -> None:
    """Print a mapping as YAML, its keys in their order."""
    typer.echo(yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True), nl=False)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print a summary as a title and aligned facts; facts that are None are left out."""
    shown = {name: value for name, value in facts.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    typer.secho(title, bold=True)
    for name, value in shown.items():
        typer.echo(f"  {name:<{width}}  {_as_text(value)}")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under headers; numbers are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, header in enumerate(headers):
        is_number = bool(rows) and isinstance(rows[0][i], int | float)
        table.add_column(header, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_as_text(cell) for cell in row))
    # Names are of files: brackets and colons in them are no markup and no emoji.
    Console(markup=False, emoji=False, highlight=False).print(table)


def print_reasons(what: str, reasons: Mapping[str, int], *, see: str) -> None:
    """Print how many there are for each reason, the most frequent ones first.

    Args:
        what: What became of them, such as "failed".
        reasons: Their number by reason.
        see: Where to look for those that do not fit on a screen.
    """
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    for reason, count in ordered[:_MAX_REASONS]:
        typer.echo(f"    {what} {count:>7,}  {reason}".rstrip())
    if left := ordered[_MAX_REASONS:]:
        count = sum(count for _, count in left)
        typer.echo(f"    {what} {count:>7,}  for {len(left):,} more reasons: see {see}")


def duration(seconds: float | None) -> str | None:
    """Hours and minutes of an estimate, which is no better than that."""
    if seconds is None:
        return None
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _as_text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _as_json(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")
