"""Bring the frame rows of several members into one array."""

from functools import reduce

import numpy as np
from numpy.typing import NDArray


def align_members(
    member_index: NDArray[np.integer],
    frame_index: NDArray[np.integer],
    logits: NDArray[np.float32],
    *,
    num_members: int,
) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
    """Order a clip's rows by member and frame; a row that appears twice counts once.

    Args:
        member_index: Which member a row is of, ``[R]``, from 0.
        frame_index: Which frame a row is of, ``[R]``.
        logits: The rows, ``[R, C]``.
        num_members: M.

    Returns:
        The frames that every member has scored, ascending, ``[T]``; and their logits,
        ``[M, T, C]``.
    """
    frames, firsts = [], []
    for member in range(num_members):
        rows = np.flatnonzero(member_index == member)
        unique, first = np.unique(frame_index[rows], return_index=True)
        frames.append(unique)
        firsts.append(rows[first])
    common = reduce(np.intersect1d, frames)
    picked = [
        rows[np.searchsorted(unique, common)] for unique, rows in zip(frames, firsts, strict=True)
    ]
    return common, logits[np.stack(picked)]
