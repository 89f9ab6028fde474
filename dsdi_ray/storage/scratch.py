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
import uuid
import weakref
from collections.abc import Iterator
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

    def new_path(self, suffix: str, *, num_bytes: int) -> Path:
        """A path for a file to come, once it is known that there is room for it.

        Raises:
            FetchError: If there is none.
        """
        self.folder.mkdir(exist_ok=True)  # what tidies up temporary folders may have taken it
        used = _bytes_in(self.folder)
        if used + num_bytes > self._max_bytes:
            raise FetchError(
                f"no room for {_gib(num_bytes)}: scratch is limited to {_gib(self._max_bytes)} a "
                "process; set DSDI_SCRATCH_GIB"
            )
        free = shutil.disk_usage(self.folder).free
        if num_bytes + _BYTES_LEFT_FREE > free:
            raise FetchError(
                f"no room for {_gib(num_bytes)}: {self.folder.parent} has {_gib(free)} free, 1 GiB "
                "of which stays so; set DSDI_SCRATCH_DIR"
            )
        return self.folder / f"{uuid.uuid4().hex}{suffix}"


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
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another thread is done with it
            num_bytes += path.stat().st_blocks * 512
    return num_bytes


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"
