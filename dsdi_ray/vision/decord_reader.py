"""Planned samples through decord: fast, and believed only where it counts as FFmpeg does.

decord brings an FFmpeg of its own and shows its functions to all that is loaded later: PyAV must be
loaded before, or it calls decord's in place of its own, of whatever version these are.
"""

import ctypes
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av  # noqa: F401 # before decord
import decord
import numpy as np
from decord._ffi.libinfo import find_lib_path

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.cpu_features import avoid_slow_gathers, forgo_gathers
from dsdi_ray.vision.decord_log import num_errors
from dsdi_ray.vision.pictures import Sample
from dsdi_ray.vision.sampling import SamplingPlan
from dsdi_ray.vision.timeline import Timeline

_BATCH_SIZE = 16  # pictures that decord hands over at once
_TIMESTAMP_TOLERANCE_SECONDS = 2e-3
# decord's thread goes on decoding into memory while nobody takes pictures, up to the file's end
# (known to its tracker: dmlc/decord 157, 208, 304). *Measured*: 0.6 GB before a network was loaded.
_MAX_HELD_BYTES = 2**26
_NO_FAULTS = 1e-9  # decord raises once the share of pictures that it made up exceeds this


@dataclass
class DecordReader:
    """Reads with decord, after checking that it counts and times the pictures as FFmpeg does."""

    path: str
    plan: SamplingPlan
    timeline: Timeline
    sizes: Sequence[int]

    def __post_init__(self) -> None:
        """Open the file.

        Raises:
            DecodeError: If decord refuses the file or sees another timeline.
        """
        if self.timeline.unfit_for_decord:
            raise DecodeError(self.timeline.unfit_for_decord)
        if len(self.sizes) != 1:
            raise DecodeError("decord resizes to one size in a pass, PyAV to several")
        size, times = self.sizes[0], self.timeline.display_times
        if len(times) * 3 * size**2 > _MAX_HELD_BYTES:
            raise DecodeError(f"decord might hold all of {len(times)} pictures in memory")
        if avoid_slow_gathers():
            forgo_gathers(ctypes.CDLL(find_lib_path()[0]))
        try:
            self._reader = decord.VideoReader(
                self.path,
                ctx=decord.cpu(0),
                width=size,
                height=size,
                num_threads=1,
                fault_tol=_NO_FAULTS,
            )
            shown_at = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0]
        except Exception as error:  # decord raises bare errors of several kinds
            raise DecodeError(f"decord cannot open it: {_decord_reason(error)}") from error
        seconds = (times - times[0]) * float(self.timeline.time_base)
        if len(shown_at) != len(seconds):
            raise DecodeError(f"decord counts {len(shown_at)} pictures of {len(seconds)}")
        tolerance = _TIMESTAMP_TOLERANCE_SECONDS + 1e-6 * seconds[-1]
        if np.abs(np.sort(shown_at) - shown_at[0] - seconds).max() > tolerance:
            raise DecodeError("decord's time stamps differ from the container's")
        self._num_errors = num_errors()

    def read(self, first: int) -> Iterator[Sample | None]:
        """Yield samples from position ``first`` of the plan on.

        Raises:
            DecodeError: Where decord gives up, or its FFmpeg logs an error.
        """
        batch_size = 1
        while first < len(self.plan):
            ordinals = self.plan.ordinals[first : first + batch_size]
            started = time.monotonic()
            try:
                pictures = self._reader.get_batch(ordinals.tolist()).asnumpy()
            except Exception as error:
                raise DecodeError(f"decord gave up: {_decord_reason(error)}") from error
            if num_errors() > self._num_errors:
                raise DecodeError("decord met damage")
            # Long groups of pictures and sparse samples: no batch may look like a hang.
            in_time = max(1, int(len(ordinals) / max(time.monotonic() - started, 1e-3)))
            for position, picture in enumerate(pictures, start=first):
                yield position, {self.sizes[0]: picture}
            yield None
            first += len(ordinals)
            batch_size = min(_BATCH_SIZE, in_time)


def _decord_reason(error: BaseException) -> str:
    """Decord's message without its time, source line, path and stack."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\[[^\]]*[:/][^\]]*\] ?|\S*\.cc:\d+: ", "", line)[:160]
