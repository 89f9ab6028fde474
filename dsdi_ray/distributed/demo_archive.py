"""Make the demo's synthetic archive once, on all cores."""

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import ray

from dsdi_ray.distributed.session import cluster_resources
from dsdi_ray.progress import progress_bar
from dsdi_ray.synthetic.archive import SyntheticArchive, write_synthetic_archive

_MARKER = "archive.json"
T = TypeVar("T")


def find_archive(
    root: Path, *, num_images: int, num_clips: int, seed: int
) -> SyntheticArchive | None:
    """The archive that is there, if it is complete and was made the same way."""
    marker = root / _MARKER
    if not marker.is_file():
        return None
    made = json.loads(marker.read_text())
    if made["request"] != {"num_images": num_images, "num_clips": num_clips, "seed": seed}:
        return None
    fields: dict[str, Any] = {
        k: v if isinstance(v, int) else root / v for k, v in made["archive"].items()
    }
    return SyntheticArchive(**fields)


def make_archive(root: Path, *, num_images: int, num_clips: int, seed: int) -> SyntheticArchive:
    """Write a synthetic archive, or use the one that is there if it was made the same way.

    Args:
        root: Its folder; one that was made another way, or not completely, is replaced.
        num_images: Crowd-labelled images.
        num_clips: Video files.
        seed: Another seed, another archive.
    """
    found = find_archive(root, num_images=num_images, num_clips=num_clips, seed=seed)
    if found is not None:
        return found
    shutil.rmtree(root, ignore_errors=True)
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
    request = {"num_images": num_images, "num_clips": num_clips, "seed": seed}
    (root / _MARKER).write_text(json.dumps({"request": request, "archive": relative}))
    return archive


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
