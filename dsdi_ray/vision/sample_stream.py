"""A reader's samples, taken chunk by chunk, with an eye on what looks wrong."""

from collections.abc import Generator, Iterator

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

    Attributes:
        is_suspicious: A picture of the last chunk taken is black or repeated.
    """

    def __init__(self, samples: Iterator[Sample | None]) -> None:
        self._samples = samples
        self._ahead: Sample | None = None
        self._before: NDArray[np.uint8] | None = None
        self.is_suspicious = False

    def take(self, stop: int) -> Generator[None, None, Pictures]:
        """Take the samples at positions before ``stop``; those that did not decode are absent."""
        pictures: Pictures = {}
        self.is_suspicious = False
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
            self._watch(next(iter(squares.values())))

    def _watch(self, picture: NDArray[np.uint8]) -> None:
        is_black = int(picture.max()) <= _BLACK_LEVEL
        is_repeated = self._before is not None and np.array_equal(picture, self._before)
        self.is_suspicious |= is_black or is_repeated
        self._before = picture


def are_same(pictures: Pictures, others: Pictures) -> bool:
    """Whether two takes hold the same pictures, byte for byte."""
    return others.keys() == pictures.keys() and all(
        np.array_equal(others[p][size], pictures[p][size]) for p in others for size in others[p]
    )
