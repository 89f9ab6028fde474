"""What the benchmarks of training share: their images and their recipe."""

import argparse
import sys
from pathlib import Path

from dsdi_ray.config import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

_SIDE_PX = 512  # short side of a prepared set's images


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what is trained on what."""
    parser.add_argument("--backbone", default="test_byobnet")
    parser.add_argument("--input-px", type=int, default=128)
    parser.add_argument("--images", type=int, default=560, help="Of which a fifth validates.")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)


def make_set(out: Path, *, num_images: int) -> None:
    """A prepared set of pictures of the size and detail of real ones."""
    from prepared_images import write_coloured_set

    write_coloured_set(out, num_images=num_images, side_px=_SIDE_PX)


def recipe_of(options: argparse.Namespace, *, epochs: int) -> Recipe:
    """The same for all ways."""
    return Recipe.model_validate(
        {
            "name": "bench",
            "backbone": {"name": options.backbone, "weights": "none"},
            "input_px": options.input_px,
            "epochs": epochs,
            "optimizer": {"name": "sgd", "lr": 0.001},
        }
    )
