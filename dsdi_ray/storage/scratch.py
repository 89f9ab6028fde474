"""Room on a node's own disk for copies of remote files, cleaned up after whoever was killed.

The root is ``DSDI_SCRATCH_DIR``, or ``dsdi-scratch-UID`` in the system's temporary folder. Each
process has a folder in it, and a lock beside it that the system releases when the process ends,
however it ends: folders whose lock is free are abandoned and removed when the next one starts.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from dsdi_ray.errors import FetchError
from dsdi_ray.storage.environment import number_from_environment

_GIB = 2**30
_MAX_GIB = 64.0
_BYTES_LEFT_FREE = 1 * _GIB
_ROOT_LOCK = "root.lock"
_MAX_WAIT_SECONDS = 600.0  # for room; who decodes a copy is often done with it by then
_PAUSE_SECONDS = 1.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CANNOT_TAKE = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


def scratch_root() -> Path:
    """The folder on this node under which all scratch is."""
    default = Path(tempfile.gettempdir()) / f"dsdi-scratch-{os.getuid()}"
    return Path(os.environ.get("DSDI_SCRATCH_DIR") or default)


class Scratch:
    """A folder of this process alone, for as long as it lives.

    Holds at most ``DSDI_SCRATCH_GIB`` (64), and leaves 1 GiB of the disk free.

    Raises:
        FetchError: If it cannot be made.
    """

    def __init__(self) -> None:
        self._max_bytes = int(number_from_environment("DSDI_SCRATCH_GIB", _MAX_GIB) * _GIB)
        try:
            self.folder, lock = _own_folder(scratch_root())
        except OSError as error:
            raise FetchError(
                f"no scratch at {scratch_root()}: {error.strerror}; set DSDI_SCRATCH_DIR"
            ) from error
        self.close = weakref.finalize(self, _remove, self.folder, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def new_file(self, suffix: str, ranges: Sequence[tuple[int, int]]) -> Path:
        """An empty file whose room is taken, so that nobody on this node is promised the same.

        Waits for copies of other processes to go where these are in the way. A file system that
        cannot set room aside is only asked whether there is some.

        Args:
            suffix: Of its name.
            ranges: First byte and end of what will be written; the rest stays a hole.

        Raises:
            FetchError: If there is no room.
        """
        num_bytes = sum(stop - start for start, stop in ranges)
        root = self.folder.parent
        path = self.folder / f"{uuid.uuid4().hex}{suffix}"
        last_try = time.monotonic() + _MAX_WAIT_SECONDS
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)  # in case temporary folders were tidied
            with locked(root / _ROOT_LOCK):
                self._check_limit(num_bytes)
                free = shutil.disk_usage(root).free - _BYTES_LEFT_FREE
                if num_bytes <= free and _take_room(path, ranges):
                    return path
                _remove_abandoned(root)
                may_be_freed = sum(_bytes_in(folder) for folder in self._folders_of_others())
            if num_bytes > free + may_be_freed or time.monotonic() > last_try:
                raise FetchError(
                    f"no room for {_gib(num_bytes)}: {root} has {_gib(free + _BYTES_LEFT_FREE)} "
                    "free, 1 GiB of which stays so; set DSDI_SCRATCH_DIR"
                )
            time.sleep(_PAUSE_SECONDS)

    def _check_limit(self, num_bytes: int) -> None:
        if _bytes_in(self.folder) + num_bytes > self._max_bytes:
            raise FetchError(
                f"no room for {_gib(num_bytes)}: scratch is limited to {_gib(self._max_bytes)} a "
                "process; set DSDI_SCRATCH_GIB"
            )

    def _folders_of_others(self) -> list[Path]:
        folders = [lock.with_suffix("") for lock in self.folder.parent.glob("*.lock")]
        return [folder for folder in folders if folder != self.folder and folder.is_dir()]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that all processes of a node share; a process that dies gives it back."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_among_nodes(path: Path) -> Iterator[bool]:
    """As :func:`locked`, in a folder that nodes share; False where its file system has no locks."""
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        yield True


def _own_folder(root: Path) -> tuple[Path, IO[bytes]]:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    if root.stat().st_uid not in {os.getuid(), 0}:
        raise PermissionError(errno.EPERM, "it belongs to another user")
    folder = root / uuid.uuid4().hex
    with locked(root / _ROOT_LOCK):
        _remove_abandoned(root)
        lock = folder.with_suffix(".lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir()
    return folder, lock


def _take_room(path: Path, ranges: Sequence[tuple[int, int]]) -> bool:
    """Make a file and set the room of its ranges aside; False where there is none after all."""
    try:
        with path.open("wb") as file:
            for start, stop in ranges:
                if stop > start and hasattr(os, "posix_fallocate"):  # not so on macOS
                    os.posix_fallocate(file.fileno(), start, stop - start)
    except OSError as error:
        if error.errno in _CANNOT_TAKE:
            return True
        path.unlink(missing_ok=True)
        if error.errno in _FULL:
            return False
        raise FetchError(f"no file can be made in {path.parent}: {error.strerror}") from error
    return True


def _remove_abandoned(root: Path) -> None:
    for path in root.glob("*.lock"):
        if path.name == _ROOT_LOCK:
            continue
        with path.open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            _remove(path.with_suffix(""), lock)


def _remove(folder: Path, lock: IO[bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)
    lock.close()


def _bytes_in(folder: Path) -> int:
    num_bytes = 0
    with suppress(FileNotFoundError):  # another process is done with it
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # another thread is done with it
                num_bytes += path.stat().st_blocks * 512
    return num_bytes


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"
