import pytest

from dsdi_ray.method.schedules import learning_rate_factor


def factors(schedule, *, num_steps=100, num_warmup_steps=0):
    return [
        learning_rate_factor(
            i, num_steps=num_steps, num_warmup_steps=num_warmup_steps, schedule=schedule
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


def test_a_run_that_is_all_warm_up_does_not_divide_by_zero():
    assert factors("cosine", num_steps=3, num_warmup_steps=3)[-1] == 1
    assert learning_rate_factor(3, num_steps=3, num_warmup_steps=3, schedule="cosine") == 1


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="schedule must be cosine or step, got 'linear'"):
        factors("linear")
