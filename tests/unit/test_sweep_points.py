"""Optuna's points: conditional on the family, learned from trials that are over, gone on from."""

from dataclasses import replace
from pathlib import Path

import pytest

from dsdi_ray.distributed.sweep_board import SweepBoard
from dsdi_ray.distributed.sweep_points import OptunaPoints, planned_trials
from dsdi_ray.storage.sweep_records import SweepFolder
from dsdi_ray.sweep_config import Sweep, base_recipe, load_sweep

_RECIPE = "name: small\nbackbone: {name: test_resnet, weights: none}\ninput_px: 64\nepochs: 4\n"
_SWEEP = """
name: mine
recipe: small.yaml
space:
  loss.family: [focal, class_balanced]
  loss.beta: {uniform: [0.9, 0.99]}
  optimizer.lr: {loguniform: [1.0e-4, 1.0e-1]}
  input_px: {integer: [64, 130, 32]}
search: {algorithm: optuna, num_samples: 30, seed: 1}
metric: lrap
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    (tmp_path / "small.yaml").write_text(_RECIPE)
    (tmp_path / "sweep.yaml").write_text(_SWEEP)
    return load_sweep(tmp_path / "sweep.yaml")


def begin(sweep: Sweep, out: Path) -> tuple[SweepBoard, OptunaPoints]:
    folder = SweepFolder(out)
    board = SweepBoard(sweep, folder, num_epochs=4)
    for record in folder.records():
        board.add_trial(record)
    return board, OptunaPoints(sweep, base_recipe(sweep), board)


def finish(board: SweepBoard, number: int, out: Path) -> None:
    """A trial whose value is better the closer its learning rate is to 0.01."""
    record = board.records[number]
    value = 1 / (1 + abs(record.point["optimizer.lr"] - 0.01))
    folder = SweepFolder(out)
    folder.write(replace(record, status="finished", history=[{"epoch": 1, "lrap": value}]))
    board.end_trial(number)


def test_points_are_within_the_space_and_keys_of_one_family_are_of_its_trials_alone(
    sweep, tmp_path
):
    board, points = begin(sweep, tmp_path / "out")
    for i in range(30):
        assert points.suggest(f"t{i}") == {"trial": i}
        finish(board, i, tmp_path / "out")
        points.on_trial_complete(f"t{i}")
    assert points.suggest("over") == "FINISHED"
    for record in board.records:
        assert 1e-4 <= record.point["optimizer.lr"] <= 1e-1
        assert record.point["input_px"] in {64, 96, 128}
        is_balanced = record.point["loss.family"] == "class_balanced"
        assert ("loss.beta" in record.point) == is_balanced
        assert record.recipe["loss"]["family"] == record.point["loss.family"]
    late = [abs(record.point["optimizer.lr"] - 0.01) for record in board.records[20:]]
    early = [abs(record.point["optimizer.lr"] - 0.01) for record in board.records[:10]]
    assert sorted(late)[5] < sorted(early)[5], "it learns where values are better"


def test_a_sweep_that_was_cut_off_goes_on_with_its_trials_and_what_was_learned(sweep, tmp_path):
    board, points = begin(sweep, tmp_path / "out")
    for i in range(12):
        points.suggest(f"t{i}")
        if i != 7:
            finish(board, i, tmp_path / "out")
            points.on_trial_complete(f"t{i}")
    again, resumed = begin(sweep, tmp_path / "out")
    assert [record.point for record in again.records] == [r.point for r in board.records]
    assert resumed.suggest("x") == {"trial": 7}, "the one that was cut off comes first"
    assert resumed.suggest("y") == {"trial": 12}
    assert again.records[12].point not in [record.point for record in board.records]
    assert len(SweepFolder(tmp_path / "out").records()) == 13


def test_each_point_is_tried_with_all_seeds(sweep, tmp_path):
    board, points = begin(sweep.model_copy(update={"seeds": 3}), tmp_path / "out")
    for i in range(4):
        points.suggest(f"t{i}")
    assert [record.seed for record in board.records] == [0, 1, 2, 0, 1, 2]
    assert board.records[0].point == board.records[2].point != board.records[3].point
    assert points.num_trials == 90


def test_a_grid_is_planned_whole(sweep):
    grid = sweep.model_copy(
        update={"search": sweep.search.model_copy(update={"algorithm": "grid"})}
    )
    planned = planned_trials(grid, base_recipe(grid))
    assert len(planned) == 60
    assert [record.number for record in planned] == list(range(60))


@pytest.mark.parametrize(
    ("recipe", "best"),
    [
        ({"select": "lrap"}, (2, 0.5)),
        ({"select": "loss"}, (3, 0.2)),
        ({"select": None, "schedule": {"name": "cyclic"}}, (3, 0.2)),
    ],
)
def test_the_value_of_a_trial_is_its_members(sweep, tmp_path, recipe, best):
    board, points = begin(sweep, tmp_path / "out")
    points.suggest("t")
    rows = [(0.3, 3.0), (0.5, 2.0), (0.2, 1.0)]
    history = [
        {"epoch": epoch, "lrap": lrap, "validation_loss": loss}
        for epoch, (lrap, loss) in enumerate(rows, start=1)
    ]
    record = replace(board.records[0], recipe=recipe, history=history)
    found = board.best_of(record)
    assert (found.epoch, found.value) == best
