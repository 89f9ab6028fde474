import importlib.util
import json
import sys
import time
from types import SimpleNamespace

import pytest

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.train_progress import follow
from dsdi_ray.errors import ResourceError

RECIPE = Recipe.model_validate({"name": "tiny", "backbone": {"name": "x"}, "epochs": 3})
ROWS = [
    {
        "epoch": epoch,
        "train_loss": 1.0 / epoch,
        "lrap": 0.5,
        "map": None,
        "average_precision": {"red": 0.25, "green": None},
        "images_per_second": 1234.5,
        "seconds": 2.0,
    }
    for epoch in (1, 2, 3)
]


@pytest.fixture
def history(tmp_path):
    return tmp_path / "run" / "history.jsonl"


def write(history, num_epochs):
    """As the first worker does: the whole file, in place of the one that may be there."""
    history.parent.mkdir(exist_ok=True)
    history.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS[:num_epochs]))


def events(history):
    (file,) = (history.parent / "tensorboard").iterdir()
    return file.read_bytes()


def test_each_epoch_is_a_line_as_it_ends(history, capsys):
    with follow(RECIPE, history):
        write(history, 1)
        deadline = time.monotonic() + 20
        shown = ""
        while "tiny 1/3" not in shown:
            assert time.monotonic() < deadline
            shown += capsys.readouterr().err
            time.sleep(0.05)
        write(history, 3)
    shown += capsys.readouterr().err
    lines = [line for line in shown.splitlines() if "images/s" in line]
    assert len(lines) == 3
    assert "tiny 2/3  loss 0.500  LRAP 0.500  mAP -  1,234 images/s  2.0 s" in lines[1]


def test_a_run_that_resumes_shows_new_epochs_and_records_all(history, capsys):
    write(history, 2)
    with follow(RECIPE, history):
        write(history, 3)
    shown = capsys.readouterr().err
    assert "tiny 3/3" in shown
    assert "tiny 2/3" not in shown
    content = events(history)
    assert content.count(b"train_loss") == 3
    assert content.count(b"average_precision/red") == 3
    assert b"average_precision/green" not in content


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="MLflow is installed")
def test_mlflow_is_asked_for_and_not_installed(history, tmp_path):
    write(history, 1)
    with (
        pytest.raises(ResourceError, match="not installed: pip install mlflow"),
        follow(RECIPE, history, mlflow=str(tmp_path / "mlruns")),
    ):
        pass


def test_mlflow_records_each_epoch_once(history, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path / "mlruns"
    for num_epochs in (2, 3):
        write(history, num_epochs)
        with follow(RECIPE, history, mlflow=str(folder)):
            pass
    client = mlflow.MlflowClient(tracking_uri=folder.as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("dsdi_ray").experiment_id])
    assert run.info.run_name == "tiny"
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in losses] == [(r["epoch"], r["train_loss"]) for r in ROWS]


class FakeMlflowError(Exception):
    pass


class FakeMlflow:
    """A server where another trial makes the experiment in the moment that it is asked for."""

    def __init__(self, *, refuses_metrics=False):
        self.experiment = None
        self.refuses_metrics = refuses_metrics
        self.logged = []

    def get_experiment_by_name(self, name):
        return self.experiment

    def create_experiment(self, name):
        self.experiment = SimpleNamespace(experiment_id="7")
        raise FakeMlflowError(f"Experiment {name!r} already exists.")

    def create_run(self, experiment_id, run_name):
        assert experiment_id == "7"
        return SimpleNamespace(info=SimpleNamespace(run_id="run"))

    def log_dict(self, run_id, dictionary, file):
        pass

    def get_metric_history(self, run_id, name):
        return []

    def log_metric(self, run_id, name, value, step):
        if self.refuses_metrics:
            raise FakeMlflowError("no more connections")
        self.logged.append((name, step))

    def set_terminated(self, run_id):
        if self.refuses_metrics:
            raise FakeMlflowError("no more connections")


@pytest.fixture
def installed(monkeypatch):
    """Installs a fake server as MLflow."""

    def install(server):
        package = SimpleNamespace(MlflowClient=lambda tracking_uri: server)
        exceptions = SimpleNamespace(MlflowException=FakeMlflowError)
        monkeypatch.setitem(sys.modules, "mlflow", package)
        monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
        return server

    return install


def test_trials_that_begin_together_share_the_experiment_that_one_of_them_makes(history, installed):
    server = installed(FakeMlflow())
    with follow(RECIPE, history, mlflow="http://tracking"):
        write(history, 3)
    assert [step for name, step in server.logged if name == "train_loss"] == [1, 2, 3]


def test_an_mlflow_that_fails_is_told_of_once_and_ends_neither_epochs_nor_training(
    history, installed, capsys
):
    installed(FakeMlflow(refuses_metrics=True))
    write(history, 1)
    told = []
    with follow(RECIPE, history, mlflow="http://tracking", on_epoch=told.append):
        write(history, 3)
    assert [row["epoch"] for row in told] == [1, 2, 3]
    shown = capsys.readouterr().err
    assert shown.count("MLflow at http://tracking records no further epochs") == 1
    assert "no more connections" in shown
    assert "tiny 3/3" in shown
