import numpy as np
import pytest

from dsdi_ray.distributed.train_data import Pictures
from dsdi_ray.distributed.validation import validation_metrics
from dsdi_ray.method.epoch_selection import selected_epoch
from dsdi_ray.method.objective import Objective
from dsdi_ray.taxonomy import Taxonomy, TaxonomyClass

TAXONOMY = Taxonomy(
    name="two and none",
    classes=(
        TaxonomyClass(name="flood", feature_id=1),
        TaxonomyClass(name="smoke", feature_id=2),
        TaxonomyClass(name="none", is_none=True),
    ),
)


def part(labels, is_asked=None):
    labels = np.array(labels, np.float32)
    return Pictures(
        image_ids=[str(i) for i in range(len(labels))],
        jpegs=[],
        labels=labels,
        is_asked=is_asked,
        side_px=32,
        cached=np.zeros((len(labels), 32, 32, 3), np.uint8),
    )


def metrics(logits, pictures, **settings):
    return validation_metrics(
        np.array(logits, np.float32), pictures, objective=Objective(**settings), taxonomy=TAXONOMY
    )


LABELS = [[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0.3]]
LOGITS = [[3.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 9]]


def test_map_is_over_the_features_that_are_shown_and_each_class_has_its_ap():
    found = metrics(LOGITS, part(LABELS))
    assert found["average_precision"]["flood"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["average_precision"]["smoke"] is None
    assert found["average_precision"]["none"] < 1
    assert found["map"] == found["average_precision"]["flood"]
    assert 0 < found["lrap"] <= 1


def test_no_outlier_leaves_the_validation_loss_and_nobody_asked_counts_for_nothing():
    plain = metrics(LOGITS, part(LABELS))["validation_loss"]
    assert metrics(LOGITS, part(LABELS), remove_outliers=1)["validation_loss"] == plain
    nobody = np.zeros((4, 3), bool)
    assert metrics(LOGITS, part(LABELS, nobody))["validation_loss"] == 0


def test_what_nobody_was_asked_about_counts_in_no_metric():
    is_asked = np.array([[True, True, False], [True, False, True], [True] * 3, [False] * 3])
    perfect = [[9.0, 1, 8], [9, 8, 7], [0, 0, 9], [5, 5, 5]]
    labels = [[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert metrics(perfect, part(labels))["lrap"] < 1
    found = metrics(perfect, part(labels, is_asked))
    assert (found["lrap"], found["map"]) == (1, 1)
    assert found["average_precision"]["none"] == 1


def test_logits_that_are_no_numbers_have_no_metrics():
    found = metrics([[np.nan, 0, 0]] * 4, part(LABELS))
    assert found == {"validation_loss": None}


HISTORY = [
    {"epoch": 1, "lrap": 0.5, "map": 0.9, "validation_loss": 3.0},
    {"epoch": 2, "lrap": 0.8, "map": 0.1, "validation_loss": 2.0},
    {"epoch": 3, "lrap": 0.8, "map": None, "validation_loss": None},
    {"epoch": 4, "lrap": 0.1, "map": 0.2, "validation_loss": 9.0},
]


@pytest.mark.parametrize(
    ("selection", "epoch"), [("lrap", 3), ("map", 1), ("loss", 2), ("last", 4)]
)
def test_the_epoch_that_is_best_is_selected_of_equals_the_last(selection, epoch):
    assert selected_epoch(HISTORY, selection) == epoch


def test_without_a_validation_part_the_last_epoch_is_selected():
    assert selected_epoch([{"epoch": 1}, {"epoch": 2}], "lrap") == 2
