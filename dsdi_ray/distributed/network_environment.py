"""The environment of processes that run networks on CPUs."""

import os
from pathlib import Path

import ray

# GNU OpenMP's; elsewhere it says nothing to anyone. Threads that wait for each other do so in a loop,
# and give the core away soon: where other processes want it too the wait is for a thread that does
# not run. *Measured* on 2 cores, seconds per step of a tiny network, with GNU OpenMP's own 300,000
# rounds, with these, and with none: 0.16, 0.17 and 0.30 on an idle machine, 0.5 to 1.6, 0.5 and 0.3
# beside two busy processes.
_OPENMP = {"GOMP_SPINCOUNT": "10000"}

# Memory that a forward pass gives back is kept for the next, not returned to the system, which would
# hand it out anew page by page, each filled with zeros. *Measured* on 2 cores, with these and without:
# 0.95 and 1.14 s a training step of resnet18 on 28 pictures of 224 px; 39 and 49 ms to score a frame
# of 224 px with resnest50d, 0.6 and 0.9 of 128 px with a tiny network.
_GLIBC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",  # further ones, of threads, are given back whole whatever the above say
}

# The same of jemalloc, which Ray's wheels for Linux bring along. In one heap two threads' blocks come
# to lie in ever new places, and it grows; jemalloc has one for each thread, large blocks included
# (oversize_threshold), so that the first chunk of frames takes what the last one does. *Measured* on
# 2 cores, MiB without files in four runs each of resnest50d at 360 px, glibc: 1,639 to 2,823, growing;
# jemalloc (narenas:3, a thread each): 2,082 or 2,083 from the first chunk on. A whole job of 8 clips
# takes 4,990 MiB and 10.0 s a clip with glibc, 4,398 and 9.3 with jemalloc; 12 training steps of resnet18
# peak at 2,206 and 2,254 MiB, and at 1,680.
_JEMALLOC = "narenas:64,dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"


def network_environment(*, use_gpu: bool) -> dict[str, dict[str, str]]:
    """The runtime environment of a worker or an actor that runs networks.

    An allocator that ``LD_PRELOAD`` names already is kept. A node without the library says so in the
    log and uses its own.
    """
    if use_gpu:
        return {}
    variables = _OPENMP | _GLIBC
    library = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    if library.is_file() and "LD_PRELOAD" not in os.environ:
        variables |= {"LD_PRELOAD": str(library), "MALLOC_CONF": _JEMALLOC}
    return {"env_vars": variables}
