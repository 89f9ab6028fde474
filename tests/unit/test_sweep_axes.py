import math
from itertools import pairwise

import pytest

from dsdi_ray.report.sweep_axes import TrialResult, as_text, axis_of, best_trial, sweep_axes


def trial(name="000", metric=0.5, **point):
    return TrialResult(name=name, point=point, status="finished", metric=metric, curve=[])


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.5, 1.0, 5.0], "linear"),
        ([1e-4, 1e-2], "log"),
        ([28, 448, 1000], "log"),
        ([0.9, 0.99, 0.9999], "near_one"),
        ([0.0, 1000.0], "linear"),
        ([-5, 200], "linear"),
        ([3], "linear"),
        (["a", "b"], "category"),
        ([1, "auto"], "category"),
        ([True, False], "category"),
        ([[1, 2], [3]], "category"),
    ],
)
def test_an_axis_has_the_scale_that_suits_its_values(values, scale):
    assert axis_of("k", values).scale == scale


def test_decades_are_equally_far_apart_on_a_log_axis_and_near_one():
    log, near_one = axis_of("k", [1e-4, 1e-2]), axis_of("k", [0.9, 0.999])
    assert [log.place(v) for v in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 0.5, 1])
    assert [near_one.place(v) for v in (0.9, 0.99, 0.999)] == pytest.approx([0, 0.5, 1])


def test_categories_are_equally_far_apart_in_the_order_of_their_names():
    axis = axis_of("k", ["resnet", "a", "zoo", "a"])
    assert [axis.place(v) for v in ("a", "resnet", "zoo")] == [0, 0.5, 1]
    assert [label for _, label in axis.ticks()] == ["a", "resnet", "zoo"]


def test_missing_values_have_no_place_and_a_single_one_lies_in_the_middle():
    axis = axis_of("k", [2.0, None, math.nan])
    assert axis.place(None) is axis.place(math.nan) is None
    assert axis.place(2.0) == 0.5
    assert axis_of("k", [None, math.inf]) is None


def test_ticks_are_the_values_where_these_are_few_and_round_ones_else():
    assert axis_of("k", [0.5, 1, 2]).ticks() == [
        (0.0, "0.5"), (pytest.approx(1 / 3), "1"), (1.0, "2"),
    ]  # fmt: skip
    many = axis_of("k", [i / 7 for i in range(29)]).ticks()
    assert [label for _, label in many] == ["0", "1", "2", "3", "4"]
    decades = axis_of("k", [10 ** (-4 + i / 50) for i in range(101)]).ticks()
    assert [label for _, label in decades] == ["0.0001", "0.001", "0.01"]
    assert [label for _, label in axis_of("k", [0.9, 0.99, 0.9999]).ticks()] == [
        "0.9", "0.99", "0.9999",
    ]  # fmt: skip


def test_wide_ranges_have_few_ticks_and_close_values_do_not_share_a_label():
    assert len(axis_of("k", [10.0**k for k in range(-20, 20)]).ticks()) <= 8
    places = [place for place, _ in axis_of("k", [1.0, 1.001, 1.002, 5.0]).ticks()]
    assert all(b - a > 0.1 for a, b in pairwise(places))


def test_axes_are_those_of_keys_that_any_trial_has_a_value_of():
    trials = [trial(a=1), trial(b="x", c=None), trial(a=2)]
    assert [axis.key for axis in sweep_axes(trials)] == ["a", "b"]
    assert sweep_axes([]) == []


def test_the_best_trial_is_the_first_of_the_best_metric_whichever_way_is_better():
    trials = [trial("a", None), trial("b", 0.2), trial("c", 0.9), trial("d", 0.9)]
    trials.append(trial("e", math.nan))
    assert best_trial(trials, higher_is_better=True).name == "c"
    assert best_trial(trials, higher_is_better=False).name == "b"
    assert best_trial(trials[:1], higher_is_better=True) is None


def test_categories_are_named_as_in_a_yaml_file():
    assert [as_text(v) for v in (True, False, "x", 3, 0.25)] == ["true", "false", "x", "3", "0.25"]
