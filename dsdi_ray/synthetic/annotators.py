"""Simulated crowd workers who label pictures as LADI's did: one category a task, with mistakes.

Workers differ in skill. They overlook what is small, take one class for another that looks alike,
and now and then add a label that has no ground. Answers are LADI v1's raw strings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dsdi_ray.synthetic.materials import MIN_FRACTION, scene_taxonomy, visible_features
from dsdi_ray.taxonomy import TaxonomyClass

# How often a picture is put to workers for each category.
_ASKED: Mapping[str, float] = {
    "damage": 0.95,
    "environment": 0.75,
    "infrastructure": 0.80,
    "vehicle": 0.70,
    "water": 0.75,
}
# What a class is taken for, within its category.
_CONFUSED_WITH: Mapping[str, tuple[str, ...]] = {
    "damage (misc)": ("rubble / debris",),
    "rubble / debris": ("damage (misc)",),
    "landslide": ("damage (misc)", "road washout"),
    "road washout": ("landslide", "flooding / water damage"),
    "smoke / fire": ("damage (misc)",),
    "grass": ("shrubs", "trees"),
    "shrubs": ("trees", "grass"),
    "trees": ("shrubs",),
    "dirt": ("sand", "rocks"),
    "sand": ("dirt",),
    "rocks": ("dirt", "lava"),
    "snow/ice": ("sand",),
    "bridge": ("road",),
    "railway": ("road",),
    "pipes": ("railway", "utility or power lines / electric towers"),
    "water tower": ("wireless / radio communication towers", "building"),
    "wireless / radio communication towers": ("utility or power lines / electric towers",),
    "utility or power lines / electric towers": ("wireless / radio communication towers",),
    "dam / levee": ("bridge", "road"),
    "car": ("truck",),
    "truck": ("car",),
    "flooding": ("lake / pond", "river / stream", "puddle"),
    "lake / pond": ("river / stream", "flooding"),
    "river / stream": ("lake / pond", "flooding"),
    "ocean": ("lake / pond",),
    "puddle": ("flooding", "lake / pond"),
}
# Harmless water that is reported as damage.
_LOOKS_FLOODED = ("lake / pond", "river / stream", "puddle")
_CLEARLY_SEEN = 2.0  # times the threshold: from there on a class is no longer small


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker's habits, as probabilities per class seen or per answer.

    Attributes:
        worker_id: As in LADI's files.
        miss: Overlooking a class that is plain to see.
        confuse: Naming a class that looks alike instead.
        invent: Adding a label without ground.
    """

    worker_id: str
    miss: float
    confuse: float
    invent: float


def hire_workers(rng: np.random.Generator, num_workers: int = 60) -> list[Worker]:
    """Sample workers: most are careful, some are not."""
    letters = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    return [
        Worker(
            worker_id="A" + "".join(rng.choice(letters, 13).tolist()),
            miss=float(rng.beta(2, 14)),
            confuse=float(rng.beta(1.5, 22)),
            invent=float(rng.beta(1.5, 26)),
        )
        for _ in range(num_workers)
    ]


def answer(
    rng: np.random.Generator, worker: Worker, category: str, fractions: Mapping[str, float]
) -> list[str]:
    """One worker's answer to one task.

    Args:
        rng: Source of randomness.
        worker: Who answers.
        category: What is asked about.
        fractions: Part of the picture that each class fills.

    Returns:
        Raw strings, at least one; the none-class's where the worker sees nothing.
    """
    classes = [c for c in scene_taxonomy().classes if c.category == category]
    visible = visible_features(fractions)
    named: list[str] = []
    for c in classes:
        if c.name not in visible:
            continue
        size = fractions[c.name] / MIN_FRACTION[c.name]
        if rng.random() < worker.miss + 0.22 * max(0.0, 1 - size / _CLEARLY_SEEN):
            continue
        alike = _CONFUSED_WITH.get(c.name, ())
        mistaken = bool(alike) and rng.random() < worker.confuse
        named.append(alike[int(rng.integers(len(alike)))] if mistaken else c.name)
    flooded = "flooding / water damage"
    is_harmless = flooded not in visible and any(name in visible for name in _LOOKS_FLOODED)
    if category == "damage" and is_harmless and rng.random() < 2 * worker.confuse:
        named.append(flooded)
    if rng.random() < worker.invent:
        weights = np.sqrt([0 if c.is_none else c.count or 1 for c in classes])
        named.append(classes[int(rng.choice(len(classes), p=weights / weights.sum()))].name)
    chosen = [c for c in classes if c.name in named] or [c for c in classes if c.is_none]
    return [_raw_string(c) for c in chosen]


def ask_crowd(
    rng: np.random.Generator, workers: Sequence[Worker], fractions: Mapping[str, float]
) -> list[tuple[str, list[str]]]:
    """Put one picture to the crowd: some categories, three to five workers each.

    Returns:
        Worker id and answer of each task, in order; a category without a task was not asked.
    """
    rows: list[tuple[str, list[str]]] = []
    for category, share in _ASKED.items():
        if rng.random() >= share:
            continue
        hired = rng.choice(len(workers), size=int(rng.integers(3, 6)), replace=False)
        rows += [
            (worker.worker_id, answer(rng, worker, category, fractions))
            for worker in (workers[i] for i in hired.tolist())
        ]
    return rows


def _raw_string(c: TaxonomyClass) -> str:
    return c.aliases[0] if c.aliases else c.name
