"""Ends processes as a power cut would."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import psutil

# Of a cluster of several nodes on this machine: loopback alone, and five of these that fail mean
# that a node is lost.
CLUSTER_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_health_check_period_ms": "500",
}


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
