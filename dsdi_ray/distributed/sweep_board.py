"""What a running sweep knows of its trials, and whom it stops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsdi_ray.distributed.sweep_trial import latest_history, stop_trial
from dsdi_ray.errors import DataError
from dsdi_ray.method.epoch_selection import METRICS, selected_epoch
from dsdi_ray.method.halving import TrialProgress, rungs, stop_epochs
from dsdi_ray.progress import print_line
from dsdi_ray.storage.sweep_records import SweepFolder, TrialRecord
from dsdi_ray.sweep_config import Sweep

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The epoch that a trial's member is of.

    Attributes:
        epoch: From 1.
        value: The sweep's metric there.
    """

    epoch: int
    value: float


class SweepBoard:
    """The records of a sweep and the epochs that come in.

    Args:
        sweep: What is tried.
        folder: Where its records are.
        num_epochs: Of a whole trial.

    Attributes:
        key: Of the sweep's metric in an epoch's row.
    """

    def __init__(self, sweep: Sweep, folder: SweepFolder, *, num_epochs: int) -> None:
        self._folder = folder
        self.key, self._sign = METRICS[sweep.metric]
        self._records: list[TrialRecord] = []
        self._rungs: list[int] = []
        self._factor = 1.0
        self.num_epochs = num_epochs
        if sweep.early_stopping is not None:
            self._factor = sweep.early_stopping.reduction_factor
            self._rungs = rungs(
                num_epochs,
                grace_epochs=sweep.early_stopping.grace_epochs,
                reduction_factor=self._factor,
            )

    @property
    def records(self) -> Sequence[TrialRecord]:
        """All trials, by number, with the epochs that are known and count."""
        return self._records

    def add_trial(self, planned: TrialRecord, *, retry: bool = False) -> None:
        """Take a trial up: as its record says, or as planned where there is none.

        Args:
            planned: Waiting.
            retry: Whether one that failed is to be run again.
        """
        number = planned.number
        assert number == len(self._records)
        try:
            record = self._folder.read(number)
        except DataError as error:
            if self._folder.has_record(number):
                print_line(f"trial {planned.name}: {error}; its record is made anew")
            record = planned
            self._folder.write(record)
        if record.status == "failed" and retry:
            record = replace(planned, history=[])
            self._folder.write(record)
        if not record.is_over:
            record = replace(record, history=latest_history(self._folder, record))
        self._records.append(record)

    def add_epoch(self, number: int, row: Row) -> bool:
        """Take the metrics of an epoch up; returns whether they are new and count."""
        record = self._records[number]
        # A trial that was stopped counts no more; one that goes on tells of its epochs again.
        if record.is_over or any(row["epoch"] == known["epoch"] for known in record.history):
            return False
        self._records[number] = replace(record, history=[*record.history, dict(row)])
        return True

    def end_trial(self, number: int) -> None:
        """Read what became of a trial that ended by itself."""
        self._records[number] = self._folder.read(number)

    def fail_trial(self, number: int, *, reason: str) -> None:
        """Record that a trial failed."""
        record = replace(self._records[number], status="failed", reason=reason)
        self._folder.write(record)
        self._records[number] = record

    def stop_epoch(self, number: int) -> int | None:
        """The epoch at which a trial is stopped, None while it goes on."""
        return self._stop_epochs()[number]

    def stop_trials(self) -> None:
        """Stop those that are to be stopped and are not yet."""
        for number, epoch in enumerate(self._stop_epochs()):
            record = self._records[number]
            if epoch is None or record.status in {"stopped", "failed"}:
                continue
            # What Ray Tune was told of an epoch is a part of what is on disk.
            history = latest_history(self._folder, record) or record.history
            rows = [row for row in history if row["epoch"] <= epoch]
            reason = f"after epoch {epoch} not among the best 1 of {self._factor:g}"
            record = replace(record, status="stopped", reason=reason, history=rows)
            self._folder.write(record)
            self._records[number] = record
            stop_trial(self._folder, number)

    def best_of(self, record: TrialRecord) -> Best | None:
        """The epoch whose weights are a trial's member, as far as it has come, and its value."""
        if not record.history:
            return None
        # A trial's recipe names none where its schedule is cyclic alone.
        epoch = selected_epoch(record.history, record.recipe.get("select") or "last")
        (value,) = [row.get(self.key) for row in record.history if row["epoch"] == epoch]
        return None if value is None else Best(epoch=epoch, value=value)

    def rank_of(self, record: TrialRecord) -> float:
        """Higher is better; without a value it is the worst."""
        best = self.best_of(record)
        return float("-inf") if best is None else self._sign * best.value

    def best_trial(self) -> TrialRecord | None:
        """The best of all that have a value; of equals the first."""
        rated = [record for record in self._records if self.best_of(record) is not None]
        return max(rated, key=self.rank_of, default=None)

    def _stop_epochs(self) -> list[int | None]:
        trials = [
            TrialProgress(values=self._best_so_far(record), has_ended=record.is_over)
            for record in self._records
        ]
        return stop_epochs(trials, self._rungs, reduction_factor=self._factor)

    def _best_so_far(self, record: TrialRecord) -> dict[int, float | None]:
        best: float | None = None
        values: dict[int, float | None] = {}
        for row in record.history:
            value = row.get(self.key)
            if value is not None:
                best = self._sign * value if best is None else max(best, self._sign * value)
            values[row["epoch"]] = best
        return values
