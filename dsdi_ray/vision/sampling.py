"""Which pictures of a timeline are sampled."""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.vision.decode import ClipSource
from dsdi_ray.vision.timeline import Timeline

_ROUNDING_SECONDS = 1e-6  # of floating point; one tick of the usual 90 kHz clock is 1.1e-5 s
_MAX_FRAME_INDEX = np.iinfo(np.int32).max
# decord decodes every picture. *Measured*: a clip costs it some 9 % more than PyAV in full.
_MIN_UNNEEDED_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """Which pictures are sampled.

    Attributes:
        frame_indices: k of each sample, ascending, ``[S]``.
        ordinals: Place of each sample's picture in the timeline, ``[S]``.
        display_times: Its display time in units of the stream's time base, ``[S]``.
        unneeded_times: Display times of the pictures that are not sampled and that no other
            picture needs, ascending, ``[U]``.
        unneeded_share: Their share of the pictures from the first sample to the last.
        num_beyond: Pictures with times so far away (years) that they are not sampled.
        num_lost: Samples that the file would have beyond its end had it not been cut off.
        num_in_holes: Samples that it would have where its container is damaged.
    """

    frame_indices: NDArray[np.int32]
    ordinals: NDArray[np.int64]
    display_times: NDArray[np.int64]
    unneeded_times: NDArray[np.int64]
    unneeded_share: float
    num_beyond: int = 0
    num_lost: int = 0
    num_in_holes: int = 0

    def __len__(self) -> int:
        return len(self.frame_indices)

    @property
    def is_worth_skipping(self) -> bool:
        """Whether a tenth or more is unneeded: PyAV serves such a clip, never decord."""
        return self.unneeded_share >= _MIN_UNNEEDED_SHARE


def plan_samples(timeline: Timeline, source: ClipSource, *, fps: float) -> SamplingPlan:
    """Pick the picture on screen at each grid point ``start + k / fps``, each picture once.

    Worked out per picture, not per grid point: a damaged time stamp years away costs nothing.

    Args:
        timeline: Display times.
        source: The part of the file that is the clip; seconds count from the first picture.
        fps: Grid points per second.

    Returns:
        The plan; empty if the part lies outside the file.
    """
    times = timeline.display_times
    tick_seconds = float(timeline.time_base)
    shown_at = (times - timeline.first_time) * tick_seconds
    end = (timeline.end_time - timeline.first_time) * tick_seconds
    if source.end_seconds is not None:
        end = min(end, source.end_seconds)
    start = source.start_seconds or 0.0
    edges = np.append(shown_at, end)
    # The first grid point that is not before each edge; a picture lasts up to the next edge.
    grid = np.ceil((np.minimum(edges, end) - start - _ROUNDING_SECONDS) * fps)
    num_beyond = int((grid[:-1] >= _MAX_FRAME_INDEX).sum())
    grid = np.clip(grid, 0, _MAX_FRAME_INDEX).astype(np.int64)
    is_sampled = grid[:-1] < grid[1:]
    ordinals = np.flatnonzero(is_sampled)
    is_unneeded = np.zeros(len(times), dtype=bool)
    if timeline.is_unneeded is not None:
        is_unneeded = timeline.is_unneeded & ~is_sampled
    between = is_unneeded[ordinals[0] : ordinals[-1] + 1] if len(ordinals) else is_unneeded
    return SamplingPlan(
        frame_indices=grid[ordinals].astype(np.int32),
        ordinals=ordinals,
        display_times=times[ordinals],
        unneeded_times=times[is_unneeded],
        unneeded_share=float(between.mean()) if len(between) else 0.0,
        num_beyond=num_beyond,
        num_lost=_num_lost(timeline, shown_at, source, first_lost=int(grid[-1]), fps=fps),
        num_in_holes=_num_in_holes(timeline, shown_at, start, end, fps=fps),
    )


def _num_lost(
    timeline: Timeline,
    shown_at: NDArray[np.floating[Any]],
    source: ClipSource,
    *,
    first_lost: int,
    fps: float,
) -> int:
    """Samples from a grid point on to where the file would end had it not been cut off."""
    if timeline.lost_end_time is None:
        return 0
    end = (timeline.lost_end_time - timeline.first_time) * float(timeline.time_base)
    if source.end_seconds is not None:
        end = min(end, source.end_seconds)
    num_points = ceil((end - (source.start_seconds or 0.0) - _ROUNDING_SECONDS) * fps)
    return max(0, round((num_points - first_lost) / max(1.0, _seconds_shown(shown_at) * fps)))


def _num_in_holes(
    timeline: Timeline, shown_at: NDArray[np.floating[Any]], start: float, end: float, *, fps: float
) -> int:
    """Samples between pictures that lay apart only once the ones between them were passed over."""
    seconds = (timeline.holes - timeline.first_time) * float(timeline.time_base)
    holes = seconds[seconds[:, 1] <= shown_at[-1]].clip(start, max(start, end))
    num_points = np.diff(holes, axis=1) / max(1 / fps, _seconds_shown(shown_at))
    return int((np.round(num_points) - 1).clip(min=0).sum())


def _seconds_shown(shown_at: NDArray[np.floating[Any]]) -> float:
    """How long a picture is on screen."""
    return float(np.median(np.diff(shown_at))) if len(shown_at) > 1 else 0.0
