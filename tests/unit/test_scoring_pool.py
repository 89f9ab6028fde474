"""Sizes of the scoring job's pools, as far as they follow from the cluster alone."""

import pytest

from dsdi_ray.distributed.scoring_pool import ScoringPool, default_scorers
from dsdi_ray.distributed.session import ClusterResources


@pytest.mark.parametrize(
    ("num_cpus", "num_nodes", "num_scorers"),
    [(1, 1, 1), (2, 1, 1), (4, 1, 1), (6, 1, 2), (16, 1, 4), (8, 4, 4), (64, 2, 16)],
)
def test_without_gpus_four_cores_share_a_scorer_and_no_node_is_without(
    num_cpus, num_nodes, num_scorers
):
    head = {"CPU": 0.0}  # kept free of work
    cluster = ClusterResources(nodes=[head] + [{"CPU": num_cpus / num_nodes}] * num_nodes)
    assert default_scorers(cluster, use_gpu=False) == num_scorers


def test_each_gpu_has_a_scorer():
    cluster = ClusterResources(nodes=[{"CPU": 32.0, "GPU": 4.0}] * 2)
    assert default_scorers(cluster, use_gpu=True) == 8


def test_no_more_decode_actors_than_clips():
    pool = ScoringPool(num_decoders=16, num_scorers=4, use_gpu=False, micro_batch=16)
    assert [pool.limited_to(n).num_decoders for n in (0, 1, 5, 100)] == [1, 1, 5, 16]
    assert pool.limited_to(1).num_scorers == 4, "a clip's chunks are scored by all"
