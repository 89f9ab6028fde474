"""Whatever is killed while a sweep runs, its table comes out as that of an unbroken one."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from prepared_images import write_coloured_set
from processes import kill_all
from rate_sweep import DRIVER, num_epochs_done, outcomes, write_sweep

from dsdi_ray.distributed.sweep import run_sweep
from dsdi_ray.storage.sweep_records import SweepFolder
from dsdi_ray.sweep_config import load_sweep

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured_set(tmp_path_factory.mktemp("data") / "prepared", num_images=200).path


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweeps"))


@pytest.fixture(scope="module")
def unbroken(local_ray, data, sweep_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "sweep"
    run_sweep(load_sweep(sweep_file), data=data, out=out)
    return out


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
                written.setdefault(file, file.read_bytes())

    run_sweep(load_sweep(sweep_file), data=data, out=out)

    assert outcomes(out) == outcomes(unbroken)
    assert {file: file.read_bytes() for file in written} == written


@pytest.mark.parametrize("victim", ["RayTrainWorker", "TrainController", "ImplicitFunc"])
def test_a_killed_process_of_a_trial_changes_nothing(data, unbroken, sweep_file, tmp_path, victim):
    out = tmp_path / "sweep"
    killed = kill_once(victim, when=lambda: num_epochs_done(out) >= 1)
    run_sweep(load_sweep(sweep_file), data=data, out=out)
    assert len(killed) == 1
    assert outcomes(out) == outcomes(unbroken)


def kill_once(victim: str, *, when: Callable[[], bool]) -> list[int]:
    """Kill the first process of an actor's class once a condition holds; its pid, when it was."""
    killed: list[int] = []

    def watch() -> None:
        while not killed:
            time.sleep(0.01)
            if not when():
                continue
            for process in psutil.Process().children(recursive=True):
                if victim in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return

    threading.Thread(target=watch, daemon=True).start()
    return killed
