from pathlib import Path

import pytest
import yaml

from dsdi_ray.config import Recipe, load_recipe
from dsdi_ray.errors import ConfigError

RECIPES = sorted((Path(__file__).resolve().parents[2] / "jobs" / "recipes").glob("*.yaml"))


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbackbone: {name: resnest50d}\nloss: {gamma: 2.0}\n")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_that_is_shipped_is_valid_and_named_as_its_file(path):
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_gives_the_command_that_runs_it(path):
    assert f"#   dsdi train jobs/recipes/{path.name} --data" in path.read_text()


def test_the_papers_recipes_are_the_papers():
    a01, b02 = (load_recipe(p) for p in RECIPES if p.stem in ("a01", "b02"))
    for recipe in (a01, b02):
        assert (recipe.batch_size, recipe.epochs, recipe.loss.gamma) == (28, 40, 2.0)
    assert (a01.input_px, a01.paper.lrap) == (360, 0.846)
    assert (b02.input_px, b02.paper.lrap) == (448, 0.854)
    assert a01.split_seed != b02.split_seed


def test_the_default_learning_rate_scales_with_the_batch(recipe_file):
    assert load_recipe(recipe_file).learning_rate == pytest.approx(0.1 * 28 / 256)
    assert load_recipe(recipe_file, ["optimizer.lr=1e-3"]).learning_rate == 0.001


def test_overrides_are_applied_in_order_and_read_as_yaml(recipe_file):
    recipe = load_recipe(
        recipe_file,
        ["epochs=3", "epochs=4", "loss.gamma=1.5", "split_seed=null", "mixed_precision=false"],
    )
    assert (recipe.epochs, recipe.loss.gamma) == (4, 1.5)
    assert recipe.split_seed is None
    assert recipe.mixed_precision is False


def test_the_resolved_recipe_survives_yaml(recipe_file):
    recipe = load_recipe(recipe_file)
    again = yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert Recipe.model_validate(again) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.gama=1", "loss.gama: unknown key; did you mean loss.gamma?"),
        ("epoch=1", "epoch: unknown key; did you mean epochs?"),
        ("zzz=1", "zzz: unknown key"),
        ("loss.gamma=0.5", "loss.gamma: must be 0 or at least 1: in between the gradient at p = y"),
        ("epochs=0", "epochs: input should be greater than or equal to 1, got 0"),
        ("epochs=many", "epochs: input should be a valid integer"),
        (
            "loss.family=lovasz",
            "loss.family: input should be 'bce', 'focal', 'class_balanced' or 'reduced'",
        ),
        ("optimizer.lr=.nan", "optimizer.lr:"),
        ("augmentation.horizontal_flip=2", "augmentation.horizontal_flip:"),
        ("backbone={}", "backbone.name: must be given"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_file_key_and_rule(recipe_file, override, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file, [override])
    text = str(caught.value)
    assert text.startswith(f"recipe {recipe_file}: {message}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "must be key=value"),
        ("=3", "must be key=value"),
        ("name.x=1", "name is a value, not a section"),
        ("epochs=[1", "not a valid value"),
    ],
)
def test_an_override_that_is_none_is_refused(recipe_file, override, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe_file, [override])


@pytest.mark.parametrize("content", ["- a\n", "a: [1\n", "", "\xff\xfe"])
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "no.yaml")


def test_a_recipe_cannot_be_changed(recipe_file):
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(recipe_file).epochs = 3
