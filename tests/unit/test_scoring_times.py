"""What a trial of a few clips says of a whole job."""

import pyarrow as pa
import pytest

from dsdi_ray.distributed.score_actor import SCORED_SCHEMA
from dsdi_ray.distributed.scoring_pool import ScoringPool
from dsdi_ray.distributed.scoring_times import ScoringTimes


class FourCores(ScoringPool):
    """A pool on a machine that need not be asked."""

    num_cpus = 4.0
    threads_per_scorer = 2


def times(*, num_decoders=2, use_gpu=True, fetch=0.0, decode=0.0, score=0.0, num_frames=100):
    pool = FourCores(num_decoders=num_decoders, num_scorers=1, use_gpu=use_gpu, micro_batch=8)
    seen = ScoringTimes(pool)
    row = {
        "outcome": {"frames_scored": num_frames},
        "fetch_seconds": fetch,
        "decode_seconds": decode,
        "score_seconds": score,
    }
    seen.add(pa.Table.from_pylist([row], schema=SCORED_SCHEMA))
    return seen


def estimate(seen, *, num_frames=1000, files=3.0):
    return seen.estimate_seconds(num_frames=num_frames, files_per_file_seen=files)


def test_decoding_is_shared_among_decoders_and_grows_with_the_frames():
    assert estimate(times(decode=4.0)) == pytest.approx(4.0 * 10 / 2)
    assert estimate(times(decode=4.0), num_frames=2000) == pytest.approx(4.0 * 20 / 2)


def test_fetching_grows_with_the_files_and_keeps_decoders_from_decoding():
    assert estimate(times(fetch=6.0)) == pytest.approx(6.0 * 3 / 2)
    both = estimate(times(fetch=6.0, decode=4.0))
    assert both == pytest.approx(6.0 * 3 / 2 + 4.0 * 10 / 2)


def test_the_slowest_stage_decides():
    assert estimate(times(decode=4.0, score=3.0)) == pytest.approx(3.0 * 10)


def test_without_a_gpu_all_stages_share_the_cores():
    seen = times(num_decoders=9, use_gpu=False, decode=8.0, score=3.0)
    assert estimate(seen) == pytest.approx((8.0 + 2 * 3.0) * 10 / 4)


def test_nothing_seen_says_nothing():
    assert estimate(times(decode=1.0, num_frames=0)) is None
