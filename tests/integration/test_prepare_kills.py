"""A preparation whose driver or workers are killed ends as one that nobody touched."""

import io
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from test_kills import wait_for

from dsdi_ray.distributed import prepare_tasks
from dsdi_ray.distributed.prepare import PrepareSummary, prepare_set
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.storage.prepared import PreparedSet
from dsdi_ray.taxonomy import load_taxonomy

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

NUM_IMAGES, IMAGES_PER_FILE = 60, 4


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_tasks, "_IMAGES_PER_FILE", IMAGES_PER_FILE)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images and their answers."""
    root = tmp_path_factory.mktemp("crowd")
    random = np.random.default_rng(0)
    lines = ["url\tWorkerId\tAnswer"]
    jpegs = []
    for _ in range(4):
        noise = random.integers(0, 255, (1000, 1500, 3), dtype=np.uint8)
        jpegs.append(io.BytesIO())
        Image.fromarray(noise).resize((3000, 2000)).save(jpegs[-1], "JPEG")
    for i in range(NUM_IMAGES):  # each a file of its own: what follows a JPEG's end is not read
        (root / f"{i:03d}.jpg").write_bytes(jpegs[i % 4].getvalue() + b"%d" % i)
        lines.append(f"https://host/{i:03d}.jpg\tW1\t['damage:flood/water']")
    (root / "answers.tsv").write_text("\n".join(lines))
    return root


def prepare(crowd: Path, out: Path) -> PrepareSummary:
    return prepare_set(
        crowd / "answers.tsv", images=[crowd], out=out, taxonomy=load_taxonomy("ladi_v1")
    )


def prepare_until_killed(crowd: str, out: str) -> None:
    """What the driver that is killed runs."""
    prepare_tasks._IMAGES_PER_FILE = IMAGES_PER_FILE
    with ray_session(num_cpus=2, has_state_api=False):
        prepare(Path(crowd), Path(out))


@pytest.fixture(scope="module")
def undisturbed(
    crowd: Path, local_ray: None, tmp_path_factory: pytest.TempPathFactory
) -> PrepareSummary:
    return prepare(crowd, tmp_path_factory.mktemp("undisturbed") / "set")


def test_a_killed_driver_resumes_after_the_parts_that_are_complete(
    crowd: Path, undisturbed: PrepareSummary, tmp_path: Path
) -> None:
    code = "import sys, test_prepare_kills as t; t.prepare_until_killed(*sys.argv[1:])"
    driver = subprocess.Popen(
        [sys.executable, "-c", code, crowd, tmp_path / "set"], cwd=Path(__file__).parent
    )
    try:
        wait_for(lambda: any(tmp_path.glob(".set.*/outcomes-*")), seconds=100)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert not (tmp_path / "set").exists()
    resumed = prepare(crowd, tmp_path / "set")
    assert 0 < resumed.num_done_before < NUM_IMAGES
    assert resumed.prepared_id == undisturbed.prepared_id
    tables = [PreparedSet.open(s.out).read() for s in (resumed, undisturbed)]
    assert tables[0].equals(tables[1])
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert not list((tmp_path / "set").glob("outcomes-*"))


def test_killed_workers_cost_nothing_but_time(
    crowd: Path, undisturbed: PrepareSummary, tmp_path: Path
) -> None:
    found: list[PrepareSummary] = []
    job = threading.Thread(target=lambda: found.append(prepare(crowd, tmp_path / "set")))
    job.start()
    num_killed = 0
    while job.is_alive() and num_killed < 2:
        for worker in workers_at_work():
            worker.kill()
            num_killed += 1
        job.join(timeout=0.02)
    job.join()
    assert num_killed
    assert found[0].prepared_id == undisturbed.prepared_id


def workers_at_work() -> Iterator[psutil.Process]:
    for process in psutil.Process().children(recursive=True):
        try:
            if "store_part" in "".join(process.cmdline()):
                yield process
        except psutil.NoSuchProcess:
            continue
