"""Ends processes as a power cut would."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

_FOLDER = Path(__file__).parent
# Of a cluster of several nodes on this machine: loopback alone, and five of these that fail mean
# that a node is lost.
_CLUSTER_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_health_check_period_ms": "500",
}


def run_cluster(function: str, *arguments: str | Path) -> dict[str, Any]:
    """Run a test module's function, which starts a cluster, in a process of its own.

    Args:
        function: Module and name, ``test_kills.lose_a_node``.
        arguments: It gets them as text.

    Returns:
        What it printed last, as JSON.
    """
    module, name = function.split(".")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {module} as m; m.{name}(*sys.argv[1:])", *arguments],
        cwd=_FOLDER,
        env=os.environ | _CLUSTER_ENVIRONMENT,
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def kill_all(driver: subprocess.Popen) -> None:
    """Kill a process and all that it started, Ray's servers and workers among them."""
    root = psutil.Process(driver.pid)
    everyone = [root, *root.children(recursive=True)]
    for process in everyone:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    driver.wait()
    psutil.wait_procs(everyone[1:], timeout=20)


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


def node_of(process: psutil.Process, nodes: Iterable[Any]) -> Any | None:
    """The node of a ``ray.cluster_utils.Cluster`` that started a process, if any of them did."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
    with suppress(psutil.NoSuchProcess):
        return next((raylets[p.pid] for p in process.parents() if p.pid in raylets), None)
    return None
