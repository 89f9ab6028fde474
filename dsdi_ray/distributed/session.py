"""Start or join Ray: a local one on loopback by default, a running cluster where one is named."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray._private import ray_constants
from ray.util.state import list_actors

from dsdi_ray.errors import ResourceError

LOOPBACK = "127.0.0.1"
_JOIN_TIMEOUT_SECONDS = 10.0
_QUIET_LOGGERS = ("ray.data", "ray.tune", "ray.train")


@dataclass(frozen=True, kw_only=True)
class ClusterResources:
    """What the Ray that this process is connected to offers.

    Attributes:
        nodes: Resources of each node that is alive.
    """

    nodes: Sequence[Mapping[str, float]]

    @property
    def num_cpus(self) -> float:
        """Logical CPU cores of all nodes."""
        return sum(node.get("CPU", 0.0) for node in self.nodes)

    @property
    def num_gpus(self) -> float:
        """Logical GPUs of all nodes."""
        return sum(node.get("GPU", 0.0) for node in self.nodes)

    def nodes_with(self, kind: str) -> list[Mapping[str, float]]:
        """Nodes with at least one ``CPU`` or ``GPU``; a cluster's head often has neither for work."""
        return [node for node in self.nodes if node.get(kind, 0.0) >= 1]


@contextmanager
def ray_session(
    *,
    address: str | None = None,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    has_state_api: bool = True,
) -> Iterator[ClusterResources]:
    """Use Ray for the length of a ``with`` block.

    Joins the cluster at ``address`` or at the environment's ``RAY_ADDRESS``; else starts a Ray of
    its own that listens on loopback only and ends with the block. A Ray that this process is
    connected to already is used and left running.

    Args:
        address: A cluster's address, ``auto``, or None.
        num_cpus: Logical cores of a local Ray, None for the machine's.
        num_gpus: Logical GPUs of a local Ray, None for the machine's.
        has_state_api: Whether a local Ray serves its dashboard and state API, on which training runs
            beside each other rely; a dozen processes do that, which one alone starts sooner without.

    Raises:
        ResourceError: If no cluster answers at the address.
    """
    if ray.is_initialized():
        yield cluster_resources()
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address and address != "local":
        _join(address)
    else:
        _start_local(num_cpus=num_cpus, num_gpus=num_gpus, has_state_api=has_state_api)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield cluster_resources()
    finally:
        ray.shutdown()


def cluster_resources() -> ClusterResources:
    """Resources of the cluster that this process is connected to."""
    return ClusterResources(nodes=[node["Resources"] for node in ray.nodes() if node["Alive"]])


def resolve_use_gpu(requested: bool | None) -> bool:
    """Decide whether work runs on GPUs: as asked, or where there are any.

    Raises:
        ResourceError: If GPUs were asked for and the cluster has none; Ray itself would wait for
            one without end.
    """
    resources = cluster_resources()
    if requested is None:
        return resources.num_gpus >= 1
    if requested and resources.num_gpus < 1:
        raise ResourceError(
            f"a GPU was asked for, but Ray sees none ({len(resources.nodes)} node(s), "
            f"{resources.num_cpus:g} CPUs); leave the option out to run on the CPU"
        )
    return requested


def check_state_api() -> None:
    """See whether Ray says how its actors are; Ray Train asks it when a trial is stopped early.

    Raises:
        ResourceError: If not; a sweep would wait without end.
    """
    try:
        list_actors(address=ray.get_runtime_context().gcs_address, limit=1, timeout=30)
    except Exception as error:
        raise ResourceError(
            "the cluster's state API does not answer, which sweeps need: start Ray with its "
            f"dashboard (ray[default], include_dashboard): {str(error).splitlines()[0]}"
        ) from error


def _join(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit() and "/" not in host:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), _JOIN_TIMEOUT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResourceError(f"no Ray cluster answers at {address!r}: {reason}") from error


def _start_local(*, num_cpus: int | None, num_gpus: int | None, has_state_api: bool) -> None:
    # Ray takes the machine's outward address even where loopback is asked for, unless it is told
    # that it is no cluster node; its servers then bind to loopback alone. Child processes read the
    # variable, this process has read it already.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Train V2 asks the state API, which the dashboard serves, to release early-stopped trials.
    ray.init(
        address="local",
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        include_dashboard=has_state_api,
        dashboard_host=LOOPBACK,
        _node_ip_address=LOOPBACK,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
