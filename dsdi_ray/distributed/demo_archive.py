"""Make the demo's synthetic archive once, on all cores."""

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import ray

from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.errors import DataError
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.filesystems import write_bytes
from dsdi_ray.synthetic.archive import SyntheticArchive, write_synthetic_archive

_MARKER = "archive.json"  # there from the beginning; it says where all lies once all is there
_TORN_MARKER = f".{_MARKER}.*.tmp"
_PARTS = (
    *(_MARKER, _TORN_MARKER, "answers.tsv", "qrels.txt", "truth.json"),
    *("images/SYN_*.jpg", "clips/Shot*.mp4"),
)
T = TypeVar("T")


def find_archive(
    root: Path, *, num_images: int, num_clips: int, seed: int
) -> SyntheticArchive | None:
    """The archive that is there, if it is complete and was made the same way."""
    made = _read_marker(root)
    request = {"num_images": num_images, "num_clips": num_clips, "seed": seed}
    if made is None or made["request"] != request or made["archive"] is None:
        return None
    fields: dict[str, Any] = {
        k: v if isinstance(v, int) else root / v for k, v in made["archive"].items()
    }
    return SyntheticArchive(**fields)


def make_archive(root: Path, *, num_images: int, num_clips: int, seed: int) -> SyntheticArchive:
    """Write a synthetic archive, or use the one that is there if it was made the same way.

    Args:
        root: Its folder; an archive that was made another way, or not completely, is replaced.
        num_images: Crowd-labelled images.
        num_clips: Video files.
        seed: Another seed, another archive.

    Raises:
        DataError: If the folder holds anything else.
    """
    found = find_archive(root, num_images=num_images, num_clips=num_clips, seed=seed)
    if found is not None:
        return found
    request = {"num_images": num_images, "num_clips": num_clips, "seed": seed}
    _check_replaceable(root)
    _write_marker(root, request, None)
    _remove_parts(root)
    with progress_bar(total=num_images + num_clips, description="Rendering", unit="item") as bar:
        done = {"images": 0, "clips": 0}

        def advance(what: str, num_done: int, _: int) -> None:
            bar.update(num_done - done[what])
            done[what] = num_done

        archive = write_synthetic_archive(
            root,
            num_images=num_images,
            num_clips=num_clips,
            seed=seed,
            run=_on_all_cores,
            on_progress=advance,
        )
    relative = {
        k: v if isinstance(v, int) else str(v.relative_to(root)) for k, v in asdict(archive).items()
    }
    _write_marker(root, request, relative)
    return archive


def _read_marker(root: Path) -> dict[str, Any] | None:
    """What the marker of an archive says, None where there is none of this program's."""
    try:
        made = json.loads((root / _MARKER).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return made if isinstance(made, dict) and made.keys() == {"request", "archive"} else None


def _write_marker(
    root: Path, request: Mapping[str, int], archive: Mapping[str, str | int] | None
) -> None:
    """Mark an archive as begun (``archive`` is None) or complete."""
    try:
        text = json.dumps({"request": request, "archive": archive})
        write_bytes(root / _MARKER, text.encode())
    except OSError as error:
        raise DataError(f"{root}: cannot write a synthetic archive there: {error}") from error


def _check_replaceable(root: Path) -> None:
    """Refuse a folder with anything in it but an archive that was begun here."""
    files = [p.relative_to(root).as_posix() for p in sorted(root.rglob("*")) if not p.is_dir()]
    others = [name for name in files if not any(fnmatchcase(name, part) for part in _PARTS)]
    if not others and _read_marker(root) is None:
        others = [name for name in files if not fnmatchcase(name, _TORN_MARKER)]
    if others:
        raise DataError(
            f"{root}: holds {others[0]}, which is not of a synthetic archive begun there, and is "
            "not replaced; move it away or choose another folder"
        )


def _remove_parts(root: Path) -> None:
    """Remove all of an archive but its marker."""
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _MARKER:
            path.unlink()


def _on_all_cores(work: Callable[[int], T], numbers: Iterable[int]) -> Iterator[T]:
    """Results in order, of Ray tasks of which a few more are under way than there are cores."""

    def call(number: int) -> T:  # Ray takes functions, no partial ones
        return work(number)

    task = ray.remote(num_cpus=1)(call)
    most_at_once = 2 * max(1, int(cluster_resources().num_cpus))
    running: deque[Any] = deque()
    for number in numbers:
        running.append(task.remote(number))
        if len(running) >= most_at_once:
            yield ray.get(running.popleft())
    while running:
        yield ray.get(running.popleft())
