"""The environment of network processes: what they give back they keep, and their heap stays flat."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsdi_ray.distributed.network_environment import network_environment

# Two threads, large blocks of several sizes that live and die out of order; after each turn the
# memory that no file lies behind, in MiB.
SCRIPT = """
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
import numpy as np

def size_mib():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

both = Barrier(2)  # neither thread does the work of both

def work(_):
    both.wait()
    held = []
    for i in range(60):
        held.append(np.ones((8, 12, 16, 24)[i % 4] * 2**17))
        if len(held) == 4:
            del held[i % 3]

with ThreadPoolExecutor(2) as threads:
    for _ in range(8):
        list(threads.map(work, range(2)))
        print(size_mib())
"""

on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")


@on_linux
def test_memory_is_kept_and_does_not_grow():
    sizes = _sizes(network_environment(use_gpu=False)["env_vars"])
    assert sizes[0] > 100  # all of it is free, and kept
    assert max(sizes) <= 1.05 * sizes[0], sizes


@on_linux
def test_an_allocator_of_the_users_own_is_kept(monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    ours = network_environment(use_gpu=False)["env_vars"]["LD_PRELOAD"]
    assert Path(ours).is_file()
    monkeypatch.setenv("LD_PRELOAD", "/opt/their/allocator.so")
    assert "LD_PRELOAD" not in network_environment(use_gpu=False)["env_vars"]


def test_a_gpu_process_is_left_as_it_is():
    assert network_environment(use_gpu=True) == {}


def _sizes(variables: dict[str, str]) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]
