"""The scoring actor without Ray: what is a clip's fault, and what is its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from footage import make_member

from dsdi_ray.distributed.decode_actor import _row
from dsdi_ray.distributed.score_actor import ScoreFrames

OPTIONS = {"micro_batch": 3, "device": "cpu", "compile_networks": False}


@pytest.fixture(scope="module")
def member(tmp_path_factory):
    return make_member(tmp_path_factory.mktemp("m") / "m", seed=0, input_px=32)


def chunk(num_frames, *, work_id=0, members=("m",)):
    frames = np.random.default_rng(0).integers(0, 255, (num_frames, 32, 32, 3), dtype=np.uint8)
    facts = {
        "work_id": work_id,
        "chunk_index": 0,
        "frame_indices": list(range(num_frames)),
        "times_seconds": [0.1 * k for k in range(num_frames)],
        "member_ids": list(members),
        "size_px": 32,
    }
    return _row(facts, frames)


def scored(actor, *chunks):
    return pa.concat_tables(actor(pa.concat_tables(chunks))).to_pylist()


def logits(row):
    return np.frombuffer(row["logits"], np.float32)


def test_members_of_one_size_share_what_was_uploaded_and_score_as_each_alone(member):
    both = ScoreFrames({"a": str(member), "b": str(member)}, num_threads=None, **OPTIONS)
    beside = ScoreFrames({"m": str(member)}, num_threads=2, **OPTIONS)
    a, b = scored(both, chunk(5, members=("a", "b")))
    (alone,) = scored(beside, chunk(5))
    assert [a["member_id"], b["member_id"]] == ["a", "b"]
    np.testing.assert_array_equal(logits(a), logits(b))
    np.testing.assert_allclose(logits(a), logits(alone), atol=1e-5)


def test_an_error_with_one_clips_frames_is_its_outcome_and_the_next_is_scored(member):
    actor = ScoreFrames({"m": str(member)}, num_threads=None, **OPTIONS)
    network = actor._members["m"]._network
    network.register_forward_pre_hook(_refuse_three)
    failed, good = scored(actor, chunk(3, work_id=1), chunk(1, work_id=2))
    assert failed["outcome"]["error"] == "cannot be scored: three at once"
    assert failed["outcome"]["is_transient"]
    assert (good["work_id"], good["outcome"]) == (2, None)


def test_a_member_whose_logits_are_not_finite_is_to_blame_alone(member):
    actor = ScoreFrames({m: str(member) for m in ("a", "bad")}, num_threads=None, **OPTIONS)
    actor._members["bad"]._network.register_forward_hook(lambda *_: torch.full((2, 3), torch.nan))
    (failed,) = scored(actor, chunk(2, members=("a", "bad")))
    outcome = failed["outcome"]
    assert outcome["error"] == "cannot be scored: member bad gives logits that are not finite"
    assert (outcome["is_transient"], outcome["member_ids"]) == (False, ["bad"])


def _refuse_three(network, inputs):
    if len(inputs[0]) == 3:
        raise RuntimeError("three at once")


def run(script, **environment):
    """Run a script in a process of its own, which can end."""
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, [here, here.parent / "integration", here.parents[1]]))
    return subprocess.run(
        [sys.executable, "-c", "from test_score_actor import *\n" + script],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def break_down(network, inputs):
    raise RuntimeError("an illegal memory access was encountered")


def test_a_worker_whose_members_score_nothing_more_ends_and_says_why(member):
    done = run(f"""
actor = ScoreFrames({{"m": {str(member)!r}}}, num_threads=None, **OPTIONS)
actor._members["m"]._network.register_forward_pre_hook(break_down)
scored(actor, chunk(2))
print("it lived on")
""")
    assert done.returncode == 1
    assert "an illegal memory access was encountered" in done.stderr
    assert "it lived on" not in done.stdout


def test_a_network_that_cannot_be_compiled_is_found_as_the_worker_starts(member, tmp_path):
    compiling = {**OPTIONS, "compile_networks": True}
    done = run(
        f"ScoreFrames({{'m': {str(member)!r}}}, num_threads=1, **{compiling})",
        CXX="/nonexistent",
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path),
    )
    assert done.returncode == 1
    assert "No working C++ compiler found" in done.stderr
