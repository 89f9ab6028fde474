"""Soft labels are counts over the image's largest count (paper section 2.1)."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dsdi_ray.method.sampling import assign_splits
from dsdi_ray.method.soft_labels import (
    count_labels,
    encode_per_category,
    encode_soft_labels,
    majority_labels,
)
from dsdi_ray.storage.image_labels import TextTable
from dsdi_ray.storage.ladi import read_ladi_answers
from dsdi_ray.taxonomy import load_taxonomy

COUNTS = hnp.arrays(
    np.int64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.integers(0, 200)
)


def test_figure_1_of_the_paper_comes_out_of_its_raw_answers(tmp_path):
    flood, smoke, nothing = "damage:flood/water", "damage:smoke/fire", "damage:none"
    file = tmp_path / "answers.tsv"
    answers = [flood, flood, smoke, flood, flood, nothing]
    rows = [f"s3://ladi/a.jpg\tW{i}\t{[answer]!r}" for i, answer in enumerate(answers)]
    file.write_text("\n".join(["url\tWorkerId\tAnswer", *rows]))
    taxonomy = load_taxonomy("ladi_v1")

    labels = read_ladi_answers(TextTable.open(file), taxonomy)

    soft = dict(zip(taxonomy.class_names, labels.soft_labels[0].tolist(), strict=True))
    assert soft.pop("flooding / water damage") == 1.0
    assert soft.pop("smoke / fire") == 0.25
    assert soft.pop("damage: none") == 0.25
    assert len(soft) == 34
    assert set(soft.values()) == {0.0}


def test_a_vector_of_zeros_stays_zeros():
    assert encode_soft_labels([[0, 0], [2, 1]]).tolist() == [[0, 0], [1, 0.5]]


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_counts_that_cannot_be_are_refused_by_value(bad):
    with pytest.raises(ValueError, match=f"finite and not negative, got {bad}"):
        encode_soft_labels([1.0, bad])


@pytest.mark.parametrize("shape", [(), (3, 0)])
def test_an_array_without_classes_is_refused(shape):
    with pytest.raises(ValueError, match="C >= 1"):
        encode_soft_labels(np.zeros(shape))


@given(COUNTS)
def test_labels_equal_a_float64_transcription(counts):
    expected = np.zeros(counts.shape)
    for place in np.ndindex(counts.shape[:-1]):
        if max(counts[place]) > 0:
            expected[place] = [n / max(counts[place]) for n in counts[place].tolist()]
    soft = encode_soft_labels(counts)
    assert soft.dtype == np.float32
    np.testing.assert_array_equal(soft, expected.astype(np.float32))


@given(COUNTS, st.integers(1, 50))
def test_labels_keep_order_and_do_not_depend_on_how_many_answered(counts, factor):
    soft = encode_soft_labels(counts)
    assert ((soft >= 0) & (soft <= 1)).all()
    assert ((soft == 0) == (counts == 0)).all()
    np.testing.assert_allclose(encode_soft_labels(counts * factor), soft, rtol=1e-6)
    by_count = np.take_along_axis(soft, np.argsort(counts, axis=-1), axis=-1)
    assert (np.diff(by_count, axis=-1) >= 0).all()


def test_majority_is_more_than_half_of_those_asked():
    counts, asked = np.array([2, 2, 0, 1]), np.array([3, 4, 0, 1])
    assert majority_labels(counts, asked).tolist() == [True, False, False, True]


CATEGORIES = ["damage", "water", "damage", "water", "sky"]


def test_per_category_a_category_that_more_workers_were_asked_about_outshines_none():
    counts = [[4, 1, 2, 0, 0], [0, 0, 0, 3, 6]]
    assert encode_per_category(counts, CATEGORIES).tolist() == [[1, 1, 0.5, 0, 0], [0, 0, 0, 1, 1]]


@given(hnp.arrays(np.int64, st.tuples(st.integers(0, 4), st.just(5)), elements=st.integers(0, 9)))
def test_labels_per_category_equal_a_transcription(counts):
    soft = encode_per_category(counts, CATEGORIES)
    assert soft.dtype == np.float32
    for row, labels in zip(counts.tolist(), soft, strict=True):
        for i, category in enumerate(CATEGORIES):
            largest = max(n for n, c in zip(row, CATEGORIES, strict=True) if c == category)
            assert labels[i] == np.float32(row[i] / largest if largest else 0)


@given(COUNTS)
def test_one_category_alone_gives_the_papers_labels(counts):
    one = encode_per_category(counts, ["all"] * counts.shape[-1])
    np.testing.assert_array_equal(one, encode_soft_labels(counts))


def test_categories_are_as_many_as_classes():
    with pytest.raises(ValueError, match=r"must be \[..., 5\] like categories, got \(2, 4\)"):
        encode_per_category(np.ones((2, 4)), CATEGORIES)


def test_a_class_counts_once_for_each_image_that_it_is_present_in():
    labels = np.array([[1, 0.5, 0.4], [1, 0, 0.6]])
    assert count_labels(labels).tolist() == [2, 1, 1]
    assert count_labels(labels, threshold=0.6).tolist() == [2, 0, 1]


IDS = st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=60)
FRACTIONS = st.floats(0, 1)


@given(IDS, FRACTIONS, st.integers(0, 5), st.randoms())
def test_a_split_does_not_depend_on_the_order_of_rows(ids, fraction, seed, random):
    def held_back(names):
        split = assign_splits(names, validation_fraction=fraction, seed=seed)
        return {name for name, held in zip(names, split, strict=True) if held}

    shuffled = random.sample(ids, len(ids))
    assert held_back(ids) == held_back(shuffled)
    assert abs(len(held_back(ids)) - fraction * len(ids)) <= 0.5


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=60), FRACTIONS)
def test_groups_stay_whole_and_miss_the_fraction_by_half_of_the_largest_at_most(groups, fraction):
    ids = [f"image {i}" for i in range(len(groups))]
    split = assign_splits(ids, validation_fraction=fraction, groups=groups)
    for name in set(groups) - {None}:
        assert len({held for held, g in zip(split, groups, strict=True) if g == name}) == 1
    largest = max((n for g, n in Counter(groups).items() if g is not None), default=1)
    assert abs(split.sum() - fraction * len(ids)) <= largest / 2


def test_another_seed_holds_back_other_images():
    ids = [f"{i}.jpg" for i in range(500)]
    splits = [assign_splits(ids, seed=seed) for seed in (0, 0, 1)]
    assert splits[0].sum() == 100
    assert (splits[0] == splits[1]).all()
    assert (splits[0] & splits[2]).sum() < 40  # 20 by chance


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="must be in"):
        assign_splits(["a"], validation_fraction=fraction)
