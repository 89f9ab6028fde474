"""How often and how patiently what fails for a while is tried again."""

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dsdi_ray.errors import StoreError
from dsdi_ray.progress import print_line
from dsdi_ray.storage.environment import number_from_environment

_MAX_ATTEMPTS = 6  # about 20 s of waiting until a server counts as down
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 20.0
_LASTING = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_LASTING_ERRNO = errno.EROFS  # of a file system that is read-only

T = TypeVar("T")


def max_attempts() -> int:
    """Tries per request to another machine, ``DSDI_MAX_ATTEMPTS`` or 6."""
    return max(1, int(number_from_environment("DSDI_MAX_ATTEMPTS", _MAX_ATTEMPTS)))


def backoff_seconds(
    num_failures: int,
    *,
    first: float = _FIRST_PAUSE_SECONDS,
    longest: float = _LONGEST_PAUSE_SECONDS,
) -> float:
    """Pause after so many failures in a row, from 1: twice as long each time, half of it chance."""
    return float(min(longest, first * 2.0 ** (num_failures - 1)) * random.uniform(0.5, 1.0))


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a write that fails is tried again.

    Attributes:
        max_attempts: Attempts in all.
        first_pause_seconds: Pause after the first one, see :func:`backoff_seconds`.
        max_pause_seconds: No pause is longer.
    """

    max_attempts: int = 8
    first_pause_seconds: float = 1.0
    max_pause_seconds: float = 30.0

    def call(self, write: Callable[[], T], *, what: str) -> T:
        """Call until it succeeds.

        Raises:
            StoreError: If it failed too often, or for a reason that waiting does not mend.
        """
        for attempt in range(1, self.max_attempts + 1):
            try:
                return write()
            except OSError as error:
                is_lasting = isinstance(error, _LASTING) or error.errno == _LASTING_ERRNO
                if attempt == self.max_attempts or is_lasting:
                    raise StoreError(
                        f"{what} cannot be written: {error} (attempts: {attempt}); what was "
                        "written before stays, and the same command goes on from there"
                    ) from error
                if attempt == 1:
                    print_line(f"{what} cannot be written: {error}; trying again for a while")
            time.sleep(
                backoff_seconds(
                    attempt, first=self.first_pause_seconds, longest=self.max_pause_seconds
                )
            )
        raise AssertionError("max_attempts must be at least 1")
