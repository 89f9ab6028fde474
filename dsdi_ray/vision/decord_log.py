"""Counts errors in the log of decord's FFmpeg, which conceals damage and tells of it there alone."""

import ctypes

from decord._ffi.libinfo import find_lib_path

_ERROR = 16  # FFmpeg's AV_LOG_ERROR; worse is less
# Of a line only where it comes from and its level; format and arguments are left to the caller.
_LINE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)


class _Seen:
    num_errors = 0


def _note(_context: int, level: int) -> None:
    if level <= _ERROR:
        _Seen.num_errors += 1  # of two threads' one may be lost: that it rises is what counts


_on_line = _LINE(_note)  # kept, as FFmpeg calls it from threads of its own


def start_counting() -> None:
    """Count from now on; for a process of decord's own, as none of its FFmpeg's lines is printed."""
    try:
        ctypes.CDLL(find_lib_path()[0]).av_log_set_callback(_on_line)
    except AttributeError:  # a build that does not show its FFmpeg's functions
        return


def num_errors() -> int:
    """Errors so far, 0 where nothing is counted."""
    return _Seen.num_errors
