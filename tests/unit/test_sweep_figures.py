import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from dsdi_ray.report.sweep_figures import (
    TrialResult,
    learning_curves,
    metric_by_hyperparameter,
    parallel_coordinates,
)

FIGURES = [metric_by_hyperparameter, parallel_coordinates, learning_curves]
RED, BLUE = (0xC2, 0x41, 0x0C), (0x25, 0x63, 0xEB)
STATUSES = ["finished", "stopped", "failed", "running"]


def trial(name="000", *, status="finished", metric=0.5, curve=(0.3, 0.5), **point):
    return TrialResult(name=name, point=point, status=status, metric=metric, curve=list(curve))


def made_up(num_trials):
    rng = np.random.default_rng(0)
    trials = []
    for i in range(num_trials):
        metric = float(rng.uniform(0.2, 0.9))
        point = {
            "loss.gamma": float(rng.uniform(0.5, 5)),
            "optimizer.learning_rate": float(10 ** rng.uniform(-4, -1)),
            "loss.family": str(rng.choice(["focal", "class_balanced", "reduced"])),
        }
        if point["loss.family"] == "class_balanced":
            point["loss.beta"] = float(rng.choice([0.9, 0.99, 0.9999]))
        curve = (metric * (1 - np.exp(-np.arange(1, 20) / 4))).tolist()
        trials.append(
            TrialResult(
                name=f"{i:03}",
                point={} if i == 1 else point,
                status=STATUSES[i % 4],
                metric=metric,
                curve=curve,
            )
        )
    return trials


def pixels_of(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(pixels, colour):
    return int((pixels == np.array(colour)).all(axis=-1).sum())


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("num_trials", [1, 37, 300])
def test_every_figure_is_drawn_for_few_and_many_trials(tmp_path, draw, num_trials):
    out = tmp_path / "new" / "figure.png"
    assert draw(made_up(num_trials), "LRAP", out) == out
    pixels = pixels_of(out)
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 600
    assert count(pixels, RED) > 20  # the best trial


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize(
    "trials",
    [
        [],
        [trial(metric=None, curve=[], a=1)],
        [trial(metric=math.nan, curve=[None, math.nan], a=1)],
    ],
    ids=["no trial", "no metric", "not a number"],
)
def test_where_there_is_nothing_to_see_the_figure_says_so(tmp_path, draw, trials):
    pixels = pixels_of(draw(trials, "m_$x$", tmp_path / "f.png"))
    assert pixels.shape[0] < 300
    assert count(pixels, RED) == 0
    assert pixels.min() < 200  # words


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize(
    "trials",
    [
        [trial(a=1), trial("001", a=1)],
        [trial(a="x")],
        [trial(a=None, b=True), trial("001", a=[1, 2], b=None)],
        [trial(metric=None, a=1), trial("001", curve=[None, 0.5, None], a=2)],
        [trial("a $very$ long name " * 5, **{"group.sub." + "k" * 60: "v_$x^" * 20})],
        [trial(f"{i}", backbone=f"a_long_backbone_name_{i}") for i in range(14)],
        [trial(status="unheard of", a=0.1)],
    ],
    ids=["one value", "one category", "mixed", "gaps", "long", "many categories", "status"],
)
def test_odd_sweeps_are_drawn_too(tmp_path, draw, trials):
    assert pixels_of(draw(trials, "m", tmp_path / "f.png")).shape[0] > 100


@pytest.mark.parametrize("draw", FIGURES)
def test_the_same_trials_give_the_same_figure_to_the_byte(tmp_path, draw):
    figures = [draw(made_up(20), "LRAP", tmp_path / f"{i}.png").read_bytes() for i in range(2)]
    assert figures[0] == figures[1]


def test_there_is_a_panel_per_hyperparameter_in_rows_of_three(tmp_path):
    sizes = [
        pixels_of(
            metric_by_hyperparameter(
                [trial(**{f"k{i}": i for i in range(n)})], "m", tmp_path / f"{n}.png"
            )
        ).shape[:2]
        for n in (2, 3, 4)
    ]
    assert sizes[0][0] == sizes[1][0] < sizes[2][0]
    assert sizes[0][1] < sizes[1][1] == sizes[2][1]


def test_parallel_axes_make_the_figure_wider(tmp_path):
    sizes = [
        pixels_of(
            parallel_coordinates(
                [trial(**{f"k{i}": i for i in range(n)})], "m", tmp_path / f"{n}.png"
            )
        ).shape[:2]
        for n in (4, 8)
    ]
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] > 1.5 * sizes[0][1]


def test_dots_of_stopped_trials_are_hollow(tmp_path):
    def has_full_dot(status):
        trials = [trial("best", metric=1.0, a=0), trial("other", status=status, a=1)]
        out = metric_by_hyperparameter(trials, "m", tmp_path / f"{status}.png")
        red, _, blue = np.moveaxis(pixels_of(out).astype(int), -1, 0)
        return bool(sliding_window_view(blue - red > 60, (5, 5)).all(axis=(2, 3)).any())

    # The best trial is red: what is blue is the other one, and its dot in the legend.
    assert has_full_dot("finished")
    assert not has_full_dot("stopped")


def test_where_lower_is_better_another_trial_is_the_best(tmp_path):
    trials = [trial("low", metric=0.1, a=0), trial("high", metric=0.9, a=1)]
    tops = []
    for higher_is_better in (True, False):
        out = tmp_path / f"{higher_is_better}.png"
        metric_by_hyperparameter(trials, "m", out, higher_is_better=higher_is_better)
        is_red = (pixels_of(out) == np.array(RED)).all(axis=-1)
        is_red[-60:] = False  # the legend
        tops.append(np.flatnonzero(is_red.any(axis=1)).mean())
    assert tops[0] < tops[1]
