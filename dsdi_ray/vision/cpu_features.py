"""Keep FFmpeg off vector instructions that are slow on this machine's CPU.

FFmpeg resizes with AVX2's gathers unless it knows the CPU to be slow at them: it knows of AMD's up to
Zen 3 and of some of Intel's, not of later ones, nor of those that a microcode update against leaks
has slowed down. Both ways give the same bytes. *Measured* on an AMD EPYC (Zen 5): resizing 1080p to
224 px takes 2.03 ms with gathers and 1.28 without.
"""

import ctypes
import functools
import platform
import time

import av.video.reformatter
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

# Of FFmpeg's libavutil/cpu.h and libavutil/x86/cpu.c.
_AVX2, _SLOW_GATHER = 0x8000, 0x2000000
_MIN_GAIN = 1.1  # less may be chance
_NUM_TURNS = 4


@functools.cache
def avoid_slow_gathers() -> bool:
    """Try both ways of resizing, once in a process, and let PyAV's FFmpeg go the quicker one.

    Takes some 20 ms. Filters that exist already keep their way.

    Returns:
        Whether gathers are avoided.
    """
    library = ctypes.CDLL(av.video.reformatter.__file__)
    if not forgo_gathers(library):
        return False
    without = _seconds_to_resize()
    library.av_force_cpu_flags(library.av_get_cpu_flags() & ~_SLOW_GATHER)
    if _seconds_to_resize() < _MIN_GAIN * without:
        return False
    return forgo_gathers(library)


def forgo_gathers(library: ctypes.CDLL) -> bool:
    """Tell an FFmpeg that gathers are slow.

    Args:
        library: Whatever is linked with its libavutil.

    Returns:
        False where it has no use for gathers, or is not to be told.
    """
    if platform.machine() not in {"x86_64", "AMD64"}:
        return False
    try:
        flags = library.av_get_cpu_flags()
        if not flags & _AVX2 or flags & _SLOW_GATHER:
            return False
        library.av_force_cpu_flags(flags | _SLOW_GATHER)
    except AttributeError:  # a build that does not show these functions
        return False
    return True


def _seconds_to_resize() -> float:
    frame = VideoFrame.from_ndarray(np.zeros((1620, 1920), np.uint8), format="yuv420p")
    reformatter, seconds = VideoReformatter(), []
    for _ in range(_NUM_TURNS):
        started = time.thread_time()
        reformatter.reformat(
            frame, width=224, height=224, format="rgb24", interpolation="BICUBIC", threads=1
        )
        seconds.append(time.thread_time() - started)
    return min(seconds)
