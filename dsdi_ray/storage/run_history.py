"""The runs of an archive over time: numbered folders, each whole or not there, never overwritten."""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dsdi_ray.errors import DataError, StoreError
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.filesystems import short_reason
from dsdi_ray.storage.manifest import read_manifest, write_manifest
from dsdi_ray.storage.runs import read_run, run_metadata

_NUMBER = re.compile(r"\d{4,}")
_MANIFEST = "manifest.parquet"
_COMPARED = ("clips", "members", "decode_id", "pool", "outcomes")


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run as it was written.

    Attributes:
        name: Its number.
        run: Its table, with what it was made of.
        manifest: The clips of the archive then.
    """

    name: str
    run: pa.Table
    manifest: pa.Table

    @property
    def inputs(self) -> dict[str, str]:
        """What it was made of, see :func:`run_inputs`."""
        return run_metadata(self.run)

    @property
    def member_weights(self) -> dict[str, float]:
        """Weight of each member by its id."""
        weights: dict[str, float] = json.loads(self.inputs.get("members", "{}"))
        return weights


@dataclass(frozen=True, kw_only=True)
class NextRun:
    """A run that is being written.

    Attributes:
        name: The number that it gets.
        folder: Where its files go until then.
    """

    name: str
    folder: Path

    def write_manifest(self, manifest: pa.Table) -> None:
        """Keep the clips of the archive with the run."""
        write_manifest(manifest, self.folder / _MANIFEST)


def run_inputs(
    manifest: pa.Table,
    ensemble: EnsembleSpec,
    *,
    decode_id: str,
    pool: str,
    num_outcomes: Mapping[str, int],
) -> dict[str, str]:
    """What a run is made of, as texts for its metadata.

    Args:
        manifest: Clips of the archive.
        ensemble: Members and weights.
        decode_id: How frames were sampled.
        pool: How frames became a clip.
        num_outcomes: Clips by what became of them.
    """
    clips = manifest.select(["clip_id", "content_id", "start_seconds", "end_seconds"])
    digest = hashlib.sha256()
    for batch in clips.sort_by("clip_id").to_batches(max_chunksize=100_000):
        digest.update(json.dumps([list(row.values()) for row in batch.to_pylist()]).encode())
    weights = {member.member_id: float(member.weight) for member in ensemble.members}
    return {
        "clips": digest.hexdigest()[:16],
        "members": json.dumps(weights, sort_keys=True),
        "decode_id": decode_id,
        "pool": pool,
        "outcomes": json.dumps(dict(num_outcomes), sort_keys=True),
    }


def changed_inputs(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Which of what a run is made of is another than before: clips, members, ..."""
    return [name for name in _COMPARED if before.get(name) != now.get(name)]


def last_run(folder: Path) -> PastRun | None:
    """The newest run of a folder, None where there is none.

    Raises:
        DataError: If it is damaged.
    """
    name = _last_name(folder)
    if name is None:
        return None
    return PastRun(
        name=name,
        run=read_run(folder / name / "run.parquet"),
        manifest=read_manifest(folder / name / _MANIFEST),
    )


@contextmanager
def next_run(folder: Path) -> Iterator[NextRun]:
    """Write the next run; it gets its number when the block ends, and is gone if that fails.

    Raises:
        DataError: If the folder cannot be written.
        StoreError: If another run got the number meanwhile.
    """
    name = f"{int(_last_name(folder) or 0) + 1:04}"
    temporary = folder / f".{name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {short_reason(error)}") from error
    try:
        yield NextRun(name=name, folder=temporary)
        try:
            temporary.rename(folder / name)
        except OSError as error:
            raise StoreError(
                f"run {folder / name}: cannot be put there ({short_reason(error)}); if another "
                "job wrote it meanwhile, run this one again"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _last_name(folder: Path) -> str | None:
    if not folder.is_dir():
        return None
    names = [entry.name for entry in folder.iterdir() if _NUMBER.fullmatch(entry.name)]
    return max(names, key=int, default=None)
