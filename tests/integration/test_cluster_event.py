"""An event that processes of a real local Ray wait for."""

import pytest
import ray

from dsdi_ray.distributed.cluster_event import ClusterEvent

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@ray.remote(num_cpus=0)
def wait_for(event: ClusterEvent) -> None:
    event.wait()


@ray.remote(num_cpus=0)
def give(event: ClusterEvent) -> None:
    event.set()


def test_processes_wait_until_another_sets_the_event() -> None:
    event, other = ClusterEvent(), ClusterEvent()
    early = [wait_for.remote(event) for _ in range(2)]
    assert not ray.wait(early, timeout=1.0)[0]
    ray.get(give.remote(event), timeout=60)
    ray.get([*early, wait_for.remote(event)], timeout=60)
    assert (event.is_set(), other.is_set()) == (True, False)


def test_an_event_that_is_cleared_is_not_set() -> None:
    event = ClusterEvent()
    event.set()
    event.clear()
    assert not event.is_set()
