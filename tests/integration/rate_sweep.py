"""A sweep of three learning rates, for the tests of sweeps."""

import json
import threading
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from processes import node_of

NUM_EPOCHS = 5
_RECIPE = f"""
name: tiny
backbone: {{name: test_resnet, weights: none}}
input_px: 64
batch_size: 8
epochs: {NUM_EPOCHS}
optimizer: {{name: adamw, lr: 0.003}}
"""
# The second learns nothing, the third diverges.
_SWEEP = """
name: rates
recipe: tiny.yaml
space: {optimizer.lr: [3.0e-3, 1.0e-9, 1.0e+20]}
early_stopping: {grace_epochs: 2, reduction_factor: 2}
"""
# Runs a sweep of a file on a set into a folder.
DRIVER = """
import sys
from pathlib import Path
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed.sweep import run_sweep
from dsdi_ray.sweep_config import load_sweep
with ray_session(num_cpus=2):
    run_sweep(load_sweep(Path(sys.argv[1])), data=Path(sys.argv[2]), out=Path(sys.argv[3]))
"""


def write_sweep(folder: Path) -> Path:
    """Write the sweep and its recipe."""
    (folder / "tiny.yaml").write_text(_RECIPE)
    path = folder / "rates.yaml"
    path.write_text(_SWEEP)
    return path


def outcomes(out: Path) -> list[dict]:
    """What of the table does not depend on time."""
    rows = pq.read_table(out / "trials.parquet").to_pylist()
    for row in rows:
        del row["seconds"], row["recipe"]
        row["member"] = Path(row["member"]).relative_to(out).as_posix() if row["member"] else None
        for epoch in row["history"]:
            del epoch["seconds"], epoch["images_per_second"]
    return rows


def num_epochs_done(out: Path) -> int:
    """Epochs of trials under way and of those that finished, from what is on the disk."""
    checkpoints = out.glob("trials/*/member.training/*/checkpoints/epoch-*")
    members = out.glob("trials/*/member/member.yaml")
    return sum(1 for _ in checkpoints) + NUM_EPOCHS * sum(1 for _ in members)


def lose_a_node(sweep_file: str, data: str, out: str) -> None:
    """Run the sweep on a head and a node of one core each, and lose the node as it trains."""
    import ray
    from ray.cluster_utils import Cluster

    from dsdi_ray.distributed.sweep import run_sweep
    from dsdi_ray.sweep_config import load_sweep

    memory = 300 * 2**20
    head = {
        "num_cpus": 1,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": memory,
        "include_dashboard": True,  # training needs its state API
        "dashboard_port": None,  # a free one
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(num_cpus=1, object_store_memory=memory)
    ray.init(address=cluster.address, log_to_driver=False)
    num_before = sum(node["Alive"] for node in ray.nodes())
    is_over = threading.Event()

    def trains(process: psutil.Process) -> bool:
        return "RayTrainWorker" in " ".join(process.cmdline()) and node_of(process, [node])

    def watch() -> None:
        while not is_over.wait(0.05):
            if num_epochs_done(Path(out)) and any(map(trains, psutil.Process().children(True))):
                cluster.remove_node(node, allow_graceful=False)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    summary = run_sweep(load_sweep(Path(sweep_file)), data=Path(data), out=Path(out))
    is_over.set()
    watcher.join()
    num_after = sum(node["Alive"] for node in ray.nodes())
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps({"lost": num_before - num_after, "counts": summary.counts}))
