"""The newest row per key of rows that come in portions."""

import numpy as np
from numpy.typing import NDArray

NEVER = np.iinfo(np.int64).min


class NewestRows:
    """The newest row of each of K keys, of rows that come in any order and in portions.

    Attributes:
        rows: Number of the newest row of each key, -1 where there is none, ``[K]``.
    """

    def __init__(self, num_keys: int) -> None:
        self.rows = np.full(num_keys, -1, np.int64)
        self._times = np.full(num_keys, NEVER, np.int64)

    def add(
        self, keys: NDArray[np.int64], times: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Take a portion, ``[R]`` each; a key of -1 is none of ours.

        Returns:
            Places in the portion of the rows that are the newest of their keys so far.
        """
        order = np.lexsort((times, keys))
        is_last = np.append(np.diff(keys[order]) != 0, True) if len(keys) else np.empty(0, bool)
        picked = order[is_last & (keys[order] >= 0)]
        picked = picked[times[picked] >= self._times[keys[picked]]]
        self._times[keys[picked]] = times[picked]
        self.rows[keys[picked]] = rows[picked]
        return picked
