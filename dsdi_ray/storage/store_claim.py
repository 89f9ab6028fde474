"""At most one maintenance command at a time rewrites a store."""

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pyarrow import fs as pafs

from dsdi_ray.errors import StoreError
from dsdi_ray.storage.store_files import StoreFiles

_CLAIM = "_maintenance-"


@contextmanager
def sole_maintenance(files: StoreFiles, command: str) -> Iterator[None]:
    """Hold a store while a command rewrites it; scoring and reading go on.

    A claim is a file, written first and looked around from after: of two at once, one sees the
    other at least. The claim of a process of this machine that is gone does not count.

    Raises:
        StoreError: If another command holds the store.
    """
    name = f"{_CLAIM}{uuid.uuid4().hex}.json"
    claim = {
        "command": command,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    files.write_bytes(name, json.dumps(claim).encode())
    try:
        _refuse_other_claims(files, name)
        yield
    finally:
        files.delete([f"{files.root}/{name}"])


def _refuse_other_claims(files: StoreFiles, own_name: str) -> None:
    for info in files.filesystem.get_file_info(pafs.FileSelector(files.root)):
        if not info.base_name.startswith(_CLAIM) or info.base_name == own_name:
            continue
        try:
            with files.filesystem.open_input_stream(info.path) as file:
                claim = json.loads(file.read())
        except FileNotFoundError:  # it has ended
            continue
        if claim["host"] == socket.gethostname() and not _is_running(claim["pid"]):
            files.delete([info.path])
            continue
        raise StoreError(
            f"score store {files.root}: `{claim['command']}` runs on it since "
            f"{claim['started_at']} (host {claim['host']}, process {claim['pid']}); wait for it, or "
            f"if that process is no more, delete {info.path}"
        )


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
