"""Whose a run's folder is: workers of another driver, or of a trial that was stopped, end."""

import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from dsdi_ray.errors import DataError

_OWNER_FILE = "owner"


class OwnerError(DataError):
    """A run's folder is another's by now, or is not there. Where several train, all end by it."""


def take_over(work: Path) -> str:
    """Make a run's folder this process's; workers of another end soon."""
    owner = uuid.uuid4().hex
    work.mkdir(parents=True, exist_ok=True)
    (work / _OWNER_FILE).write_text(owner, "utf-8")
    return owner


def check_owner(work: Path, owner: str) -> None:
    """End workers whose driver was killed, who were started twice, or whose trial was stopped.

    Raises:
        OwnerError: If the folder is another run's by now, or is not there on this node.
    """
    try:
        found = (work / _OWNER_FILE).read_text("utf-8")
    except FileNotFoundError as error:
        raise OwnerError(
            f"{work}: the folder of the run is not seen from the node {socket.gethostname()}; "
            "--out must be on a file system that all nodes share"
        ) from error
    if found != owner:
        raise OwnerError(
            f"{work}: the same recipe was started again for the same --out; this run ends"
        )


def check_owner_together(work: Path, owner: str, *, num_workers: int) -> None:
    """``check_owner`` on all workers of a run: where one is to end, none waits for it.

    Raises:
        OwnerError: On every worker.
    """
    own: OwnerError | None = None
    try:
        check_owner(work, owner)
    except OwnerError as error:
        own = error
    found: list[OwnerError | None] = [own]
    if num_workers > 1:
        found *= num_workers
        dist.all_gather_object(found, own)
    for one in found:
        if one is not None:
            raise one


def owner_watch(work: Path, owner: str) -> Callable[[], None]:
    """``check_owner``, at most once a second."""
    last = time.monotonic()

    def check() -> None:
        nonlocal last
        if time.monotonic() - last > 1.0:
            check_owner(work, owner)
            last = time.monotonic()

    return check
