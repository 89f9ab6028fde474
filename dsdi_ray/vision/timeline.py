"""When each picture of a video is on screen."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Display times of a stream's pictures, or of those that a part of the file may show.

    Attributes:
        display_times: Ascending, in units of ``time_base``, ``[N]``.
        is_unneeded: Which pictures no other picture needs, ``[N]``; None where that is not known.
        key_times: Display times of key frames, ascending; empty where seeking is no use.
        time_base: Seconds per unit.
        first_time: When the file's first picture is shown, same units.
        end_time: When the last picture goes off screen, same units.
        has_timestamps: False where packets carry none and a constant rate is assumed.
        picture_times: Then, display times of the pictures that the file holds; None: all of them.
        offsets: What to add to time stamps for display times: one number, or one per stretch
            where the container's clock starts anew (recordings put one behind the other).
        restarts: Packets, counted as they are stored, with which the later stretches begin.
        is_cut: Whether the container could not be read to its end.
        lost_end_time: Where the last picture would go off screen had the file not been cut off, same
            units; None where nothing says that it was.
        holes: Display times before and behind damage to the container, which FFmpeg passes over,
            ``[H, 2]``, not those of gone pictures.
        complaint: What FFmpeg said of the first.
        unfit_for_decord: Why decord would be slow or return other pictures than those asked for,
            None if nothing is known against it.
        note: What was odd about the container, None if nothing.
    """

    display_times: NDArray[np.int64]
    is_unneeded: NDArray[np.bool_] | None = None
    key_times: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    time_base: Fraction
    first_time: int
    end_time: int
    has_timestamps: bool = True
    picture_times: NDArray[np.int64] | None = None
    offsets: tuple[int, ...] = (0,)
    restarts: tuple[int, ...] = ()
    is_cut: bool = False
    lost_end_time: int | None = None
    holes: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    complaint: str | None = None
    unfit_for_decord: str | None = None
    note: str | None = None

    def has_hole(self, start_seconds: float | None, end_seconds: float | None) -> bool:
        """Whether the container is damaged between two times, from the file's first picture on."""
        start = self.first_time + (start_seconds or 0.0) / self.time_base
        end = math.inf if end_seconds is None else self.first_time + end_seconds / self.time_base
        return bool(((self.holes[:, 0] < end) & (self.holes[:, 1] > start)).any())

    def keys_before(self, display_time: int) -> list[int]:
        """The last two key frames at or before a time, the nearest first; never the file's first.

        A seek to the first would gain nothing over reading from the file's start.
        """
        keys = self.key_times[: np.searchsorted(self.key_times, display_time, side="right")]
        return [key for key in keys[-2:][::-1].tolist() if key > self.first_time]
