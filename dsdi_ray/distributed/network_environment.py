"""The environment of processes that run networks on CPUs."""

# Variables of GNU OpenMP and of glibc's malloc; elsewhere they say nothing to anyone.
_ON_CPUS = {
    # Threads that wait for each other do so in a loop, and give the core away soon: where other
    # processes want it too the wait is for a thread that does not run. *Measured* on 2 cores,
    # seconds per step of a tiny network, with GNU OpenMP's own 300,000 rounds, with these, and with
    # none: 0.16, 0.17 and 0.30 on an idle machine, 0.5 to 1.6, 0.5 and 0.3 beside two busy processes.
    "GOMP_SPINCOUNT": "10000",
    # Memory that a forward pass gives back is kept for the next, not returned to the system, which
    # would hand it out anew page by page, each filled with zeros. *Measured* on 2 cores, with these
    # and without: 0.95 and 1.14 s a training step of resnet18 on 28 pictures of 224 px; 39 and 49
    # ms to score a frame of 224 px with resnest50d, 0.6 and 0.9 of 128 px with a tiny network. The
    # peak of memory is the same.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",  # further ones, of threads, are given back whole whatever the above say
}


def network_environment(*, use_gpu: bool) -> dict[str, dict[str, str]]:
    """The runtime environment of a worker or an actor that runs networks."""
    return {} if use_gpu else {"env_vars": dict(_ON_CPUS)}
