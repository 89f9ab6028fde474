import math

import pytest

from dsdi_ray.method.schedules import learning_rate_factor
from dsdi_ray.method.snapshots import cycle_ends


def factors(schedule, *, num_steps=100, num_warmup_steps=0, num_cycles=1):
    return [
        learning_rate_factor(
            i,
            num_steps=num_steps,
            num_warmup_steps=num_warmup_steps,
            schedule=schedule,
            num_cycles=num_cycles,
        )
        for i in range(num_steps)
    ]


def test_the_warm_up_rises_linearly_to_the_peak():
    assert factors("cosine", num_warmup_steps=4)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_falls_from_the_peak_towards_zero():
    values = factors("cosine")
    assert values[0] == 1
    assert values[50] == pytest.approx(0.5)
    assert 0 < values[-1] < 0.001
    assert values == sorted(values, reverse=True)


def test_step_divides_by_ten_at_half_and_at_three_quarters():
    values = factors("step")
    assert values[49:51] == pytest.approx([1, 0.1])
    assert values[74:76] == pytest.approx([0.1, 0.01])


def test_cyclic_is_a_cosine_in_each_cycle():
    assert factors("cyclic", num_cycles=4) == pytest.approx(4 * factors("cosine", num_steps=25))


def test_cyclic_follows_huang_et_al():
    """Their Eq. 2 has ceil(T / M) where this has T / M, and counts from 1."""
    length = 100 / 5
    expected = [(math.cos(math.pi * (t % length) / length) + 1) / 2 for t in range(100)]
    assert factors("cyclic", num_cycles=5) == pytest.approx(expected)


def test_the_warm_up_is_within_the_first_cycle():
    values = factors("cyclic", num_cycles=4, num_warmup_steps=5)
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[5:25] == pytest.approx(factors("cosine", num_steps=20))
    assert values[25] == 1


def test_snapshots_are_taken_where_cycles_end():
    assert cycle_ends(300, 6) == (50, 100, 150, 200, 250, 300)
    assert cycle_ends(4, 1) == (4,)
    with pytest.raises(ValueError, match="must be a multiple of 3 cycles, got 4"):
        cycle_ends(4, 3)


def test_a_run_that_is_all_warm_up_does_not_divide_by_zero():
    assert factors("cosine", num_steps=3, num_warmup_steps=3)[-1] == 1
    assert learning_rate_factor(3, num_steps=3, num_warmup_steps=3, schedule="cosine") == 1


def test_an_unknown_schedule_is_refused():
    with pytest.raises(
        ValueError, match="schedule must be one of cosine, step, cyclic, got 'linear'"
    ):
        factors("linear")
