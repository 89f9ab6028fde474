"""Decoded training pictures, made once: in memory, or in a file that several runs read together.

Shapes: N pictures of side S.
"""

import math
import os
import shutil
import socket
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dsdi_ray.storage.scratch import locked_among_nodes
from dsdi_ray.vision.transforms import decode_square


def decode_all(
    jpegs: Sequence[pa.Buffer], side_px: int, *, into: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Decode pictures in threads: most of the work is done without the interpreter's lock.

    Args:
        jpegs: Their files' bytes, N.
        side_px: S.
        into: Array that is filled; None: a new one.

    Returns:
        ``[N, S, S, 3]``.
    """
    shape = (len(jpegs), side_px, side_px, 3)
    decoded = np.empty(shape, np.uint8) if into is None else into

    def decode(i: int) -> None:
        decoded[i] = decode_square(jpegs[i], side_px)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(decode, range(len(jpegs))))
    return decoded


def shared_pictures(
    folder: Path, prepared_id: str, jpegs: Sequence[pa.Buffer], side_px: int
) -> NDArray[np.uint8] | None:
    """The decoded pictures of a set, mapped from a file that is made where it is not there.

    Runs on a machine that map it hold it in memory once. Of those that begin together one decodes,
    on all cores, and the others wait. Where the folder's file system has no locks, or has them for
    each node alone, several decode, and one's file stays.

    Args:
        folder: Of such files.
        prepared_id: Of the set.
        jpegs: All files' bytes, in order, N.
        side_px: S.

    Returns:
        Read-only, ``[N, S, S, 3]``; None where the disk has no room for them.
    """
    path = folder / f"{prepared_id}-{side_px}px.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with locked_among_nodes(folder / ".lock") as is_alone:
            if is_alone:  # what is left is of one that was killed
                for left in folder.glob(f".*.{socket.gethostname()}.*.tmp"):
                    left.unlink(missing_ok=True)
            if not path.is_file() and not _decode_file(path, jpegs, side_px):
                return None
    pictures: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return pictures


def _decode_file(path: Path, jpegs: Sequence[pa.Buffer], side_px: int) -> bool:
    """Write the pictures, whole or not at all; False where there is no room."""
    shape = (len(jpegs), side_px, side_px, 3)
    if math.prod(shape) > shutil.disk_usage(path.parent).free:
        return False  # what maps a file that the disk cannot hold is killed
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{uuid.uuid4().hex[:8]}.tmp")
    written = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
    decode_all(jpegs, side_px, into=written)
    written.flush()
    del written
    temporary.replace(path)
    return True
