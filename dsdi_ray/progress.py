"""One progress line with counts, rate and ETA on standard error."""

import io
import sys
from typing import Any

from tqdm import tqdm

_SECONDS_BETWEEN_LINES_IN_A_LOG = 10.0


def progress_bar(
    *, total: int | None, description: str, unit: str, initial: int = 0
) -> "tqdm[Any]":
    """A progress line that redraws itself in a terminal and appends a line now and then in a log.

    Args:
        total: Units of work in all, or None where unknown (then no ETA).
        description: What is being done, two or three words.
        unit: One unit of work, singular.
        initial: Units already done before the start; they do not count towards the rate.

    Returns:
        The bar; use it as a context manager, call ``update(n)`` and ``set_postfix_str(text)``.
    """
    is_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        initial=initial,
        file=sys.stderr if is_terminal else _Log(),
        mininterval=0.2 if is_terminal else _SECONDS_BETWEEN_LINES_IN_A_LOG,
        ascii=None if is_terminal else " .:#",
        dynamic_ncols=is_terminal,
    )


class _Log(io.TextIOBase):
    """Standard error for what would be drawn over itself: a line each time."""

    def write(self, text: str) -> int:
        line = text.strip()
        if line:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        return len(text)


def print_line(text: str) -> None:
    """Print a line on standard error, above the progress lines that may be drawn there."""
    tqdm.write(text, file=sys.stderr)
