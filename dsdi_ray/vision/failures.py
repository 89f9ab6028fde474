"""What a library's error says, and whether it is the clip's fault."""

import errno
from collections.abc import Generator
from pathlib import Path

# What storage, the network or a full machine does; the same clip may decode next time. A file
# that is gone counts: it may be back.
_TRANSIENT = frozenset(
    (
        errno.EACCES,
        errno.EAGAIN,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EDQUOT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTCONN,
        errno.EPERM,
        errno.ESTALE,
        errno.ETIMEDOUT,
    )
)
_BLOCK_BYTES = 2**20
_BLOCKS_BETWEEN_SIGNS = 16


def short_reason(error: BaseException) -> str:
    """A library's error without paths, numbers of its own and further lines."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().splitlines()[0][:200]


def is_transient(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, is the machine's fault."""
    return _system_error(error) in _TRANSIENT


def is_io_error(error: BaseException) -> bool:
    """Whether reading failed; FFmpeg says so of files cut short, too: see :func:`reading_fault`."""
    return _system_error(error) == errno.EIO


def reading_fault(path: Path) -> Generator[None, None, OSError | None]:
    """Read a file through, yielding now and then as a sign of progress.

    Returns:
        The error that ended it, None if the file reads well: what is wrong is in its content.
    """
    block = bytearray(_BLOCK_BYTES)
    try:
        with path.open("rb", buffering=0) as file:
            num_read = 0
            while file.readinto(block):
                num_read += 1
                if num_read % _BLOCKS_BETWEEN_SIGNS == 0:
                    yield None
    except OSError as error:
        return error
    return None


def _system_error(error: BaseException) -> int | None:
    cause = error.__cause__ or error
    return cause.errno if isinstance(cause, OSError) else None
