"""How many actors decode and score, and on what."""

import math
from dataclasses import dataclass, replace
from typing import Self

from dsdi_ray.distributed.session import ClusterResources, cluster_resources, resolve_use_gpu
from dsdi_ray.errors import ResourceError

_GPU_MICRO_BATCH = 32
# From 16 pictures on PyTorch gives a lone thread's 1 x 1 convolutions to oneDNN. *Measured*, milliseconds
# per frame of 224 px, 8, 16 and 32 pictures in each of 2 threads: resnet50 33, 22, 27; hrnet_w18 33, 28,
# 37; resnest50d 48, 38, 43; efficientnet_b0 7.4, 5.3, 7.7; convnext_tiny 47, 46, 54.
_CPU_MICRO_BATCH = 16
_THREADS_PER_SCORER = 4  # a chunk of 64 frames has four micro-batches
_CPU_SHARE_OF_ACTORS = 0.75  # the rest stays free, or Ray could not run the plan's own tasks


@dataclass(frozen=True, kw_only=True)
class ScoringPool:
    """How many actors decode and score, and on what.

    Attributes:
        num_decoders: Decode actors; each drives one child process of one thread.
        num_scorers: Actors that hold the ensemble.
        use_gpu: Whether each scorer takes a GPU.
        micro_batch: Frames per forward pass.
        compile_networks: Whether scorers compile their networks first (``torch.compile``).
    """

    num_decoders: int
    num_scorers: int
    use_gpu: bool
    micro_batch: int
    compile_networks: bool = False

    @property
    def num_cpus(self) -> float:
        """Cores of the cluster."""
        return cluster_resources().num_cpus

    @property
    def cpus_per_actor(self) -> float:
        """CPU share that Ray reserves per actor, so that all of them fit any machine."""
        num_actors = self.num_decoders + (0 if self.use_gpu else self.num_scorers)
        return min(1.0, _CPU_SHARE_OF_ACTORS * self.num_cpus / num_actors)

    @property
    def threads_per_scorer(self) -> int | None:
        """Forward passes beside each other on CPUs; None for one after the other on a GPU."""
        if self.use_gpu:
            return None
        resources = cluster_resources()
        num_nodes = len(resources.nodes_with("CPU"))
        return max(1, int(resources.num_cpus // max(self.num_scorers, num_nodes)))

    def __str__(self) -> str:
        """In words, for people."""
        where = "GPUs" if self.use_gpu else "CPUs"
        return f"decoders: {self.num_decoders}, scorers: {self.num_scorers} on {where}"

    def limited_to(self, num_work_items: int) -> Self:
        """Without the decode actors that would have nothing to do: a clip is decoded by one."""
        return replace(self, num_decoders=max(1, min(self.num_decoders, num_work_items)))


def scoring_pool(
    *,
    use_gpu: bool | None = None,
    num_decoders: int | None = None,
    num_scorers: int | None = None,
    micro_batch: int | None = None,
    compile_networks: bool = False,
) -> ScoringPool:
    """Size the pools from the cluster, as far as they are not given.

    Raises:
        ResourceError: If GPUs are asked for and there are none, or the cluster has no core.
    """
    on_gpu = resolve_use_gpu(use_gpu)
    resources = cluster_resources()
    if resources.num_cpus < 1:
        raise ResourceError(
            f"no node of the cluster ({len(resources.nodes)}) has a core for work: start one first"
        )
    return ScoringPool(
        num_decoders=num_decoders or max(1, int(resources.num_cpus)),
        num_scorers=num_scorers or default_scorers(resources, use_gpu=on_gpu),
        use_gpu=on_gpu,
        micro_batch=micro_batch or (_GPU_MICRO_BATCH if on_gpu else _CPU_MICRO_BATCH),
        compile_networks=compile_networks,
    )


def default_scorers(resources: ClusterResources, *, use_gpu: bool) -> int:
    """One per GPU; without GPUs one per four cores, and at least one per node."""
    if use_gpu:
        return int(resources.num_gpus)
    num_nodes = len(resources.nodes_with("CPU"))
    return max(num_nodes, math.ceil(resources.num_cpus / _THREADS_PER_SCORER))
