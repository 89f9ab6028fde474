"""Decoded training pictures, made once: in memory, or in a file that several runs read together.

Shapes: N pictures of side S.
"""

import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
) -> NDArray[np.uint8]:
    """The decoded pictures of a set, mapped from a file that is made where it is not there.

    Runs on a machine that map it hold it in memory once. Two that begin at the same time may both
    decode; one's file stays.

    Args:
        folder: Of such files.
        prepared_id: Of the set.
        jpegs: All files' bytes, in order, N.
        side_px: S.

    Returns:
        Read-only, ``[N, S, S, 3]``.
    """
    path = folder / f"{prepared_id}-{side_px}px.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        shape = (len(jpegs), side_px, side_px, 3)
        written = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        decode_all(jpegs, side_px, into=written)
        written.flush()
        del written
        temporary.replace(path)
    pictures: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return pictures
