"""Who is stopped early is a function of the trials' values, whatever comes first."""

import itertools
import math
import random

import pytest

from dsdi_ray.method.halving import TrialProgress, rungs, stop_epochs


def whole(*values: float | None) -> TrialProgress:
    return TrialProgress(values=dict(enumerate(values, start=1)), has_ended=True)


def running(*values: float | None) -> TrialProgress:
    return TrialProgress(values=dict(enumerate(values, start=1)), has_ended=False)


@pytest.mark.parametrize(
    ("num_epochs", "grace", "factor", "expected"),
    [
        (40, 3, 3, [3, 9, 27]),
        (27, 3, 3, [3, 9]),  # the last epoch is no rung
        (3, 3, 3, []),
        (10, 1, 1.5, [1, 2, 3, 5, 8]),
        (5, 1, 1.1, [1, 2, 3, 4]),  # rungs that would be of the same epoch are one
    ],
)
def test_rungs_are_the_grace_times_powers_of_the_factor(num_epochs, grace, factor, expected):
    assert rungs(num_epochs, grace_epochs=grace, reduction_factor=factor) == expected


def test_the_best_third_of_those_that_came_before_goes_on():
    values = [0.5, 0.4, 0.6, 0.55, 0.1, 0.58, 0.9]
    trials = [whole(value, value) for value in values]
    # n:        1     2     3     4     5    6     7   -> best 1, 1, 1, 2, 2, 2, 3 go on
    assert stop_epochs(trials, [1], reduction_factor=3) == [None, 1, None, None, 1, None, None]


def test_of_equal_values_the_lower_number_is_better():
    trials = [whole(0.5, 0.5), whole(0.5, 0.5)]
    assert stop_epochs(trials, [1], reduction_factor=2) == [None, 1]


def test_who_was_stopped_at_a_rung_is_not_compared_at_the_next():
    trials = [whole(0.5, 0.5, 0.5), whole(0.4, 0.9, 0.9), whole(0.6, 0.6, 0.6)]
    # The second, stopped at the first rung, would have been the best at the second.
    assert stop_epochs(trials, [1, 2], reduction_factor=3) == [None, 1, None]


def test_a_value_that_is_no_number_is_the_worst():
    trials = [whole(0.1, 0.1), whole(None, 0.9), whole(math.nan, 0.9)]
    assert stop_epochs(trials, [1], reduction_factor=3) == [None, 1, 1]


def test_a_failed_trial_that_did_not_come_to_the_rung_does_not_count():
    failed = TrialProgress(values={}, has_ended=True)
    assert stop_epochs([failed, whole(0.1, 0.1)], [1], reduction_factor=2) == [None, None]


def test_a_decision_waits_for_lower_numbers_only_where_they_can_change_it():
    slow = running()
    assert stop_epochs([slow, running(0.5)], [1], reduction_factor=2) == [None, None]
    # Of three at the rung two go on at best; two better ones are known.
    trials = [slow, running(0.9), running(0.8), running(0.1)]
    assert stop_epochs(trials, [1], reduction_factor=2)[3] == 1


@pytest.mark.parametrize("factor", [1.5, 2, 3, 4])
@pytest.mark.parametrize("seed", range(20))
def test_what_is_decided_early_is_what_is_decided_with_all_known(seed, factor):
    source = random.Random(seed)
    num_trials, num_epochs, rung_epochs = 7, 6, [1, 2, 4]
    values = [[source.choice([0.1, 0.2, 0.3, 0.4]) for _ in range(num_epochs)] for _ in range(7)]
    ends = [source.choice([num_epochs, num_epochs, 1, 3]) for _ in range(num_trials)]  # some fail
    final = stop_epochs(
        [whole(*v[:end]) for v, end in zip(values, ends, strict=True)],
        rung_epochs,
        reduction_factor=factor,
    )
    done = [0] * num_trials
    ended = [False] * num_trials
    stopped: list[int | None] = [None] * num_trials
    while not all(ended):
        i = source.choice([i for i in range(num_trials) if not ended[i]])
        done[i] += 1
        ended[i] = done[i] >= ends[i]
        trials = [
            TrialProgress(values=dict(enumerate(values[j][: done[j]], start=1)), has_ended=ended[j])
            for j in range(num_trials)
        ]
        decided = stop_epochs(trials, rung_epochs, reduction_factor=factor)
        for j in range(num_trials):
            # A decision is never taken back, and is the one of the end.
            assert stopped[j] in {None, decided[j]}
            if decided[j] is not None:
                assert decided[j] == final[j]
                stopped[j] = decided[j]
                ended[j] = True
                done[j] = min(done[j], decided[j])
    assert stopped == final


def test_numbers_decide_and_not_the_order_of_coming():
    values = [0.5, 0.7, 0.6]
    outcomes = set()
    for order in itertools.permutations(range(3)):
        known = [running(), running(), running()]
        for i in order:
            known[i] = whole(values[i], values[i])
        outcomes.add(tuple(stop_epochs(known, [1], reduction_factor=2)))
    assert outcomes == {(None, None, None)}
