"""How good a network is on the validation part."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dsdi_ray.distributed.learner import Learner
from dsdi_ray.distributed.train_data import Feeder, Pictures
from dsdi_ray.method.metrics import average_precisions, lrap
from dsdi_ray.method.objective import Objective
from dsdi_ray.taxonomy import Taxonomy

_BATCH = 64


def validation_logits(
    learner: Learner, pictures: Pictures, feeder: Feeder, *, rank: int, num_workers: int
) -> NDArray[np.float32]:
    """Logits of the whole part, ``[N, C]``; the workers share the pictures.

    Every worker computes with the weights and statistics of the first.
    """
    own = np.arange(rank, len(pictures), num_workers)
    batches = [own[i : i + _BATCH] for i in range(0, len(own), _BATCH)]
    if num_workers > 1:
        for tensor in learner.member_network.state_dict().values():
            dist.broadcast(tensor, src=0)
    parts = [learner.logits(inputs).cpu().numpy() for inputs in feeder(batches)]
    if num_workers == 1:
        return np.concatenate(parts)
    by_worker: list[list[NDArray[np.float32]]] = [[] for _ in range(num_workers)]
    dist.all_gather_object(by_worker, parts)
    num_classes = pictures.labels.shape[1]
    logits = np.empty((len(pictures), num_classes), np.float32)
    for worker, found in enumerate(by_worker):
        if found:
            logits[worker::num_workers] = np.concatenate(found)
    return logits


def validation_metrics(
    logits: NDArray[np.float32], pictures: Pictures, *, objective: Objective, taxonomy: Taxonomy
) -> dict[str, Any]:
    """Metrics of logits.

    Returns:
        ``validation_loss`` (a mean over all images: none is removed as an outlier), ``lrap`` over
        all classes (as the paper's), ``map`` over the features that an image shows, and
        ``average_precision`` of each class by name, None where no image shows it. Where logits are
        no numbers: the loss alone. Classes that are masked where nobody was asked do not count there.
    """
    is_asked = None if pictures.is_asked is None else torch.from_numpy(pictures.is_asked)
    scores, labels = torch.from_numpy(logits), torch.from_numpy(pictures.labels)
    loss = float(objective.per_image(scores, labels, is_asked).mean())
    if not np.isfinite(logits).all():
        return {"validation_loss": None}
    if pictures.is_asked is not None:  # behind all others, where they count in neither metric
        logits = np.where(pictures.is_asked, logits, logits.min() - 1)
    per_class = average_precisions(pictures.labels, logits)
    features = per_class[[i for i in range(len(taxonomy)) if i not in taxonomy.none_indices]]
    shown = features[~np.isnan(features)]
    return {
        "validation_loss": loss,
        "lrap": lrap(pictures.labels, logits),
        "map": float(shown.mean()) if len(shown) else None,
        "average_precision": {
            name: None if np.isnan(ap) else float(ap)
            for name, ap in zip(taxonomy.class_names, per_class, strict=True)
        },
    }
