"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a busy one is slow, not wrong
settings.load_profile("any machine")

# Before any import of ray: a local Ray would turn token authentication on and leak it from one
# test's cluster into the next.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Or the workers wait for whatever else runs, the tests that watch them included.
os.environ.setdefault("RAY_worker_niceness", "0")

if "PYTEST_XDIST_WORKER" in os.environ:  # several share the cores; before any import of torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A real local Ray with two logical CPUs, started once for all tests that ask for it."""
    from dsdi_ray.distributed.session import ray_session

    with ray_session(num_cpus=2):
        yield


@pytest.fixture
def shared_data() -> Path:
    """Real clips and reference outputs beside the checkout; tests that need them skip without."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real sample data beside the checkout")
    return SHARED_DATA
