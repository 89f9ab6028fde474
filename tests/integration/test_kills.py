"""Whatever is killed while an archive is scored, the store comes out as if nothing had been."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from footage import COLOURS, make_member, write_clip
from PIL import Image
from processes import node_of, run_cluster

from dsdi_ray.distributed.index import index_archive, load_archive
from dsdi_ray.distributed.members import import_member
from dsdi_ray.distributed.score import ScoreSummary, score_archive
from dsdi_ray.distributed.scoring_pool import ScoringPool
from dsdi_ray.errors import ResourceError
from dsdi_ray.storage.bundles import EnsembleSpec, read_ensemble, write_ensemble
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.vision.decode import DecodeSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SETTINGS = DecodeSettings(fps=10.0, chunk_frames=16)
POOL = ScoringPool(num_decoders=2, num_scorers=1, use_gpu=False, micro_batch=8)
NUM_CLIPS = 9
BIN = Path(sys.executable).parent
Logits = dict[tuple[str, int], bytes]


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> EnsembleSpec:
    folder = tmp_path_factory.mktemp("members")
    write_ensemble([(make_member(folder / "member", seed=0, input_px=96), 1.0)], folder / "e")
    return read_ensemble(folder / "e")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    for i in range(NUM_CLIPS):
        write_clip(folder / f"clip{i}.mp4", seed=i, num_pictures=300, scale=4)
    return folder


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is decoded long enough to be killed thrice meanwhile."""
    file = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_clip(file, seed=1, num_pictures=900, scale=5)


@pytest.fixture(scope="module")
def archive(local_ray: None, footage: Path) -> pa.Table:
    return load_archive(str(footage))


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, archive: pa.Table, ensemble: EnsembleSpec
) -> Logits:
    uri = str(tmp_path_factory.mktemp("store") / "scores")
    score_archive(archive, ensemble=ensemble, store_uri=uri, settings=SETTINGS, pool=POOL)
    logits = stored_logits(uri)
    assert len(logits) == NUM_CLIPS * 100
    return logits


def stored_logits(uri: str) -> Logits:
    """The bits of every frame's logits; a row that appears twice must be the same twice."""
    found: Logits = {}
    for file in Path(uri).glob("logits/*/*/part-*.parquet"):
        for row in pq.read_table(file, partitioning=None).to_pylist():
            key = (row["content_id"], row["frame_index"])
            bits = np.array(row["logits"], np.float32).tobytes()
            assert found.setdefault(key, bits) == bits
    return found


def processes(fits: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Processes below this one that fit; those that end meanwhile do not count."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if fits(process):
                found.append(process)
    return found


def decode_children() -> list[psutil.Process]:
    """Those that have a clip in hand."""
    return processes(
        lambda p: (
            "dsdi_ray.vision.decode_child" in p.cmdline()
            and any(file.path.endswith(".mp4") for file in p.open_files())
        )
    )


def decode_actors() -> list[psutil.Process]:
    # A child that outlives its actor for a moment has init for its parent.
    working = set()
    for child in decode_children():
        with suppress(psutil.NoSuchProcess):
            working.add(child.ppid())
    return processes(lambda p: p.pid in working and "DecodeClips" in " ".join(p.cmdline()))


def scoring_actors() -> list[psutil.Process]:
    return processes(lambda p: "ScoreFrames" in " ".join(p.cmdline()))


def starting_scoring_actors() -> list[psutil.Process]:
    return processes(lambda p: "ScoreFrames)).__init__" in " ".join(p.cmdline()))


@contextmanager
def killer(victims: Callable[[], list[psutil.Process]], *, at_most: int) -> Iterator[list[int]]:
    """Kill victims, one at a time, as soon as they work; yields the pids that were killed."""
    killed: list[int] = []
    is_over = threading.Event()

    def lurk() -> None:
        while len(killed) < at_most and not is_over.wait(0.04):
            for process in victims():
                if process.pid not in killed:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                        killed.append(process.pid)
                    break

    thread = threading.Thread(target=lurk)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("victims", [decode_children, decode_actors, scoring_actors])
def test_a_killed_process_leaves_no_trace_in_the_scores(
    victims: Callable[[], list[psutil.Process]],
    tmp_path: Path,
    archive: pa.Table,
    ensemble: EnsembleSpec,
    undisturbed: Logits,
) -> None:
    uri = str(tmp_path / "scores")
    with killer(victims, at_most=1) as killed:
        summary = score_archive(
            archive, ensemble=ensemble, store_uri=uri, settings=SETTINGS, pool=POOL
        )
    assert len(killed) == 1
    assert (summary.num_ok, summary.num_failed) == (NUM_CLIPS, 0)
    assert stored_logits(uri) == undisturbed


def test_a_clip_that_takes_its_worker_along_each_time_is_an_outcome_and_the_others_are_scored(
    tmp_path: Path, local_ray: None, long_clip: Path, ensemble: EnsembleSpec
) -> None:
    uri, folder = str(tmp_path / "scores"), tmp_path / "footage"
    folder.mkdir()
    shutil.copy(long_clip, folder)
    Image.new("RGB", (300, 200), (200, 30, 30)).save(folder / "z-photo.jpg")
    archive = load_archive(str(folder))
    alone = ScoringPool(num_decoders=1, num_scorers=1, use_gpu=False, micro_batch=8)

    with killer(decode_actors, at_most=1000) as killed:
        score_archive(archive, ensemble=ensemble, store_uri=uri, settings=SETTINGS, pool=alone)
    assert len(killed) == 3
    outcomes = {o["clip_id"]: o for o in ScoreStore.open(uri).latest_outcomes().to_pylist()}
    assert outcomes["z-photo"]["status"] == "ok"
    assert outcomes["long"]["status"] == "failed"
    assert "dies each time" in outcomes["long"]["error"]

    again = score_archive(archive, ensemble=ensemble, store_uri=uri, settings=SETTINGS)
    assert again.num_clips_scored == 0, "it is not tried again by itself"
    retried = score_archive(
        archive, ensemble=ensemble, store_uri=uri, settings=SETTINGS, retry_failed=True
    )
    assert (retried.num_ok, retried.num_failed) == (2, 0)


def test_workers_that_all_die_end_the_job_with_a_clear_error(
    tmp_path: Path,
    local_ray: None,
    long_clip: Path,
    ensemble: EnsembleSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsdi_ray.distributed.score._MOST_KILLERS", 0)  # of more clips than one
    with killer(decode_actors, at_most=1000), pytest.raises(ResourceError, match="every worker"):
        score_archive(
            load_archive(str(long_clip)),
            ensemble=ensemble,
            store_uri=str(tmp_path / "scores"),
            settings=SETTINGS,
            pool=POOL,
        )


def test_a_scorer_that_is_killed_as_it_starts_ends_the_job_with_a_clear_error(
    tmp_path: Path, archive: pa.Table, ensemble: EnsembleSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsdi_ray.distributed.scoring_pipeline._MAX_ACTOR_INIT_DEATHS", 0)
    reason = "^workers cannot start: a scoring process was killed while it loaded the members"
    with killer(starting_scoring_actors, at_most=1), pytest.raises(ResourceError, match=reason):
        score_archive(
            archive,
            ensemble=ensemble,
            store_uri=str(tmp_path / "scores"),
            settings=SETTINGS,
            pool=POOL,
        )


def test_a_member_that_gives_no_numbers_fails_its_clips_with_that_reason_and_for_no_other_member(
    tmp_path: Path, archive: pa.Table, ensemble: EnsembleSpec
) -> None:
    import timm
    from safetensors.torch import save_file

    weights = timm.create_model("test_resnet", num_classes=len(COLOURS)).state_dict()
    name = next(k for k, t in weights.items() if t.is_floating_point())
    save_file(
        {**weights, name: torch.full_like(weights[name], torch.nan)}, tmp_path / "w.safetensors"
    )
    import_member(
        backbone="test_resnet",
        weights_file=tmp_path / "w.safetensors",
        taxonomy=COLOURS,
        input_px=64,
        out=tmp_path / "m",
    )
    good = ensemble.members[0].path
    write_ensemble([(good, 1.0), (tmp_path / "m", 1.0)], tmp_path / "e")

    def score(ensemble: EnsembleSpec) -> ScoreSummary:
        uri, clips = str(tmp_path / "scores"), archive.slice(0, 2)
        return score_archive(clips, ensemble=ensemble, store_uri=uri, settings=SETTINGS, pool=POOL)

    both = score(read_ensemble(tmp_path / "e"))
    assert both.num_failed == 2
    (reason,) = both.reasons
    assert "logits that are not finite" in reason
    for num_scored in (2, 0):
        alone = score(ensemble)
        assert (alone.num_clips_scored, alone.num_ok, alone.num_failed) == (num_scored, 2, 0)
    again = score(read_ensemble(tmp_path / "e"))
    assert (again.num_clips_scored, again.num_failed, again.reasons) == (0, 2, both.reasons)


def test_a_killed_driver_resumes_and_repeats_only_what_was_in_flight(
    tmp_path: Path, footage: Path, archive: pa.Table, ensemble: EnsembleSpec, undisturbed: Logits
) -> None:
    store, manifest = tmp_path / "scores", tmp_path / "manifest.parquet"
    index_archive([str(footage)], out=manifest)
    script = "import sys; from test_kills import score_for_ever; score_for_ever(*sys.argv[1:])"
    write_ensemble([(Path(ensemble.members[0].path), 1.0)], tmp_path / "e")
    driver = subprocess.Popen(
        [sys.executable, "-c", script, manifest, tmp_path / "e", store],
        cwd=Path(__file__).parent,
    )
    try:
        wait_for(lambda: any(store.glob("outcomes/part-*")), seconds=300)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    num_recorded = len(ScoreStore.open(str(store)).latest_outcomes())
    assert 0 < num_recorded < NUM_CLIPS
    summary = score_archive(
        archive, ensemble=ensemble, store_uri=str(store), settings=SETTINGS, pool=POOL
    )
    assert summary.num_clips_scored == NUM_CLIPS - num_recorded
    assert summary.num_ok == NUM_CLIPS
    assert stored_logits(str(store)) == undisturbed


def score_for_ever(manifest: str, ensemble: str, store: str) -> None:
    """What the driver that is killed runs: each clip is written as soon as it is scored."""
    import dsdi_ray.storage.score_writer as writer
    from dsdi_ray.distributed.session import ray_session

    writer._MAX_SECONDS = 0.0
    with ray_session(num_cpus=2, has_state_api=False):
        score_archive(
            load_archive(manifest),
            ensemble=read_ensemble(ensemble),
            store_uri=store,
            settings=SETTINGS,
            pool=ScoringPool(num_decoders=1, num_scorers=1, use_gpu=False, micro_batch=8),
        )


def test_a_worker_node_that_is_lost_costs_nothing_but_time(
    tmp_path: Path, footage: Path, ensemble: EnsembleSpec, undisturbed: Logits
) -> None:
    store, manifest = tmp_path / "scores", tmp_path / "manifest.parquet"
    pq.write_table(load_archive(str(footage)), manifest)
    write_ensemble([(Path(ensemble.members[0].path), 1.0)], tmp_path / "e")
    facts = run_cluster("test_kills.lose_a_node", manifest, tmp_path / "e", store)
    assert facts["nodes_after"] == facts["nodes_before"] - 1
    assert facts["num_ok"] == NUM_CLIPS
    assert stored_logits(str(store)) == undisturbed


def lose_a_node(manifest: str, ensemble: str, store: str) -> None:
    """Score on a head and two nodes, and lose the node that decodes first."""
    import ray
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": 2,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": 400 * 2**20,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=400 * 2**20) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    num_before = sum(node["Alive"] for node in ray.nodes())
    result = {}

    def score() -> None:
        summary = score_archive(
            load_archive(manifest),
            ensemble=read_ensemble(ensemble),
            store_uri=store,
            settings=SETTINGS,
            pool=ScoringPool(num_decoders=3, num_scorers=1, use_gpu=False, micro_batch=8),
        )
        result["num_ok"] = summary.num_ok

    job = threading.Thread(target=score)
    job.start()
    lost = None
    while lost is None and job.is_alive():
        lost = next(filter(None, (node_of(actor, nodes) for actor in decode_actors())), None)
        time.sleep(0.05)
    cluster.remove_node(lost, allow_graceful=False)
    job.join()
    result |= {
        "nodes_before": num_before,
        "nodes_after": sum(node["Alive"] for node in ray.nodes()),
    }
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(result))


def test_a_scored_block_that_is_lost_with_its_node_is_left_out_for_the_next_pass() -> None:
    facts = run_cluster("test_kills.lose_blocks")
    assert 2 <= facts["num_blocks"] < 20, "some are lost, and that ends nothing"


def lose_blocks() -> None:
    """Lose the node that holds finished blocks, too large to be sent at once, while the driver writes."""
    import ray
    from ray.cluster_utils import Cluster

    from dsdi_ray.distributed.scoring_pipeline import _blocks

    limits = {"object_store_memory": 200 * 2**20}
    head = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | limits)
    node = cluster.add_node(num_cpus=1, resources={"far": 1}, **limits)
    ray.init(address=cluster.address, log_to_driver=False)
    ray.data.DataContext.get_current().max_errored_blocks = -1
    dataset = ray.data.range(20, override_num_blocks=20).map_batches(
        LargeBlocks,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=0,
        resources={"far": 1},
        max_restarts=-1,
        max_task_retries=0,
    )
    num_blocks = 0
    for num_blocks, _ in enumerate(_blocks(dataset), start=1):
        if num_blocks == 2:
            time.sleep(3)
            cluster.remove_node(node, allow_graceful=False)
            time.sleep(4)
            cluster.add_node(num_cpus=1, resources={"far": 1}, **limits)
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps({"num_blocks": num_blocks}))


class LargeBlocks:
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(0.2)
        return {"id": batch["id"], "logits": np.zeros((len(batch["id"]), 200_000), np.uint8)}


def wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)
