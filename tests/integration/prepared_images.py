"""Writes small real prepared sets for tests: JPEG images whose colours tell their labels."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from dsdi_ray.storage.prepared import (
    PreparedSet,
    labels_schema,
)
from dsdi_ray.storage.prepared_files import publish_set, write_images
from dsdi_ray.taxonomy import Taxonomy, TaxonomyClass

COLOURS = Taxonomy(
    name="colours",
    classes=tuple(
        TaxonomyClass(name=name, feature_id=i + 1)
        for i, name in enumerate(("red", "green", "blue"))
    ),
)


def coloured_image(present: np.ndarray, rng: np.random.Generator, side_px: int = 48) -> np.ndarray:
    """Noise whose channels are bright where the class is present."""
    base = np.where(present, 200, 60)
    return np.clip(base + rng.normal(0, 20, (side_px, side_px, 3)), 0, 255).astype(np.uint8)


def write_coloured_set(
    out: Path, *, num_images: int = 40, seed: int = 0, side_px: int = 48
) -> PreparedSet:
    """A complete prepared set of three classes."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num_images):
        present = rng.random(3) < 0.5
        jpeg = io.BytesIO()
        Image.fromarray(coloured_image(present, rng, side_px)).save(jpeg, "JPEG", quality=90)
        rows.append(
            {
                "image_id": f"image-{i:04}",
                "jpeg": jpeg.getvalue(),
                "width": side_px,
                "height": side_px,
                "soft_label": present.astype(np.float32).tolist(),
                "answer_counts": present.astype(np.int32).tolist(),
                "num_asked": [1] * 3,
                "split": "validation" if i % 4 == 0 else "train",
            }
        )
    num_validation = sum(row["split"] == "validation" for row in rows)
    folder = out.with_name(f".{out.name}.tmp")
    folder.mkdir(parents=True)
    write_images(rows, folder / "images-00000.parquet")
    labels = pa.Table.from_pylist(rows, schema=labels_schema(3))
    spec = {
        "taxonomy": COLOURS.to_dict(),
        "prepared_id": f"colours-{num_images}-{seed}",
        "inputs_id": "drawn",
        "encoding": "as_given",
        "settings": {"validation_fraction": 0.25},
        "counts": {
            "images": num_images,
            "train": num_images - num_validation,
            "validation": num_validation,
        },
    }
    return publish_set(folder, out, labels=labels, spec=spec, report={})
