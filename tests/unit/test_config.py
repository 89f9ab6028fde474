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
    ("loss", "settings"),
    [
        ("{family: bce}", {}),
        ("{}", {"gamma": 2.0}),
        (
            "{family: class_balanced, beta: 0.99}",
            {"gamma": 2.0, "beta": 0.99, "class_counts": "table1", "normalized": True},
        ),
        (
            "{family: reduced, gamma: 0}",
            {"gamma": 0.0, "threshold": 0.5, "variant": "as_printed"},
        ),
    ],
)
def test_a_family_has_its_own_keys_with_defaults_and_no_others(recipe_file, loss, settings):
    recipe = load_recipe(recipe_file, [f"loss={loss}"])
    assert recipe.loss.family_settings == settings
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_a_cyclic_schedule_has_cycles_and_no_other_does(recipe_file):
    cyclic = load_recipe(recipe_file, ["schedule.name=cyclic", "epochs=12"])
    assert cyclic.schedule.cycles == 6
    assert load_recipe(recipe_file).schedule.cycles is None
    assert Recipe.model_validate(cyclic.model_dump(mode="json")) == cyclic


def test_what_is_learnt_from_all_images_ends_with_the_last_epoch(recipe_file):
    assert load_recipe(recipe_file).selection == "lrap"
    assert load_recipe(recipe_file, ["train_on=all"]).selection == "last"
    assert load_recipe(recipe_file, ["train_on=all", "select=last"]).selection == "last"


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
        ("loss.beta=0.9", "loss.beta: only family class_balanced takes it, got 0.9"),
        ("loss.threshold=0.5", "loss.threshold: only family reduced takes it, got 0.5"),
        ("loss.class_counts=counted", "loss.class_counts: only family class_balanced takes it"),
        ("loss.family=bce", "loss.gamma: only families focal, class_balanced, reduced take it"),
        ("loss={family: class_balanced, beta: 1.0}", "loss.beta: input should be less than 1"),
        ("loss={family: class_balanced, beta: -0.1}", "loss.beta: input should be greater than"),
        ("loss={family: reduced, threshold: 1}", "loss.threshold: input should be less than 1"),
        ("loss={family: reduced, threshold: 0}", "loss.threshold: input should be greater than"),
        ("loss={family: reduced, gamma: 0.5}", "loss.gamma: must be 0 or at least 1"),
        ("loss.none_weight=-1", "loss.none_weight: input should be greater than or equal to 0"),
        ("loss.remove_outliers=-1", "loss.remove_outliers: input should be greater than or"),
        (
            "loss.remove_outliers=28",
            "accumulate: must leave micro-batches of more images (28) than loss.remove_outliers removes (28)",
        ),
        (
            "loss.lovasz.wieght=1",
            "loss.lovasz.wieght: unknown key; did you mean loss.lovasz.weight?",
        ),
        ("labels.encoding=mean", "labels.encoding: input should be 'paper', 'per_category' or"),
        ("schedule.cycles=3", "schedule.cycles: only schedule cyclic takes it, got 3"),
        ("schedule={name: cyclic, cycles: 7}", "epochs: must be a multiple of schedule.cycles (7)"),
        ("accumulate=3", "accumulate: must divide batch_size into parts of at least 2 images"),
        ("accumulate=28", "accumulate: must divide batch_size into parts of at least 2 images"),
        ("ema_decay=1", "ema_decay: input should be less than 1, got 1"),
        ("train_on=some", "train_on: input should be 'train' or 'all'"),
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


@pytest.mark.parametrize("select", ["lrap", "map", "loss"])
def test_no_epoch_can_be_selected_where_no_image_is_held_back(recipe_file, select):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file, ["train_on=all", f"select={select}"])
    assert (
        f"select: must be last with train_on all, which holds no image back, got {select!r}"
        in str(caught.value)
    )
