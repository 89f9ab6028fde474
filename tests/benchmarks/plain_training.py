"""The training loop that one would write by hand, on images and a CSV of 0/1 columns.

Nothing of dsdi_ray: what `bench_own_data.py` compares `dsdi train` with.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2


class Tiles(Dataset):
    """Decoded pictures in memory, augmented as they are asked for."""

    def __init__(self, tiles: Path, rows: list[dict[str, str]], px: int, *, is_train: bool) -> None:
        names = [name for name in rows[0] if name not in ("image", "split")]
        self.labels = np.array([[int(row[name]) for name in names] for row in rows], np.float32)
        self.pictures = [_square(tiles / row["image"], px) for row in rows]
        scale = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
        changes = [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomRotation(15, interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(0.2, 0.2, 0.2, 0.05),
        ]
        self.transform = v2.Compose([*(changes if is_train else []), *scale])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(self.pictures[i]), torch.from_numpy(self.labels[i])


def _square(path: Path, px: int) -> torch.Tensor:
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((px, px), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def main() -> None:
    """Train and print the validation part's mAP as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--tiles", type=Path)
    parser.add_argument("--backbone")
    parser.add_argument("--input-px", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    rows = list(csv.DictReader(options.labels.open()))
    parts = [
        Tiles(options.tiles, [r for r in rows if r["split"] == part], options.input_px, is_train=i)
        for part, i in (("train", True), ("validation", False))
    ]
    workers = {"num_workers": 2, "persistent_workers": True}
    train = DataLoader(parts[0], options.batch_size, shuffle=True, drop_last=True, **workers)
    validation = DataLoader(parts[1], 64, **workers)
    network = timm.create_model(options.backbone, num_classes=parts[0].labels.shape[1])
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        network.parameters(), options.lr, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, epochs=options.epochs, steps_per_epoch=len(train),
        pct_start=1 / options.epochs,
    )  # fmt: skip
    bce = torch.nn.BCEWithLogitsLoss()
    for _ in range(options.epochs):
        network.train()
        for pictures, labels in train:
            loss = bce(network(pictures.to(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.inference_mode():
            scores = torch.cat([network(pictures) for pictures, _ in validation]).numpy()
        quality = average_precision_score(parts[1].labels, scores, average="macro")
    print(json.dumps({"map": quality}))


if __name__ == "__main__":
    main()
