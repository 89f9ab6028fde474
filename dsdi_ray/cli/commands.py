"""What all commands have in common before they run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from dsdi_ray.errors import UserError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # a path has kept one slash of the two


class LocalPathsCommand(TyperCommand):
    """A command that refuses a URI where it takes a local path, and makes no folder named s3:."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, then check what became a path.

        Raises:
            UserError: If a local path is a URI.
        """
        left = super().parse_args(ctx, args)
        for parameter in self.params:
            given = ctx.params.get(parameter.name or "")
            for value in given if isinstance(given, list | tuple) else [given]:
                if isinstance(value, Path) and (scheme := _SCHEME.match(str(value))):
                    name = parameter.opts[0]
                    raise UserError(f"{name} must be a path on this machine, not {scheme[1]}://...")
        return left


class CommandLine(typer.Typer):
    """A Typer application of such commands."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Register a command, as Typer does."""
        return super().command(*args, **{"cls": LocalPathsCommand, **kwargs})
