"""What a selection came to, in files beside ``ensemble.yaml``.

``selection.json`` has all of it, ``selection.parquet`` the steps, a row each.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dsdi_ray.storage.filesystems import write_bytes

JSON_FILE, STEPS_FILE = "selection.json", "selection.parquet"
STEPS_SCHEMA = pa.schema(
    [
        ("bag", pa.int32()),  # from 1
        ("step", pa.int32()),  # from 1 in each bag
        ("member", pa.string()),
        ("member_id", pa.string()),
        ("selecting", pa.float64()),
        ("held_back", pa.float64()),
        ("gain", pa.float64()),  # of selecting; null at a bag's first step
        ("is_kept", pa.bool_()),  # false: the bag's best ensemble was an earlier one
    ]
)


@dataclass(frozen=True, kw_only=True)
class ReportedStep:
    """A member that was added; see :data:`STEPS_SCHEMA`."""

    bag: int
    step: int
    member: str
    member_id: str
    selecting: float
    held_back: float
    gain: float | None
    is_kept: bool


@dataclass(frozen=True, kw_only=True)
class ComparedSystem:
    """A system, and its metric on the half that was chosen on and on the half held back."""

    system: str
    selecting: float
    held_back: float


@dataclass(frozen=True, kw_only=True)
class ChosenMember:
    """A member of the ensemble, and its metric by itself on both halves."""

    member: str
    member_id: str
    path: str
    weight: float
    selecting: float
    held_back: float


@dataclass(frozen=True, kw_only=True)
class SelectionReport:
    """What a selection came to.

    Attributes:
        out: The ensemble's folder.
        settings: Metric, weights, size, and what else decided it.
        num_members: That were chosen from.
        left_out: Bundles that could not be chosen, each with the reason.
        num_selecting: Images that were chosen on.
        num_held_back: Images that were held back.
        divided_by: What was kept on one side: ``group`` or ``image``.
        steps: How it came about.
        compared: The best single member, the equal mean of all, and the ensemble.
        chosen: Its members, in the library's order.
        correlation: Of their logits, ``[K, K]``; None where a member's do not vary.
        beats_best_single: Whether the ensemble does better than the best single member on the
            images held back.
        notes: What a reader should know.
        refitted: The members of the ensemble after a refit: folder and weight.
    """

    out: Path
    settings: Mapping[str, Any]
    num_members: int
    left_out: Sequence[tuple[str, str]]
    num_selecting: int
    num_held_back: int
    divided_by: str
    steps: Sequence[ReportedStep]
    compared: Sequence[ComparedSystem]
    chosen: Sequence[ChosenMember]
    correlation: Sequence[Sequence[float | None]]
    beats_best_single: bool
    notes: Sequence[str]
    refitted: Sequence[tuple[str, float]] = ()


def write_selection(report: SelectionReport) -> None:
    """Write both files into the ensemble's folder; each is there whole or not at all."""
    text = json.dumps(asdict(report), indent=1, default=str, allow_nan=False)
    write_bytes(report.out / JSON_FILE, f"{text}\n".encode())
    content = pa.BufferOutputStream()
    table = pa.Table.from_pylist([asdict(step) for step in report.steps], schema=STEPS_SCHEMA)
    pq.write_table(table, content, compression="zstd")
    write_bytes(report.out / STEPS_FILE, content.getvalue())


def finite_or_none(values: Sequence[Sequence[float]]) -> list[list[float | None]]:
    """JSON has no NaN."""
    return [[value if math.isfinite(value) else None for value in row] for row in values]
