"""How often and how patiently a request to another machine is repeated."""

import random

from dsdi_ray.storage.environment import number_from_environment

_MAX_ATTEMPTS = 6  # about 20 s of waiting until a server counts as down
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 20.0


def max_attempts() -> int:
    """Tries per request, ``DSDI_MAX_ATTEMPTS`` or 6."""
    return max(1, int(number_from_environment("DSDI_MAX_ATTEMPTS", _MAX_ATTEMPTS)))


def backoff_seconds(num_failures: int) -> float:
    """Wait after so many failures in a row, from 1: twice as long each time, shaken."""
    longest: float = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** (num_failures - 1))
    return longest * random.uniform(0.5, 1.0)
