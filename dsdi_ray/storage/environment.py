"""Settings that are a node's own, such as where it has room, from its environment."""

import os

from dsdi_ray.errors import ConfigError


def number_from_environment(name: str, default: float) -> float:
    """A number above 0 from a variable, or the default where it is not set.

    Raises:
        ConfigError: If the variable holds something else.
    """
    text = os.environ.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"{name} must be a number above 0, got {text!r}")
    return number
