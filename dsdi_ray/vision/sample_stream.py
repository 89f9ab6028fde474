"""A reader's samples, taken chunk by chunk, with an eye on what looks wrong."""

from collections.abc import Generator, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.vision.pictures import Sample, Squares

Pictures = dict[int, Squares]  # by position in the plan
_BLACK_LEVEL = 24  # full black is 0, or 16 where limited range was taken for full
_END: Sample = (2**62, {})


class SampleStream:
    """Takes samples up to a position; one of a chunk to come is kept for that.

    Args:
        samples: See :mod:`dsdi_ray.vision.pyav_reader`.
    """

    def __init__(self, samples: Iterator[Sample | None]) -> None:
        self._samples = samples
        self._ahead: Sample | None = None
        self._before: NDArray[np.uint8] | None = None

    def take(self, stop: int) -> Generator[None, None, Pictures]:
        """Take the samples at positions before ``stop``; those that did not decode are absent."""
        pictures: Pictures = {}
        while True:
            if self._ahead is None:
                sample = next(self._samples, _END)
                if sample is None:
                    yield None
                    continue
                self._ahead = sample
            position, squares = self._ahead
            if position >= stop:
                return pictures
            self._ahead = None
            pictures[position] = squares

    def looks_wrong(self, pictures: Pictures) -> bool:
        """Whether a picture is black or the one before it again; to be asked of every chunk."""
        shown = [next(iter(pictures[position].values())) for position in sorted(pictures)]
        before = [] if self._before is None else [self._before]
        self._before = shown[-1] if shown else self._before
        return any(int(picture.max()) <= _BLACK_LEVEL for picture in shown) or any(
            np.array_equal(one, following) for one, following in pairwise([*before, *shown])
        )


def are_same(pictures: Pictures, others: Pictures) -> bool:
    """Whether two takes hold the same pictures, byte for byte."""
    return others.keys() == pictures.keys() and all(
        np.array_equal(others[p][size], pictures[p][size]) for p in others for size in others[p]
    )
