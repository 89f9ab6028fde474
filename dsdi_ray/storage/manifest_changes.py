"""What changed in an archive since its manifest was written."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from dsdi_ray.storage.filesystems import is_remote, local_path
from dsdi_ray.storage.media_files import FoundFile

_CLOCKS_APART_SECONDS = 900  # at most, of this machine and a server


@dataclass(frozen=True, kw_only=True)
class ManifestChanges:
    """How the clips of two manifests differ, by their ids.

    Attributes:
        new: Clips of the later one alone.
        changed: Clips of both whose content is another.
        gone: Clips of the earlier one alone.
    """

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    @cached_property
    def footage(self) -> dict[str, str]:
        """``new``, ``changed`` or ``gone`` by clip_id, in this order."""
        kinds = {"new": self.new, "changed": self.changed, "gone": self.gone}
        return {clip_id: kind for kind, clip_ids in kinds.items() for clip_id in clip_ids}


def compare_manifests(before: pa.Table, after: pa.Table) -> ManifestChanges:
    """Compare the clips of two manifests; ids ascend."""
    old, new = _contents(before), _contents(after)
    return ManifestChanges(
        new=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(c for c in new.keys() & old.keys() if new[c] != old[c])),
        gone=tuple(sorted(old.keys() - new.keys())),
    )


def files_to_probe(
    files: Sequence[FoundFile], manifest: pa.Table, *, written_at: float
) -> list[FoundFile]:
    """Files that a manifest does not know, or no longer as they are.

    A file is looked at again if its size is another or it was written after the manifest; one that
    could not be read then, in any case. A file on a web server, which does not list its files,
    counts as unchanged: to ask for each would take long.

    Args:
        files: The archive's files now.
        manifest: Of the archive before.
        written_at: When the manifest was written, in seconds since 1970.
    """
    content_of = dict(
        zip(manifest["uri"].to_pylist(), manifest["content_id"].to_pylist(), strict=True)
    )
    return [file for file in files if _is_unknown(file, content_of.get(file.uri), written_at)]


def clips_of_files(manifest: pa.Table, files: Sequence[FoundFile]) -> pa.Table:
    """The rows of a manifest that are of these files."""
    uris = pa.array([file.uri for file in files], pa.string())
    return manifest.filter(pc.is_in(manifest["uri"], value_set=uris))


def _is_unknown(file: FoundFile, content_id: str | None, written_at: float) -> bool:
    if content_id is None:
        return True
    if is_remote(file.uri):
        if file.listing is None:
            return False
        size, changed_at = file.listing
        written_at -= _CLOCKS_APART_SECONDS
    else:
        try:
            status = local_path(file.uri).stat()
        except OSError:
            return True  # the prober says why
        size, changed_at = status.st_size, status.st_mtime
    has_other_size = str(size) != content_id.partition("-")[0]
    return has_other_size or (changed_at is not None and changed_at > written_at)


def _contents(manifest: pa.Table) -> dict[str, str | None]:
    ids = manifest["clip_id"].to_pylist()
    return dict(zip(ids, manifest["content_id"].to_pylist(), strict=True))
