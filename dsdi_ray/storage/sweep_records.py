"""What a sweep leaves: its plan, a record of each trial, and a table of all.

``sweep.json`` says what is tried on which data. ``trials/NNN/record.json`` is written whole or not
at all: it alone decides what became of a trial, so a sweep that was cut off anywhere goes on from
the records. ``trials.parquet`` is made of them.
"""

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from dsdi_ray.errors import DataError

PLAN_FILE, RECORD_FILE, TABLE_FILE = "sweep.json", "record.json", "trials.parquet"
MEMBER = "member"
Status = Literal["waiting", "finished", "stopped", "failed"]
Row = Mapping[str, Any]

_EPOCH = pa.struct(
    [
        ("epoch", pa.int32()),
        *((name, pa.float64()) for name in ("learning_rate", "train_loss", "validation_loss")),
        *((name, pa.float64()) for name in ("lrap", "map", "images_per_second", "seconds")),
    ]
)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What is known of a trial.

    Attributes:
        number: From 0, in the order in which they are tried.
        point: Dotted key -> value.
        seed: Which of the seeds of the point, from 0.
        recipe: The resolved recipe.
        status: ``waiting`` (to begin, or to go on), ``finished``, ``stopped`` early or ``failed``.
        reason: Why it was stopped or failed.
        history: Metrics of each epoch.
    """

    number: int
    point: Mapping[str, Any]
    seed: int
    recipe: Mapping[str, Any]
    status: Status = "waiting"
    reason: str | None = None
    history: Sequence[Row] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its folder."""
        return trial_name(self.number)

    @property
    def is_over(self) -> bool:
        """Whether it is not to be run (again)."""
        return self.status != "waiting"


class SweepFolder:
    """The folder of one sweep.

    Args:
        path: Where.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Take a folder for a sweep, or go on with the same sweep.

        Raises:
            DataError: If the folder is another sweep's, or no sweep's and not empty.
        """
        file = self.path / PLAN_FILE
        if file.is_file():
            known = self.read_plan()
            if (changed := _changed_key(known, plan)) is not None:
                raise DataError(
                    f"{self.path} holds another sweep ({changed} differs); choose another --out "
                    "or remove it"
                )
            return
        if self.path.exists() and (self.path.is_file() or any(self.path.iterdir())):
            raise DataError(f"{self.path} is not empty and no sweep; choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        _write_json(file, plan)

    def read_plan(self) -> dict[str, Any]:
        """What ``begin`` was given.

        Raises:
            DataError: If it is no folder of a sweep.
        """
        return _read_json(self.path / PLAN_FILE, missing=f"{self.path} is no sweep: no {PLAN_FILE}")

    def trial_folder(self, number: int) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / trial_name(number)

    def member_folder(self, number: int) -> Path:
        """Where the trial's member is when it is finished."""
        return self.trial_folder(number) / MEMBER

    def write(self, record: TrialRecord) -> None:
        """Write a trial's record in place of the one before."""
        folder = self.trial_folder(record.number)
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / RECORD_FILE, asdict(record))

    def read(self, number: int) -> TrialRecord:
        """Read a trial's record.

        Raises:
            DataError: If it cannot be read.
        """
        file = self.trial_folder(number) / RECORD_FILE
        data = _read_json(file, missing=f"{file}: is missing")
        names = {f.name for f in fields(TrialRecord)}
        if not isinstance(data, dict) or set(data) != names:
            raise DataError(f"{file}: is no record of a trial; remove it to run the trial again")
        return TrialRecord(**data)

    def has_record(self, number: int) -> bool:
        """Whether there is a record, be it damaged."""
        return (self.trial_folder(number) / RECORD_FILE).exists()

    def records(self) -> list[TrialRecord]:
        """All records, by number."""
        return [self.read(number) for number in self._numbers()]

    def write_table(self, table: pa.Table) -> Path:
        """Write ``trials.parquet`` in place of the one before."""
        path = self.path / TABLE_FILE
        temporary = _temporary(path)
        pq.write_table(table, temporary)
        temporary.replace(path)
        return path

    def _numbers(self) -> Iterator[int]:
        files = sorted(self.path.glob(f"trials/*/{RECORD_FILE}"))
        return (int(file.parent.name) for file in files if file.parent.name.isdigit())


def trials_table(rows: Sequence[Row], axes: Sequence[str]) -> pa.Table:
    """The table of all trials.

    Args:
        rows: With the names of the columns; ``point`` maps keys to values, ``history`` has the
            metrics of each epoch.
        axes: Dotted keys that get a column each.
    """
    columns: dict[str, pa.Array] = {
        "trial": _column(rows, "trial", pa.int32()),
        "status": _column(rows, "status", pa.string()),
        "reason": _column(rows, "reason", pa.string()),
        "seed": _column(rows, "seed", pa.int32()),
        "metric": _column(rows, "metric", pa.float64()),
        "lrap": _column(rows, "lrap", pa.float64()),
        "map": _column(rows, "map", pa.float64()),
        "validation_loss": _column(rows, "validation_loss", pa.float64()),
        "best_epoch": _column(rows, "best_epoch", pa.int32()),
        "epochs": _column(rows, "epochs", pa.int32()),
        "seconds": _column(rows, "seconds", pa.float64()),
        "member": _column(rows, "member", pa.string()),
    }
    for axis in axes:
        columns[axis] = _axis_column([row["point"].get(axis) for row in rows])
    known = {_EPOCH.field(i).name for i in range(_EPOCH.num_fields)}
    histories = [[{k: v for k, v in e.items() if k in known} for e in r["history"]] for r in rows]
    columns["recipe"] = pa.array([json.dumps(row["recipe"]) for row in rows], pa.string())
    columns["history"] = pa.array(histories, pa.list_(_EPOCH))
    return pa.table(columns)


def trial_name(number: int) -> str:
    """Of a trial's folder."""
    return f"{number:04}"


def _column(rows: Sequence[Row], name: str, kind: pa.DataType) -> pa.Array:
    return pa.array([row[name] for row in rows], kind)


def _axis_column(values: Sequence[Any]) -> pa.Array:
    """Numbers where all are; else text."""
    given = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in given):
        return pa.array(values, pa.bool_())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in given):
        kind = pa.int64() if all(isinstance(value, int) for value in given) else pa.float64()
        return pa.array(values, kind)
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _changed_key(known: Mapping[str, Any], plan: Mapping[str, Any]) -> str | None:
    plain = json.loads(json.dumps(plan))
    return next((k for k in sorted({*known, *plain}) if known.get(k) != plain.get(k)), None)


def _read_json(file: Path, *, missing: str) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(missing) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    return data


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    temporary = _temporary(file)
    with temporary.open("w", encoding="utf-8") as opened:
        json.dump(content, opened, indent=1)
        opened.flush()
        os.fsync(opened.fileno())
    temporary.replace(file)


def _temporary(file: Path) -> Path:
    return file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.tmp")
