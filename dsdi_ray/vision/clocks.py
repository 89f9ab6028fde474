"""Clocks that start anew within a file: recordings put one behind the other."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def clock_restarts(times: NDArray[np.int64], time_base: Fraction) -> NDArray[np.int64]:
    """Places before which a clock goes back by over a second and stays there; one outlier is none.

    Args:
        times: Decoding time stamps in stored order, ``[N]``.
        time_base: Seconds per unit.
    """
    back = np.flatnonzero(np.diff(times) < -1 / time_base)
    stays = [i + 2 >= len(times) or times[i + 2] < times[i] for i in back]
    was_ahead = [i > 0 and times[i + 1] > times[i - 1] for i in back]  # the one before, alone
    is_restart = np.array(stays, dtype=bool) & ~np.array(was_ahead, dtype=bool)
    restarts: NDArray[np.int64] = back[is_restart] + 1
    return restarts


def join_clocks(
    times: NDArray[np.int64], decoded_at: NDArray[np.int64], *, time_base: Fraction, step: int
) -> tuple[NDArray[np.int64], tuple[int, ...], tuple[int, ...]]:
    """Put stretches whose clocks start anew one behind the other.

    Returns:
        Times that run on, what was added per stretch, and where those behind the first begin.
    """
    restarts = clock_restarts(decoded_at, time_base).tolist()
    shifted, offsets = times.copy(), [0]
    for first, stop in pairwise([*restarts, len(times)]):
        offsets.append(int(shifted[:first].max()) + step - int(times[first:stop].min()))
        shifted[first:stop] += offsets[-1]
    return shifted, tuple(offsets), tuple(restarts)
