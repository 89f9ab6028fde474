"""Between Ray Tune and a sweep's records: epochs come in, trials are stopped, a line shows it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from dsdi_ray.distributed.sweep_board import SweepBoard
from dsdi_ray.progress import print_line
from dsdi_ray.storage.sweep_records import TrialRecord
from dsdi_ray.sweep_config import say_point


class InThisProcess:
    """Left out of the state that Ray Tune pickles, which a sweep does not go on from."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class SweepProgress(InThisProcess, Callback):
    """Hands epochs to the board, which stops trials; writes the table; shows how the sweep stands.

    Ray Tune itself stops no trial, see :func:`dsdi_ray.distributed.sweep_trial.stop_trial`.

    Args:
        board: Of the sweep.
        bar: Of epochs, see :func:`dsdi_ray.progress.progress_bar`.
        write_table: Called whenever a trial is over.
    """

    def __init__(self, board: SweepBoard, bar: Any, write_table: Callable[[], object]) -> None:
        self._board = board
        self._bar = bar
        self._write_table = write_table
        self._running: set[int] = set()
        self._told: set[int] = {record.number for record in board.records if record.is_over}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or begins again after its process died."""
        self._running.add(trial.config["trial"])
        self._tell()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has trained an epoch, or tells of one again as it goes on."""
        if self._board.add_epoch(trial.config["trial"], result):
            self.update()
            self._bar.update(1)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is over, or was stopped."""
        number = trial.config["trial"]
        self._running.discard(number)
        if self._board.stop_epoch(number) is None:
            self._board.end_trial(number)
        self.update()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The process that drives a trial failed more often than is put up with."""
        number = trial.config["trial"]
        self._running.discard(number)
        reason = f"the process that drives it failed each time{_last_error(trial)}"
        self._board.fail_trial(number, reason=reason)
        self.update()

    def update(self) -> None:
        """Record and tell what has ended, and what was stopped in hindsight."""
        self._board.stop_trials()
        new = [r for r in self._board.records if r.is_over and r.number not in self._told]
        for record in new:
            self._told.add(record.number)
            print_line(self._line(record))
        if new:
            self._write_table()
        self._tell()

    def _tell(self) -> None:
        """Put on the line how the sweep stands; it is redrawn at its next turn."""
        records = self._board.records
        counts = Counter(record.status for record in records)
        best = self._board.best_trial()
        value = self._board.best_of(best) if best else None
        facts = [
            f"best {value.value:.4f} (trial {best.name})" if best and value else "no value yet"
        ]
        running = [n for n in self._running if not records[n].is_over]
        facts.append(f"{len(running)} running")
        facts += [f"{counts[s]} {s}" for s in ("finished", "stopped", "failed") if counts[s]]
        # What is stopped trains no further: it leaves the epochs that are still to come.
        self._bar.total = self._bar.n + sum(
            max(0, record.recipe["epochs"] - len(record.history))
            for record in records
            if not record.is_over
        )
        self._bar.set_postfix_str(", ".join(facts), refresh=False)

    def _line(self, record: TrialRecord) -> str:
        best = self._board.best_of(record)
        value = "no value" if best is None else f"{best.value:.4f} at epoch {best.epoch}"
        reason = f" ({record.reason})" if record.reason else ""
        place = f"trial {record.name} {record.status}{reason}: {value}"
        return f"{place}; {say_point(record.point)}, seed {record.seed}"


def _last_error(trial: Any) -> str:
    """The end of what a trial's process failed with. Ray's get_error has it later, or never."""
    path = Path(trial.error_file) if trial.error_file else None
    lines = path.read_text("utf-8").split("\n") if path and path.is_file() else []
    said = [line.strip() for line in lines if line.strip()]
    return f": {said[-1].removeprefix('dsdi_ray.errors.')[:500]}" if said else ""
