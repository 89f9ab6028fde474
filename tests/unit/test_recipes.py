"""The recipes in jobs/recipes against Table 2 of the paper."""

from pathlib import Path

import pytest

from dsdi_ray.config import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"

# Index, architecture, gamma, beta, th, other techniques, LRAP.
TABLE_2 = """
A01 | RegNet-6.4F     | 2.0 | -      | -   | -                  | 0.846
B02 | HRNet-W18       | 2.0 | -      | -   | 448                | 0.854
C03 | ResNeSt-50d     | 2.0 | 0.999  | -   | -                  | 0.844
C04 | ResNeSt-50d     | 2.0 | 0.9999 | -   | -                  | 0.853
C05 | ResNeSt-50d     | 2.0 | -      | 0.3 | -                  | 0.852
C06 | ResNeSt-50d     | 2.0 | -      | 0.5 | -                  | 0.844
C07 | ResNeSt-50d     | 2.0 | -      | 0.7 | -                  | 0.846
C08 | ResNeSt-50d     | 2.0 | -      | -   | none 0.1           | 0.837
C09 | ResNeSt-50d     | 2.0 | -      | -   | none 0.01          | 0.825
C10 | ResNeSt-50d     | 2.0 | -      | -   | none 0.01 snapshot | 0.823
C11 | ResNeSt-50d     | 2.0 | -      | -   | outliers           | 0.843
C12 | ResNeSt-50d     | 2.0 | -      | -   | lovasz             | 0.849
D13 | SE-IBN-ResNet50 | 2.0 | -      | -   | -                  | 0.824
"""
ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE_2.strip().splitlines()]
BACKBONES = {
    "RegNet-6.4F": "regnety_064",
    "HRNet-W18": "hrnet_w18",
    "ResNeSt-50d": "resnest50d",
    "SE-IBN-ResNet50": "se_ibn_resnet50",
}
EPOCHS, SNAPSHOT_EPOCHS = 40, 300


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_recipe_is_its_row_of_the_paper(row):
    index, architecture, gamma, beta, threshold, other, lrap = row
    file = RECIPES / f"{index.lower()}.yaml"
    recipe = load_recipe(file)
    loss = recipe.loss
    assert (recipe.paper.model, recipe.paper.lrap) == (architecture, float(lrap))
    assert recipe.backbone.name == BACKBONES[architecture]
    assert loss.gamma == float(gamma)
    assert loss.beta == (None if beta == "-" else float(beta))
    assert loss.threshold == (None if threshold == "-" else float(threshold))
    family = "class_balanced" if loss.beta else "reduced" if loss.threshold else "focal"
    assert loss.family == family
    assert recipe.input_px == (448 if other == "448" else 360)
    words = other.split()
    assert loss.none_weight == (float(words[1]) if words[0] == "none" else 1.0)
    assert loss.remove_outliers == (1 if other == "outliers" else 0)
    assert loss.lovasz.weight == (1.0 if other == "lovasz" else 0.0)
    assert loss.lovasz.scaling == "sqrt"
    is_snapshot = "snapshot" in words
    assert recipe.epochs == (SNAPSHOT_EPOCHS if is_snapshot else EPOCHS)
    assert (recipe.schedule.name == "cyclic") == is_snapshot
    assert (recipe.batch_size, recipe.accumulate, recipe.ema_decay) == (28, 1, None)
    assert (recipe.labels.encoding, recipe.labels.masked) == ("paper", False)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_recipes_head_says_what_the_paper_reports_and_that_times_are_not_measured(row):
    index, *_, lrap = row
    head = (RECIPES / f"{index.lower()}.yaml").read_text().split("\nname:")[0]
    assert head.startswith(f"# Model {index} (paper, Table 2): ")
    assert f"# LRAP: the paper reports {lrap}, on a validation split of its own." in head
    assert "# Time: about" in head
    assert "not measured" in head


def test_every_model_has_a_split_of_its_own():
    seeds = [load_recipe(RECIPES / f"{row[0].lower()}.yaml").split_seed for row in ROWS]
    assert None not in seeds
    assert len(set(seeds)) == len(ROWS)


def test_snapshots_end_with_whole_epochs_and_the_last_with_the_run():
    recipe = load_recipe(RECIPES / "c10.yaml")
    assert recipe.schedule.cycles == 6
    assert recipe.epochs % recipe.schedule.cycles == 0
