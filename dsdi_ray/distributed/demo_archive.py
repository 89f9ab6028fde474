"""Make the demo's synthetic archive once."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsdi_ray.progress import progress_bar
from dsdi_ray.synthetic.archive import SyntheticArchive, write_synthetic_archive

_MARKER = "archive.json"


def make_archive(root: Path, *, num_images: int, num_clips: int, seed: int) -> SyntheticArchive:
    """Write a synthetic archive, or use the one that is there if it was made the same way.

    Args:
        root: Its folder; one that was made another way, or not completely, is replaced.
        num_images: Crowd-labelled images.
        num_clips: Video files.
        seed: Another seed, another archive.
    """
    request = {"num_images": num_images, "num_clips": num_clips, "seed": seed}
    marker = root / _MARKER
    if marker.is_file():
        made = json.loads(marker.read_text())
        if made["request"] == request:
            fields: dict[str, Any] = {
                k: v if isinstance(v, int) else root / v for k, v in made["archive"].items()
            }
            return SyntheticArchive(**fields)
    shutil.rmtree(root, ignore_errors=True)
    with progress_bar(total=num_images + num_clips, description="Rendering", unit="item") as bar:
        done = {"images": 0, "clips": 0}

        def advance(what: str, num_done: int, _: int) -> None:
            bar.update(num_done - done[what])
            done[what] = num_done

        archive = write_synthetic_archive(
            root, num_images=num_images, num_clips=num_clips, seed=seed, on_progress=advance
        )
    relative = {
        k: v if isinstance(v, int) else str(v.relative_to(root)) for k, v in asdict(archive).items()
    }
    marker.write_text(json.dumps({"request": request, "archive": relative}))
    return archive
