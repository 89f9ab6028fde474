"""Small real footage and members for integration tests."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import timm
import torch
from safetensors.torch import save_file

from dsdi_ray.distributed.members import import_member
from dsdi_ray.storage.bundles import EnsembleSpec, read_ensemble, write_ensemble
from dsdi_ray.taxonomy import Taxonomy, taxonomy_from_dict

COLOURS = taxonomy_from_dict({"name": "colours", "classes": ["red", "green", "blue"]})


def write_clip(
    path: Path, *, seed: int, fps: int = 30, num_pictures: int = 45, scale: int = 1
) -> Path:
    """An H.264 file of a drifting pattern; every picture differs from the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 255, (9, 16, 3), dtype=np.uint8)
    scene = scene.repeat(16 * scale, 0).repeat(16 * scale, 1)
    twice = np.concatenate([scene, scene], axis=1)
    width, height = 192 * scale, 112 * scale
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast"}
        stream.time_base = Fraction(1, fps)
        for i in range(num_pictures):
            left = -2 * i % scene.shape[1]
            picture = twice[:height, left : left + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_footage(folder: Path, *, num_clips: int) -> Path:
    """A folder of clips of different lengths, one of them cut short and one empty."""
    for i in range(num_clips):
        write_clip(folder / f"clip{i}.mp4", seed=i, num_pictures=20 + 60 * (i % 3))
    whole = (folder / "clip0.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def make_member(
    out: Path,
    *,
    seed: int,
    input_px: int,
    taxonomy: Taxonomy = COLOURS,
    backbone: str = "test_resnet",
) -> Path:
    """A member of random weights, by the way that weights from elsewhere take."""
    torch.manual_seed(seed)
    network = timm.create_model(backbone, num_classes=len(taxonomy))
    weights = out.with_suffix(".safetensors")
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), weights)
    import_member(
        backbone=backbone, weights_file=weights, taxonomy=taxonomy, input_px=input_px, out=out
    )
    return out


def make_ensemble(folder: Path, *, sizes: Sequence[int] = (64, 96)) -> EnsembleSpec:
    """Members of different input sizes."""
    members = [
        (make_member(folder / f"member{i}", seed=i, input_px=size), 1.0 + i)
        for i, size in enumerate(sizes)
    ]
    write_ensemble(members, folder / "ensemble")
    return read_ensemble(folder / "ensemble")
