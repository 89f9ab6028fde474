import json

import pyarrow.parquet as pq
import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.storage.sweep_records import SweepFolder, TrialRecord, trials_table

PLAN = {"format": 1, "sweep": {"name": "mine"}, "recipe": {"epochs": 3}}


def record(number: int, **changes: object) -> TrialRecord:
    point = {"loss.family": "focal", "loss.gamma": 1.0 + number}
    return TrialRecord(number=number, point=point, seed=0, recipe={"epochs": 3}, **changes)


def test_records_are_read_as_they_were_written_by_number(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(PLAN)
    written = [record(n, status="finished", history=[{"epoch": 1, "lrap": 0.5}]) for n in (2, 0, 1)]
    for one in written:
        folder.write(one)
    assert folder.records() == sorted(written, key=lambda one: one.number)


def test_a_folder_is_gone_on_with_for_the_same_plan_alone(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(PLAN)
    folder.begin(PLAN)
    with pytest.raises(DataError, match=r"holds another sweep \(recipe differs\)"):
        folder.begin(PLAN | {"recipe": {"epochs": 4}})


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and no sweep"):
        SweepFolder(tmp_path).begin(PLAN)
    with pytest.raises(DataError, match="is no sweep"):
        SweepFolder(tmp_path).read_plan()


def test_a_damaged_record_is_an_error_that_names_its_file(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(PLAN)
    folder.write(record(0))
    file = folder.trial_folder(0) / "record.json"
    file.write_text(file.read_text()[:20])
    with pytest.raises(DataError, match=r"0000/record.json: cannot be read"):
        folder.read(0)
    file.write_text(json.dumps({"number": 0}))
    with pytest.raises(DataError, match="is no record of a trial"):
        folder.read(0)


def test_the_table_has_a_column_of_its_own_kind_for_each_axis(tmp_path):
    rows = [
        {
            "trial": n,
            "status": "finished",
            "reason": None,
            "seed": 0,
            "metric": 0.5,
            "lrap": 0.5,
            "map": None,
            "validation_loss": 1.0,
            "best_epoch": 2,
            "epochs": 3,
            "seconds": 1.5,
            "member": None,
            "point": point,
            "recipe": {"epochs": 3},
            "history": [{"epoch": 1, "lrap": 0.4, "average_precision": {"a": 1.0}}],
        }
        for n, point in enumerate([{"a": 1, "b": "x"}, {"a": 2.5, "b": 3}, {"a": None}])
    ]
    folder = SweepFolder(tmp_path)
    table = pq.read_table(folder.write_table(trials_table(rows, ["a", "b"])))
    assert table["a"].to_pylist() == [1.0, 2.5, None]
    assert table["b"].to_pylist() == ["x", "3", None]
    assert table["history"][0].as_py()[0]["lrap"] == 0.4
