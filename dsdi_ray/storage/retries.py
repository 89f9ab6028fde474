"""Writes that fail for a while are tried again."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dsdi_ray.errors import StoreError

_LASTING = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a write that fails is tried again, after pauses that double.

    Attributes:
        max_attempts: Attempts in all.
        first_pause_seconds: Pause after the first one; half of each pause is chance.
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
                if attempt == self.max_attempts or isinstance(error, _LASTING):
                    raise StoreError(
                        f"{what} cannot be written: {error} (attempts: {attempt}); what was "
                        "written before stays, and the same command goes on from there"
                    ) from error
            pause = min(self.max_pause_seconds, self.first_pause_seconds * 2 ** (attempt - 1))
            time.sleep(pause * random.uniform(0.5, 1.0))
        raise AssertionError("max_attempts must be at least 1")
