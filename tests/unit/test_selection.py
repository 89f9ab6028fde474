import numpy as np
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.method.fusion import ensemble_frames, sigmoid
from dsdi_ray.method.quick_metrics import METRICS
from dsdi_ray.method.selection import (
    divide_images,
    logit_correlations,
    select_members,
    value_of,
    values_of_steps,
)

NUM_CLASSES = 4


def library(seed, *, num_members=6, num_images=60, noise=2.0):
    """Logits of members that see the labels through noise of their own, and the labels."""
    rng = np.random.default_rng(seed)
    present = rng.random((num_images, NUM_CLASSES)) < 0.3
    quality = rng.uniform(0.5, 2.0, num_members)[:, None, None]
    shape = (num_members, num_images, NUM_CLASSES)
    return quality * (present - 0.3) + noise * rng.normal(size=shape), present


def judged_by_scikit_learn(metric, present, logits, counts):
    """The metric as it is written elsewhere, of the ensemble as it is scored elsewhere."""
    scores = ensemble_frames(logits, np.asarray(counts, float))
    if metric == "lrap":
        return label_ranking_average_precision_score(present, scores)
    return np.mean(
        [
            average_precision_score(present[:, c], scores[:, c])
            for c in range(present.shape[1])
            if present[:, c].any()
        ]
    )


def greedy_by_exhaustion(metric, present, logits, *, size, free, initial):
    """Forward selection in the plainest way: every candidate's whole ensemble is judged anew."""
    num_members = len(logits)

    def value(members):
        counts = np.bincount(members, minlength=num_members)
        value = judged_by_scikit_learn(metric, present, logits, counts)
        return round(value, 12)  # equal ones differ by the order of sums

    best_first = sorted(range(num_members), key=lambda m: (-value([m]), m))
    chosen, values = [], []
    while len(chosen) < size:
        if len(chosen) < initial:
            candidates = [best_first[len(chosen)]]
        else:
            candidates = [m for m in range(num_members) if free or m not in chosen]
        found = [value([*chosen, m]) for m in candidates]
        best = int(np.argmax(found))
        chosen.append(candidates[best])
        values.append(found[best])
    return chosen, values


def choose(logits, present, metric="map", **options):
    judge = METRICS[metric](present, range(NUM_CLASSES))
    return select_members(sigmoid(logits), judge, **options)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("weights", ["equal", "free"])
@pytest.mark.parametrize("initial", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_that_of_a_greedy_search_by_exhaustion(metric, weights, initial, seed):
    logits, present = library(seed)
    selection = choose(logits, present, metric, size=5, weights=weights, initial=initial)
    chosen, values = greedy_by_exhaustion(
        metric, present, logits, size=5, free=weights == "free", initial=initial
    )
    assert [step.member for step in selection.steps] == chosen
    assert [step.value for step in selection.steps] == pytest.approx(values, abs=1e-12)
    num_kept = int(np.argmax(values)) + 1 if weights == "free" else 5
    expected = np.bincount(chosen[:num_kept], minlength=len(logits))
    assert selection.counts.tolist() == expected.tolist()
    assert [step.is_kept for step in selection.steps] == [i < num_kept for i in range(5)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(10))
def test_with_free_weights_it_is_never_worse_than_the_best_single_on_what_it_was_chosen_on(
    metric, seed
):
    logits, present = library(seed, noise=4.0)
    selection = choose(logits, present, metric, size=8, weights="free", initial=1)
    chosen = judged_by_scikit_learn(metric, present, logits, selection.counts)
    assert chosen >= selection.singles.max() - 1e-12
    assert selection.steps[0].value == pytest.approx(selection.singles.max())


def test_equal_weights_choose_exactly_so_many_members_each_once():
    logits, present = library(0, num_members=9)
    for bags in (1, 5):
        selection = choose(logits, present, size=4, bags=bags)
        assert sorted(selection.counts.tolist()) == [0] * 5 + [1] * 4
    everyone = choose(logits, present, size=9)
    assert everyone.counts.tolist() == [1] * 9


def test_a_bag_chooses_from_half_of_the_members_and_counts_add_up():
    logits, present = library(3, num_members=8)
    selection = choose(logits, present, size=6, weights="free", bags=7)
    for bag in range(1, 8):
        steps = [step for step in selection.steps if step.bag == bag]
        assert len(steps) == 6
        assert len({step.member for step in steps}) <= 4
    kept = np.bincount([s.member for s in selection.steps if s.is_kept], minlength=8)
    assert selection.counts.tolist() == kept.tolist()


def test_with_equal_weights_those_that_most_bags_chose_are_taken():
    logits, present = library(3, num_members=8)
    selection = choose(logits, present, size=3, bags=9)
    votes = np.bincount([step.member for step in selection.steps], minlength=8)
    chosen = np.flatnonzero(selection.counts)
    assert votes[chosen].min() >= np.delete(votes, chosen).max()


def test_the_same_seed_gives_the_same_choice_and_another_seed_other_bags():
    logits, present = library(5, num_members=10)

    def members(seed):
        return [s.member for s in choose(logits, present, size=3, bags=4, seed=seed).steps]

    assert members(0) == members(0)
    assert members(0) != members(1)


def test_of_equal_members_the_earlier_is_taken():
    logits, present = library(6, num_members=3)
    twins = logits[[2, 0, 0, 1, 1]]
    selection = choose(twins, present, size=5, weights="free")
    assert not {2, 4} & {step.member for step in selection.steps}


def test_steps_and_ensembles_are_judged_on_other_images_as_by_scikit_learn():
    logits, present = library(7, num_images=90)
    other_logits, other = library(8, num_images=50)
    selection = choose(logits, present, size=4, weights="free", bags=2)
    judge = METRICS["map"](other, range(NUM_CLASSES))
    values = values_of_steps(sigmoid(other_logits), judge, selection.steps)
    for i, step in enumerate(selection.steps):
        members = [s.member for s in selection.steps[: i + 1] if s.bag == step.bag]
        counts = np.bincount(members, minlength=6)
        expected = judged_by_scikit_learn("map", other, other_logits, counts)
        assert values[i] == pytest.approx(expected, abs=1e-12)
    assert value_of(sigmoid(other_logits), judge, selection.counts) == pytest.approx(
        judged_by_scikit_learn("map", other, other_logits, selection.counts), abs=1e-12
    )


def test_every_step_is_told():
    logits, present = library(0)
    told = []
    choose(logits, present, size=4, weights="free", bags=3, after_step=lambda: told.append(1))
    assert len(told) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 7}, "size must be from 1 to 6, the number of members, with weights equal, got 7"),
        ({"size": 0, "weights": "free"}, "size must be at least 1, with weights free, got 0"),
        ({"size": 2, "weights": "best"}, "weights must be one of equal, free, got 'best'"),
        ({"size": 2, "initial": 3}, "initial must be from 1 to 2 here, got 3"),
        ({"size": 5, "initial": 4, "bags": 2}, "initial must be from 1 to 3 here, got 4"),
        ({"size": 2, "bags": 0}, "bags must be at least 1, got 0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    logits, present = library(0)
    with pytest.raises(ConfigError) as caught:
        choose(logits, present, **options)
    assert str(caught.value) == message


IDS = [f"image-{i}" for i in range(40)]


def test_images_are_divided_in_halves_by_the_seed_alone():
    held_back, unit = divide_images(IDS, [None] * 40, seed=0)
    assert (held_back.sum(), unit) == (20, "image")
    backwards, _ = divide_images(IDS[::-1], [None] * 40, seed=0)
    assert np.array_equal(backwards[::-1], held_back)
    other, _ = divide_images(IDS, [None] * 40, seed=1)
    assert not np.array_equal(other, held_back)


def test_images_of_a_group_are_on_one_side_where_groups_are_known():
    groups = [f"flight-{i // 4}" for i in range(40)]
    held_back, unit = divide_images(IDS, groups, seed=0)
    assert unit == "group"
    assert 10 <= held_back.sum() <= 30
    for flight in set(groups):
        assert len({held_back[i] for i in range(40) if groups[i] == flight}) == 1


def test_one_group_of_nearly_all_images_is_divided_by_image():
    held_back, unit = divide_images(IDS, ["flight"] * 36 + [None] * 4, seed=0)
    assert (held_back.sum(), unit) == (20, "image")


def test_one_image_cannot_be_divided():
    with pytest.raises(DataError, match="at least 2 images are needed to divide them, there are 1"):
        divide_images(["one"], [None], seed=0)


def test_correlations_are_the_mean_of_pearsons_over_classes():
    logits, _ = library(9, num_members=3)
    expected = np.mean([np.corrcoef(logits[:, :, c]) for c in range(NUM_CLASSES)], axis=0)
    assert logit_correlations(logits) == pytest.approx(expected)


def test_a_class_of_which_a_member_always_says_the_same_has_no_correlation():
    logits, _ = library(9, num_members=3)
    constant = logits.copy()
    constant[1, :, 2] = 0.1
    assert logit_correlations(constant) == pytest.approx(
        logit_correlations(logits[:, :, [0, 1, 3]])
    )
    assert np.isnan(logit_correlations(np.ones((2, 5, NUM_CLASSES)))).all()
