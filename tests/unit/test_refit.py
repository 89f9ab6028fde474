import pytest
from validated_members import write_validated_member

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.refit import plan_refits
from dsdi_ray.errors import DataError
from dsdi_ray.storage.bundles import read_member_spec


def recipe(**changes):
    values = {"name": "r", "backbone": {"name": "test_resnet", "weights": "none"}, "epochs": 12}
    return Recipe.model_validate(values | changes).model_dump(mode="json")


@pytest.fixture
def member(tmp_path):
    def write(name, seed, described, epoch=5):
        write_validated_member(tmp_path / name, seed=seed, recipe=described, epoch=epoch)
        return read_member_spec(tmp_path / name)

    return write


def test_a_member_is_trained_anew_on_all_images_by_its_own_recipe(member):
    own = recipe(select="map", loss={"gamma": 1.5}, split_seed=3)
    (refit,) = plan_refits([(member("a", 0, own), 2.0)])
    expected = {**own, "train_on": "all", "select": None, "name": refit.recipe.name}
    assert refit.recipe.model_dump(mode="json") == expected
    assert refit.recipe.selection == "last"
    assert (refit.bundle, refit.weight) == (".", 2.0)
    assert refit.recipe.name.startswith("r-")


def test_recipes_of_the_same_name_are_told_apart_and_the_same_recipe_is_one(member):
    first, other, last = plan_refits(
        [
            (member("a", 0, recipe(seed=0)), 1.0),
            (member("b", 1, recipe(seed=1)), 1.0),
            (member("last", 2, recipe(seed=0), epoch=12), 1.0),
        ]
    )
    assert first.recipe.name != other.recipe.name
    assert first.recipe == last.recipe
    assert first.bundle == last.bundle == "."


def test_a_snapshot_gives_way_to_the_snapshot_of_its_cycle(member):
    cyclic = recipe(schedule={"name": "cyclic", "cycles": 3})
    specs = [member(str(epoch), epoch, cyclic, epoch=epoch) for epoch in (4, 8, 12)]
    refits = plan_refits([(spec, 1.0) for spec in specs])
    assert [r.bundle for r in refits] == ["snapshots/cycle-1", "snapshots/cycle-2", "."]


def test_a_recipe_that_is_none_of_this_version_is_refused_in_one_line(member):
    with pytest.raises(DataError, match="its recipe is not one of this version: .*gama") as caught:
        plan_refits([(member("a", 0, {**recipe(), "gama": 1}), 1.0)])
    assert "\n" not in str(caught.value)
