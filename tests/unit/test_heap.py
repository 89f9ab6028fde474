"""The heap of a scoring process, in a process with its environment."""

import os
import subprocess
import sys

import pytest

from dsdi_ray.distributed.network_environment import network_environment
from dsdi_ray.vision.heap import _anonymous_kib

SCRIPT = """
import numpy as np
from dsdi_ray.vision import heap

def size_mib():
    return heap._anonymous_kib() / 1024

def chunk(num_mib):
    blocks = [np.ones(2**17) for _ in range(num_mib)]
    kept.append(np.ones(2**14))  # holds the heap's end where it is
    del blocks

kept, one = [], heap.Heap()
for _ in range(4):
    chunk(100)
    assert not one.tidy()
usual = size_mib()
chunk(300)
grown = size_mib()
assert grown > usual + 150, (usual, grown)
assert one.tidy()
assert size_mib() < usual, (usual, size_mib())
chunk(300)
assert not one.tidy()  # so much is needed
chunk(300)
assert not one.tidy()
print("done")
"""


@pytest.mark.skipif(not _anonymous_kib(), reason="needs Linux's own /proc")
def test_a_heap_that_grew_is_given_back_unless_it_is_needed():
    variables = network_environment(use_gpu=False)["env_vars"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
