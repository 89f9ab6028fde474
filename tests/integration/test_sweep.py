"""Sweeps on a real local Ray: early stopping, failures, what is left, and going on after kills."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from prepared_images import write_coloured_set
from processes import kill_all, kill_once, run_cluster
from rate_sweep import DRIVER, num_epochs_done, outcomes, write_sweep
from typer.testing import CliRunner

from dsdi_ray.cli import app
from dsdi_ray.distributed import sweep, sweep_plan
from dsdi_ray.distributed.sweep import SweepSummary, run_sweep
from dsdi_ray.distributed.sweep_plan import plan_sweep, show_sweep
from dsdi_ray.distributed.sweep_trial import TrialJob
from dsdi_ray.errors import DataError
from dsdi_ray.storage.bundles import read_member_spec
from dsdi_ray.storage.sweep_records import SweepFolder
from dsdi_ray.sweep_config import load_sweep

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured_set(tmp_path_factory.mktemp("data") / "prepared", num_images=200).path


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweeps"))


@pytest.fixture(scope="module")
def pictures_seen() -> dict[str, int]:
    """Names and bytes of decoded pictures in the folder of the unbroken sweep while it ran."""
    return {}


@pytest.fixture(scope="module")
def unbroken(local_ray, data, sweep_file, tmp_path_factory, pictures_seen) -> SweepSummary:
    out = tmp_path_factory.mktemp("unbroken") / "sweep"
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            for path in (out / "decoded").glob("*.npy"):
                with contextlib.suppress(FileNotFoundError):
                    pictures_seen[path.name] = path.stat().st_size

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return run_sweep(load_sweep(sweep_file), data=data, out=out)
    finally:
        is_over.set()
        watcher.join()


def test_a_weak_trial_is_stopped_and_one_that_diverges_is_a_row_with_its_reason(unbroken):
    good, weak, diverging = outcomes(unbroken.out)
    assert [r["status"] for r in (good, weak, diverging)] == ["finished", "stopped", "failed"]
    assert [r["optimizer.lr"] for r in (good, weak, diverging)] == [3e-3, 1e-9, 1e20]
    assert good["epochs"] == 5
    assert weak["epochs"] == 2
    assert weak["reason"] == "after epoch 2 not among the best 1 of 2"
    assert diverging["reason"].startswith("recipe tiny: the loss diverged in epoch 1, step 2")
    assert unbroken.counts == {"finished": 1, "stopped": 1, "failed": 1}
    assert unbroken.best_trial == "0000"
    assert unbroken.best_value == good["metric"] == max(e["lrap"] for e in good["history"])


def test_a_finished_trial_is_a_member_of_its_best_epoch(unbroken):
    good = outcomes(unbroken.out)[0]
    spec = read_member_spec(unbroken.out / good["member"])
    assert unbroken.best_member == unbroken.out / good["member"]
    assert spec.metrics["epoch"] == good["best_epoch"]
    assert spec.recipe["optimizer"]["lr"] == 3e-3


def test_trials_share_one_file_of_decoded_pictures_and_leave_weights_of_members_alone(
    unbroken, pictures_seen
):
    (num_bytes,) = pictures_seen.values()
    assert num_bytes > 200 * 64 * 64 * 3
    assert not (unbroken.out / "decoded").exists()
    weights = {p.relative_to(unbroken.out).parts[:2] for p in unbroken.out.rglob("*.safetensors")}
    assert weights == {("trials", "0000")}
    assert not (unbroken.out / "ray").exists()


def test_the_figures_and_the_page_show_all_trials(unbroken):
    page = (unbroken.out / "index.html").read_text()
    assert all(
        name in page for name in ("0000", "0001", "0002", "optimizer.lr", "the loss diverged")
    )
    assert len(list((unbroken.out / "figures").glob("*.png"))) == 3


def test_a_sweep_that_is_over_is_not_run_again(unbroken, data, sweep_file):
    before = outcomes(unbroken.out)
    started = time.monotonic()
    again = run_sweep(load_sweep(sweep_file), data=data, out=unbroken.out)
    assert time.monotonic() - started < 10
    assert again.num_run == 0
    assert (again.best_trial, again.best_value) == (unbroken.best_trial, unbroken.best_value)
    assert outcomes(unbroken.out) == before


def test_a_trial_on_a_node_that_does_not_see_the_folder_says_so(
    local_ray, data, sweep_file, tmp_path, monkeypatch
):
    """There the sweep's folder is as one that is nowhere."""
    unseen = {"folder": tmp_path / "unseen"}
    monkeypatch.setattr(sweep, "TrialJob", lambda **job: TrialJob(**job | unseen))
    one = load_sweep(sweep_file, ["space={input_px: [64]}"])
    summary = run_sweep(one, data=data, out=tmp_path / "sweep")
    assert summary.counts == {"failed": 1}
    (row,) = outcomes(tmp_path / "sweep")
    assert row["reason"].startswith("the process that drives it failed each time: DataError: ")
    assert f"{tmp_path}/unseen/trials/0000/record.json: is missing, as the node " in row["reason"]


def test_another_sweep_is_refused_for_the_same_folder(unbroken, data, sweep_file):
    other = load_sweep(sweep_file, ["seeds=2"])
    with pytest.raises(DataError, match=r"holds another sweep \(sweep differs\)"):
        run_sweep(other, data=data, out=unbroken.out)


def test_the_plan_counts_trials_and_slots_and_estimates(local_ray, data, sweep_file, tmp_path):
    plan = plan_sweep(load_sweep(sweep_file), data=data, out=tmp_path / "none")
    assert (plan.num_trials, plan.num_waiting, plan.num_slots) == (3, 3, 2)
    assert plan.num_epochs == 15
    assert 0 < plan.estimated_seconds < 600
    assert not (tmp_path / "none").exists()


def test_the_plan_times_trials_on_their_share_of_the_cores_and_workers(
    local_ray, data, sweep_file, tmp_path, monkeypatch
):
    asked = []

    def ten_seconds(recipe, *, data, num_workers, use_gpu, num_runs):
        asked.append((num_workers, num_runs))
        return SimpleNamespace(estimated_seconds=10.0)

    monkeypatch.setattr(sweep_plan, "plan_training", ten_seconds)
    seconds = [
        plan_sweep(
            load_sweep(sweep_file, changes), data=data, out=tmp_path / "none"
        ).estimated_seconds
        for changes in ([], ["resources.workers=2"], ["space={input_px: [64]}"])
    ]
    assert asked == [(1, 2), (2, 1), (1, 2)]
    assert seconds == [15, 30, 10], "one trial takes its time, however many slots there are"


def test_show_lists_the_best_first_from_the_folder_alone(unbroken):
    shown = CliRunner().invoke(app, ["sweep", "show", str(unbroken.out), "--json"])
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)
    assert next(trial["trial"] for trial in told["trials"]) == "0000"
    assert told["counts"] == {"finished": 1, "stopped": 1, "failed": 1}
    table = CliRunner().invoke(app, ["sweep", "show", str(unbroken.out)])
    assert "0000" in table.stdout


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_driver_killed_three_times_repeats_no_trial_that_finished(
    data, unbroken, sweep_file, tmp_path
):
    out, written = tmp_path / "sweep", {}
    for num_epochs in (1, 3, 5):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, sweep_file, data, out], stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 200
            while num_epochs_done(out) < num_epochs and driver.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            kill_all(driver)
        folder = SweepFolder(out)
        for record in folder.records():
            if record.is_over:
                file = folder.trial_folder(record.number) / "record.json"
                written.setdefault(file, file.stat().st_mtime_ns)
    torn = folder.trial_folder(1) / "record.json"  # of a trial that is stopped in the end
    if torn not in written:
        torn.write_text(torn.read_text()[:30])

    run_sweep(load_sweep(sweep_file), data=data, out=out)

    assert outcomes(out) == outcomes(unbroken.out)
    assert {file: file.stat().st_mtime_ns for file in written} == written
    assert show_sweep(out).counts == unbroken.counts


@pytest.mark.nightly
@pytest.mark.parametrize("victim", ["RayTrainWorker", "TrainController", "ImplicitFunc"])
def test_a_killed_process_of_a_trial_changes_nothing(data, unbroken, sweep_file, tmp_path, victim):
    out = tmp_path / "sweep"
    killed = kill_once(victim, when=lambda: num_epochs_done(out) >= 1)
    run_sweep(load_sweep(sweep_file), data=data, out=out)
    assert len(killed) == 1
    assert outcomes(out) == outcomes(unbroken.out)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_node_that_is_lost_changes_nothing(data, unbroken, sweep_file, tmp_path):
    out = tmp_path / "sweep"
    facts = run_cluster("rate_sweep.lose_a_node", sweep_file, data, out)
    assert facts == {"lost": 1, "counts": unbroken.counts}
    assert outcomes(out) == outcomes(unbroken.out)


_ONE_SIZE = """
import json, sys
from pathlib import Path
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed import sweep, sweep_plan
from dsdi_ray.distributed.sweep import run_sweep
from dsdi_ray.distributed.sweep_slots import sweep_slots
from dsdi_ray.errors import ResourceError
from dsdi_ray.sweep_config import Resources, load_sweep

num_cpus, num_gpus = int(sys.argv[4]), int(sys.argv[5])
use_gpu = num_gpus > 0
changes = ["overrides={epochs: 1}", "space={input_px: [64]}", *sys.argv[6:]]
sweep = load_sweep(Path(sys.argv[1]), changes)
slots = []
with ray_session(num_cpus=num_cpus, num_gpus=num_gpus):
    for workers, gpus in ((1, 1.0), (1, 0.5), (1, 0.3), (2, 1.0), (3, 0.5), (5, 0.5)):
        try:
            resources = Resources(workers=workers, gpus_per_worker=gpus)
            slots.append(sweep_slots(resources, use_gpu=use_gpu).num_trials)
        except ResourceError as error:
            slots.append(str(error))
    summary = run_sweep(sweep, data=Path(sys.argv[2]), out=Path(sys.argv[3]), use_gpu=use_gpu)
print(json.dumps([slots, summary.counts]))
"""


def swept_on(
    sweep_file: Path, data: Path, out: Path, *, num_cpus: int, num_gpus: int, changes: str
) -> tuple[list, dict]:
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            _ONE_SIZE,
            sweep_file,
            data,
            out,
            str(num_cpus),
            str(num_gpus),
            changes,
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    slots, counts = json.loads(result.stdout.splitlines()[-1])
    return slots, counts


@pytest.mark.nightly
def test_optuna_leads_a_sweep_once(local_ray, data, sweep_file, tmp_path):
    changes = [
        "search={algorithm: optuna, num_samples: 3, seed: 1}",
        "space={optimizer.lr: {loguniform: [1.0e-4, 1.0e-2]}, loss.gamma: [1.0, 2.0]}",
        "overrides={epochs: 2}",
    ]
    out = tmp_path / "sweep"
    summary = run_sweep(load_sweep(sweep_file, changes), data=data, out=out)
    rows = outcomes(out)
    assert summary.counts["finished"] >= 1
    assert sum(summary.counts.values()) == len(rows) == 3
    assert len({(row["optimizer.lr"], row["loss.gamma"]) for row in rows}) == 3
    assert all(1e-4 <= row["optimizer.lr"] <= 1e-2 for row in rows)
    assert run_sweep(load_sweep(sweep_file, changes), data=data, out=out).num_run == 0


@pytest.mark.nightly
def test_trials_get_parts_of_gpus_and_no_more_than_there_are(data, sweep_file, tmp_path):
    slots, counts = swept_on(
        sweep_file,
        data,
        tmp_path / "sweep",
        num_cpus=1,
        num_gpus=2,
        changes="resources.gpus_per_worker=0.5",
    )
    assert slots[:5] == [2, 4, 6, 1, 1]
    assert slots[5].startswith(
        "a trial needs 5 worker(s) of 0.5 GPU each; the cluster has room for 4"
    )
    assert counts == {"finished": 1}


@pytest.mark.nightly
def test_one_core_runs_a_sweep(data, sweep_file, tmp_path):
    slots, counts = swept_on(
        sweep_file,
        data,
        tmp_path / "sweep",
        num_cpus=1,
        num_gpus=0,
        changes="space={input_px: [64]}",
    )
    assert slots[0] == 1
    assert slots[3].startswith("a trial needs 2 worker(s) of 1 CPU each")
    assert counts == {"finished": 1}
