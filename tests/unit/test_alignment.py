"""Rows of several members become one array, whatever their order."""

import numpy as np
import pytest

from dsdi_ray.method.alignment import align_members


def shuffled_rows(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two members, five frames, value 10 * member + frame; every row twice."""
    member, frame = np.divmod(np.arange(10), 5)
    order = np.random.default_rng(seed).permutation(np.tile(np.arange(10), 2))
    logits = (10 * member + frame).astype(np.float32)[:, None].repeat(3, axis=1)
    return member[order], frame[order], logits[order]


@pytest.mark.parametrize("seed", range(5))
def test_order_and_repetition_of_rows_do_not_matter(seed: int) -> None:
    frames, aligned = align_members(*shuffled_rows(seed), num_members=2)
    assert frames.tolist() == [0, 1, 2, 3, 4]
    assert aligned[:, :, 0].tolist() == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]
    assert aligned.shape == (2, 5, 3)


def test_only_frames_that_every_member_scored_are_kept() -> None:
    frames, aligned = align_members(
        np.array([0, 0, 0, 1, 1]),
        np.array([0, 3, 6, 3, 9]),
        np.arange(5, dtype=np.float32)[:, None],
        num_members=2,
    )
    assert frames.tolist() == [3]
    assert aligned[:, 0, 0].tolist() == [1, 3]
