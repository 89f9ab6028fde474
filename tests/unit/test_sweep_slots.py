import pytest

from dsdi_ray.distributed.sweep_slots import SweepSlots, num_at_full_speed
from dsdi_ray.sweep_config import Resources


def at_full_speed(num_trials, *, use_gpu=True, num_gpus=2, **resources):
    slots = SweepSlots(use_gpu=use_gpu, num_trials=num_trials)
    return num_at_full_speed(slots, Resources(**resources), num_gpus=num_gpus)


@pytest.mark.parametrize(
    ("num_trials", "resources", "count"),
    [
        (2, {}, 2),
        (8, {"gpus_per_worker": 0.25}, 2),
        (1, {"workers": 2}, 1),
        (2, {"workers": 2, "gpus_per_worker": 0.5}, 1),
        (1, {"gpus_per_worker": 0.25, "max_concurrent": 1}, 1),
    ],
)
def test_trials_that_share_gpus_get_done_no_more_than_the_gpus_do(num_trials, resources, count):
    assert at_full_speed(num_trials, **resources) == count


def test_trials_on_cores_count_as_one_each_since_they_are_timed_on_their_share():
    assert at_full_speed(4, use_gpu=False, num_gpus=0, workers=2) == 4
