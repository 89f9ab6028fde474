"""What a file holds, as a short text: how scores know that a clip is still the one they are of.

A local file is known by its size and a hash of its ends, a remote one by its size and ETag, so
that nothing has to be fetched to know it. The same clip at two such places has two ids.
"""

import hashlib
from pathlib import Path

from dsdi_ray.storage.filesystems import RemoteFile

EDGE_BYTES = 2**20


def content_id(path: Path) -> str:
    """Identity of a local file's content: its size and a hash of its first and last MiB.

    Raises:
        OSError: If it cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(EDGE_BYTES))
        if size > EDGE_BYTES:
            file.seek(max(EDGE_BYTES, size - EDGE_BYTES))
            digest.update(file.read())
    return f"{size}-{digest.hexdigest()[:24]}"


def content_id_of(content: bytes) -> str:
    """Identity of a local file, see :func:`content_id`, from all that it holds."""
    digest = hashlib.sha256(content[:EDGE_BYTES])
    digest.update(content[max(EDGE_BYTES, len(content) - EDGE_BYTES) :])
    return f"{len(content)}-{digest.hexdigest()[:24]}"


def remote_content_id(file: RemoteFile) -> str | None:
    """Identity of a remote file's content: its size and ETag; None if it has none.

    Such a file is known by :func:`content_id` of a copy of it.
    """
    if file.version is None:
        return None
    version = file.version.removeprefix("W/").strip('"')
    return f"{file.size}-{version}"
