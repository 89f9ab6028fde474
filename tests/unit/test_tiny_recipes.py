"""Tiny variants keep a recipe's method and are small."""

from pathlib import Path

import pytest

from dsdi_ray.config import Recipe, load_recipe
from dsdi_ray.distributed.paper_models import MODELS, OUTSIDE, load_models, load_tiny_models
from dsdi_ray.errors import ConfigError
from dsdi_ray.tiny_recipes import tiny_variant
from dsdi_ray.vision.backbones import build_backbone
from dsdi_ray.vision.network_facts import check_input_px

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
KEPT = ("name", "paper", "labels", "loss", "augmentation", "ema_decay", "select", "split_seed")


@pytest.mark.parametrize("name", MODELS)
def test_a_tiny_variant_keeps_loss_labels_schedule_and_technique(name):
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    tiny = tiny_variant(recipe, epochs=3)
    for key in KEPT:
        assert getattr(tiny, key) == getattr(recipe, key)
    assert tiny.schedule.name == recipe.schedule.name
    assert tiny.selection == recipe.selection
    assert Recipe.model_validate(tiny.model_dump(mode="json")) == tiny
    assert tiny.epochs == 3 * (tiny.schedule.cycles or 1)
    assert tiny.input_px == (96 if recipe.input_px == 448 else 64)
    assert tiny.backbone.weights == "none"
    check_input_px(tiny.backbone.name, tiny.input_px)
    network = build_backbone(tiny.backbone.name, num_classes=37)
    assert sum(p.numel() for p in network.parameters()) < 1_000_000


def test_models_of_one_architecture_stay_of_one_and_others_differ():
    tiny = {r.name: r for r in load_tiny_models(RECIPES, epochs=1)}
    backbones = {name: recipe.backbone.name for name, recipe in tiny.items()}
    assert len({backbones[name] for name in ("a01", "b02", "c03", "d13")}) == 4
    assert {backbones[name] for name in MODELS[2:-1]} == {backbones["c03"]}


def test_the_cycles_of_a_snapshot_recipe_fit_its_epochs():
    tiny = tiny_variant(load_recipe(RECIPES / "c10.yaml"), epochs=3)
    assert (tiny.schedule.name, tiny.schedule.cycles, tiny.epochs) == ("cyclic", 2, 6)


def test_another_member_plays_the_outside_system():
    first, other = load_tiny_models(RECIPES, ("a01",), epochs=1)
    assert (first.name, other.name) == ("a01", OUTSIDE)
    changed = {key for key in Recipe.model_fields if getattr(first, key) != getattr(other, key)}
    assert changed == {"name", "paper", "seed", "split_seed"}


def test_a_network_without_a_tiny_one_is_refused():
    recipe = load_recipe(RECIPES / "c03.yaml", ["backbone.name=resnet18"])
    with pytest.raises(ConfigError, match="no tiny network stands in for 'resnet18', only for reg"):
        tiny_variant(recipe, epochs=1)


def test_weights_of_a_folder_are_those_of_each_backbone(tmp_path):
    with pytest.raises(ConfigError, match=r"recipe d13: there are no weights .*se_ibn_resnet50\."):
        load_models(RECIPES, ("d13",), weights_dir=tmp_path)
    file = tmp_path / "se_ibn_resnet50.safetensors"
    file.touch()
    (recipe,) = load_models(RECIPES, ("d13",), weights_dir=tmp_path, overrides=["accumulate=2"])
    assert (recipe.backbone.weights, recipe.accumulate) == (str(file), 2)
    with pytest.raises(ConfigError, match="a model must be one of a01, b02, .*, got 'demo_a'"):
        load_models(RECIPES, ("demo_a",))
