from pathlib import Path

import pytest

from dsdi_ray.config import load_recipe
from dsdi_ray.errors import ConfigError
from dsdi_ray.sweep_config import (
    Sweep,
    base_recipe,
    load_sweep,
    points,
    say_point,
    trial_recipe,
)

SWEEPS = sorted((Path(__file__).resolve().parents[2] / "jobs" / "sweeps").glob("*.yaml"))
RECIPE = """
name: small
backbone: {name: test_resnet, weights: none}
input_px: 64
loss: {family: reduced, gamma: 2.0, threshold: 0.3}
"""


def write_sweep(folder: Path, text: str) -> Path:
    (folder / "small.yaml").write_text(RECIPE)
    path = folder / "sweep.yaml"
    path.write_text("name: mine\nrecipe: small.yaml\n" + text)
    return path


def swept(folder: Path, text: str) -> tuple[Sweep, dict]:
    sweep = load_sweep(write_sweep(folder, text))
    return sweep, base_recipe(sweep)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_every_sweep_that_is_shipped_has_valid_trials_and_gives_its_command(path):
    sweep = load_sweep(path)
    base = base_recipe(sweep)
    recipes = [trial_recipe(sweep, base, point, seed=0) for point in points(sweep, base)]
    assert sweep.name == path.stem
    assert f"dsdi sweep jobs/sweeps/{path.name} --data" in path.read_text()
    number = {"losses": 21, "backbones": 22, "smoke": 12}[path.stem]
    assert len(recipes) == number
    assert f"{number}\n# trials" in path.read_text() or f"{number} trials" in path.read_text()


def test_a_key_of_one_family_multiplies_only_the_trials_of_that_family(tmp_path):
    sweep, base = swept(
        tmp_path,
        "space:\n"
        "  loss.beta: [0.9, 0.99]\n"
        "  loss.threshold: [0.3, 0.5, 0.7]\n"
        "  loss.gamma: [1.0, 2.0]\n"
        "  loss.family: [bce, focal, class_balanced, reduced]\n",
    )
    found = points(sweep, base)
    by_family = {
        f: [p for p in found if p["loss.family"] == f] for f in sweep.space["loss.family"].grid
    }
    assert {family: len(ps) for family, ps in by_family.items()} == {
        "bce": 1,
        "focal": 2,
        "class_balanced": 4,
        "reduced": 6,
    }
    assert by_family["bce"] == [{"loss.family": "bce"}]
    assert all("loss.threshold" not in p for p in by_family["class_balanced"])


def test_keys_of_the_base_that_another_family_does_not_take_are_dropped(tmp_path):
    sweep, base = swept(tmp_path, "space: {loss.family: [focal, class_balanced]}\n")
    recipes = [trial_recipe(sweep, base, p, seed=0) for p in points(sweep, base)]
    assert [recipe.loss.family for recipe in recipes] == ["focal", "class_balanced"]
    assert [recipe.loss.threshold for recipe in recipes] == [None, None]
    assert recipes[1].loss.beta == 0.9999


def test_the_family_of_the_base_counts_where_it_is_not_varied(tmp_path):
    sweep, base = swept(tmp_path, "space: {loss.threshold: [0.4], loss.beta: [0.9, 0.99]}\n")
    assert points(sweep, base) == [{"loss.threshold": 0.4}]


def test_random_points_are_drawn_within_their_ranges_and_alike_for_a_seed(tmp_path):
    text = (
        "space:\n"
        "  optimizer.lr: {loguniform: [1.0e-4, 1.0e-1]}\n"
        "  loss.none_weight: {uniform: [0, 1]}\n"
        "  input_px: {integer: [64, 128, 32]}\n"
        "  backbone.name: {choice: [test_resnet, test_vit]}\n"
        "search: {algorithm: random, num_samples: 200, seed: 3}\n"
    )
    sweep, base = swept(tmp_path, text)
    found = points(sweep, base)
    assert found == points(sweep, base)
    assert len(found) == 200
    rates = [p["optimizer.lr"] for p in found]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert 70 < sum(rate < 10**-2.5 for rate in rates) < 130  # half of the decades
    assert {p["input_px"] for p in found} == {64, 96, 128}
    assert {p["backbone.name"] for p in found} == {"test_resnet", "test_vit"}


def test_a_grid_draws_what_is_not_listed_anew_for_each_sample(tmp_path):
    sweep, base = swept(
        tmp_path,
        "space: {loss.gamma: [1, 2], optimizer.lr: {uniform: [0.1, 0.2]}}\nsearch: {num_samples: 3}\n",
    )
    found = points(sweep, base)
    assert [p["loss.gamma"] for p in found] == [1, 1, 1, 2, 2, 2]
    assert len({p["optimizer.lr"] for p in found}) == 6


def test_a_point_that_comes_twice_is_one_trial(tmp_path):
    sweep, base = swept(
        tmp_path, "space: {input_px: {choice: [64]}}\nsearch: {algorithm: random, num_samples: 9}\n"
    )
    assert points(sweep, base) == [{"input_px": 64}]


def test_a_trial_selects_by_the_metric_of_the_sweep_unless_the_recipe_says_otherwise(tmp_path):
    sweep, base = swept(tmp_path, "space: {input_px: [64]}\nmetric: map\n")
    assert trial_recipe(sweep, base, {}, seed=0).select == "map"
    assert trial_recipe(sweep, base | {"select": "last"}, {}, seed=0).select == "last"
    cyclic = base | {"schedule": {"name": "cyclic", "cycles": 4}}
    assert trial_recipe(sweep, cyclic, {}, seed=0).selection == "last"


def test_seeds_are_added_to_the_recipes_own(tmp_path):
    sweep, base = swept(tmp_path, "space: {input_px: [64]}\nseeds: 3\n")
    seeds = [trial_recipe(sweep, base | {"seed": 5}, {}, seed=s).seed for s in range(3)]
    assert seeds == [5, 6, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: {}\n", "space:"),
        ("space: {input_px: []}\n", "space.input_px.grid:"),
        ("space: {input_px: {uniform: [2, 1]}}\n", "uniform must go up"),
        ("space: {input_px: {integer: [1, 9, 0]}}\n", "the step of integer must be at least 1"),
        (
            "space: {input_px: {uniform: [1, 2], choice: [3]}}\n",
            "must be a list of values, or one of",
        ),
        ("space: {optimizer.lr: {loguniform: [0, 1]}}\n", "greater than 0"),
        ("space: {seed: [1, 2]}\n", "seed is no axis"),
        ("space: {input_px: [64]}\nmetrik: map\n", "metrik: unknown key; did you mean metric?"),
        ("space: {input_px: [64]}\nresources: {gpus_per_worker: 2}\n", "must be at most 1"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_rule(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        load_sweep(write_sweep(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: {loss.gama: [1]}\n", "loss.gama: unknown key; did you mean loss.gamma?"),
        (
            "space: {loss.gamma: [0.5]}\n",
            "trial loss.gamma=0.5: loss.gamma: must be 0 or at least 1",
        ),
    ],
)
def test_a_trial_whose_recipe_is_wrong_is_named(tmp_path, text, message):
    sweep, base = swept(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        [trial_recipe(sweep, base, point, seed=0) for point in points(sweep, base)]
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["split_seed", "train_on", "labels.encoding", "labels.masked"])
@pytest.mark.parametrize("algorithm", ["grid", "optuna"])
def test_trials_that_validate_on_different_images_or_labels_are_refused(tmp_path, key, algorithm):
    text = f"space: {{{key}: [1, 2]}}\nsearch: {{algorithm: {algorithm}}}\n"
    with pytest.raises(ConfigError, match=f"{key} is no axis: .* different images or labels"):
        load_sweep(write_sweep(tmp_path, text))


def test_losses_are_not_compared_by_values_of_their_own(tmp_path):
    space = "space: {loss.gamma: [1, 2]}\n"
    with pytest.raises(ConfigError, match=r"metric loss cannot compare .* loss.gamma"):
        load_sweep(write_sweep(tmp_path, space + "metric: loss\n"))
    assert load_sweep(write_sweep(tmp_path, "space: {input_px: [32]}\nmetric: loss\n"))


def test_a_sweep_without_images_held_back_is_refused(tmp_path):
    sweep, base = swept(tmp_path, "space: {input_px: [32]}\noverrides: {train_on: all}\n")
    with pytest.raises(ConfigError, match="train_on: all holds no images back"):
        trial_recipe(sweep, base, {"input_px": 32}, seed=0)


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    sweep = load_sweep(write_sweep(tmp_path, "space: {optimizer.lr: [0.01, 1e-3], x: [b1e5]}\n"))
    assert sweep.space["optimizer.lr"].grid == (0.01, 0.001)
    assert sweep.space["x"].grid == ("b1e5",)


def test_overrides_of_the_command_line_change_the_sweep(tmp_path):
    path = write_sweep(tmp_path, "space: {input_px: [64]}\n")
    sweep = load_sweep(path, ["seeds=3", "search.num_samples=5", "early_stopping=null"])
    assert (sweep.seeds, sweep.search.num_samples, sweep.early_stopping) == (3, 5, None)


def test_a_point_reads_well():
    assert say_point({"loss.gamma": 2.0, "optimizer.lr": 0.00123456}) == (
        "loss.gamma=2, optimizer.lr=0.001235"
    )
    assert say_point({}) == "(as the recipe)"


def test_the_strength_of_augmentation_scales_the_angle_and_the_colours(tmp_path):
    write_sweep(tmp_path, "space: {augmentation.strength: [0.5]}\n")
    half = load_recipe(tmp_path / "small.yaml", ["augmentation.strength=0.5"]).augmentation
    assert half.scaled["rotation_degrees"] == 7.5
    assert half.scaled["hue"] == 0.025
    assert half.scaled["horizontal_flip"] == 0.5
    most = load_recipe(tmp_path / "small.yaml", ["augmentation.strength=100"]).augmentation
    assert (most.scaled["rotation_degrees"], most.scaled["hue"]) == (180.0, 0.5)
