"""Which trials a sweep has: all at once, or one after the other as Optuna proposes them."""

from collections.abc import Mapping
from typing import Any

from ray.tune.search import Searcher

from dsdi_ray.distributed.sweep_board import SweepBoard
from dsdi_ray.distributed.sweep_progress import InThisProcess
from dsdi_ray.distributed.train import starting_weights
from dsdi_ray.errors import ResourceError
from dsdi_ray.storage.sweep_records import TrialRecord
from dsdi_ray.sweep_config import (
    Axis,
    Point,
    Scalar,
    Sweep,
    family_of,
    is_of_family,
    points,
    trial_recipe,
)


def planned_trials(sweep: Sweep, base: Mapping[str, Any]) -> list[TrialRecord]:
    """All trials of a search by grid or at random; the seeds of a point follow each other.

    Raises:
        ConfigError: If the recipe of a trial is none.
    """
    found: list[TrialRecord] = []
    for point in points(sweep, base):
        for seed in range(sweep.seeds):
            found.append(_planned(len(found), sweep, base, point, seed=seed))
    return found


def _planned(
    number: int, sweep: Sweep, base: Mapping[str, Any], point: Point, *, seed: int
) -> TrialRecord:
    recipe = trial_recipe(sweep, base, point, seed=seed)
    resolved = recipe.model_dump(mode="json")
    resolved["backbone"]["weights"] = starting_weights(recipe)  # trials run in folders of their own
    return TrialRecord(number=number, point=dict(point), seed=seed, recipe=resolved)


class OptunaPoints(InThisProcess, Searcher):
    """Asks Optuna for the next point once trials before it are over.

    What Optuna learned is rebuilt from the records, so a sweep that was cut off goes on. Which
    trials are over when the next is asked for depends on how long each takes; so do the points.

    Args:
        sweep: What is tried.
        base: The recipe that all trials start from.
        board: Which has the trials of a sweep that was cut off already.

    Raises:
        ResourceError: If Optuna is not installed.
    """

    def __init__(self, sweep: Sweep, base: Mapping[str, Any], board: SweepBoard) -> None:
        super().__init__(metric=sweep.metric, mode="min" if sweep.metric == "loss" else "max")
        try:
            import optuna
        except ImportError as error:
            raise ResourceError(
                "search.algorithm: optuna is not installed: pip install optuna"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._sweep, self._base, self._board = sweep, base, board
        self._study = optuna.create_study(
            direction="minimize" if sweep.metric == "loss" else "maximize",
            # Not the stream that gave the points which are there already.
            sampler=optuna.samplers.TPESampler(
                seed=sweep.search.seed + len(board.records), multivariate=False
            ),
        )
        self._waiting = [record.number for record in board.records if not record.is_over]
        self._asked: dict[str, int] = {}
        for record in board.records:
            if record.is_over:
                self._tell(record)

    @property
    def num_trials(self) -> int:
        """In all."""
        return self._sweep.search.num_samples * self._sweep.seeds

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial: one that was cut off, or a new one."""
        if self._waiting:
            number = self._waiting.pop(0)
        elif len(self._board.records) < self.num_trials:
            number = self._add_point()
        else:
            return str(Searcher.FINISHED)
        self._asked[trial_id] = number
        return {"trial": number}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna what a trial came to."""
        self._tell(self._board.records[self._asked.pop(trial_id)])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are what is gone on from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see ``save``."""

    def _add_point(self) -> int:
        """Plan the trials of a new point; returns the first, the others wait."""
        trial = self._study.ask({k: self._distribution(a) for k, a in self._sweep.space.items()})
        point: dict[str, Scalar] = {}
        for key in self._sweep.space:
            if is_of_family(key, family_of(point, self._base)):
                point[key] = trial.params[key]
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)  # told by its values
        first = len(self._board.records)
        for seed in range(self._sweep.seeds):
            planned = _planned(first + seed, self._sweep, self._base, point, seed=seed)
            self._board.add_trial(planned)
            self._waiting.append(first + seed)
        return self._waiting.pop(0)

    def _tell(self, record: TrialRecord) -> None:
        best = self._board.best_of(record)
        if best is None:
            return
        distributions = {key: self._distribution(self._sweep.space[key]) for key in record.point}
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params=dict(record.point), distributions=distributions, value=best.value
            )
        )

    def _distribution(self, axis: Axis) -> Any:
        distributions = self._optuna.distributions
        if axis.values is not None:
            return distributions.CategoricalDistribution(axis.values)
        if axis.integer is not None:
            low, high = axis.integer[:2]
            return distributions.IntDistribution(
                low, high - (high - low) % axis.step, step=axis.step
            )
        if axis.loguniform is not None:
            return distributions.FloatDistribution(*axis.loguniform, log=True)
        assert axis.uniform is not None
        return distributions.FloatDistribution(*axis.uniform)
