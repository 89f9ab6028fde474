"""Taxonomies are data with rules."""

import pytest

from dsdi_ray.errors import TaxonomyError
from dsdi_ray.taxonomy import (
    BUILT_IN_TAXONOMIES,
    check_same_taxonomy,
    load_taxonomy,
    taxonomy_from_dict,
)


def two_classes(**first):
    return {"name": "two", "classes": [{"name": "a", **first}, {"name": "b"}]}


def test_ladi_v1_is_table_1_of_the_paper():
    taxonomy = load_taxonomy("ladi_v1")
    assert len(taxonomy) == 37
    assert len(taxonomy.features) == 32
    assert [taxonomy.class_names[i] for i in taxonomy.none_indices] == [
        f"{category}: none"
        for category in ("damage", "environment", "infrastructure", "vehicle", "water")
    ]
    counts = dict(zip(taxonomy.class_names, taxonomy.class_counts or (), strict=True))
    assert counts["lava"] == 67
    assert counts["damage: none"] == 98412
    assert set(taxonomy.none_indices).isdisjoint(taxonomy.feature_indices)
    assert taxonomy.categories == ("damage", "environment", "infrastructure", "vehicle", "water")


def test_flood_damage_and_flooding_water_are_two_classes():
    taxonomy = load_taxonomy("ladi_v1")
    assert taxonomy.index_of("damage:flood/water") == 1
    assert taxonomy.index_of("water:flooding") == 27
    assert taxonomy.index_of("vehicles:boat") == taxonomy.index_of("vehicle:boat")


def test_spellings_ignore_case_and_surrounding_space_and_unknown_ones_are_none():
    taxonomy = load_taxonomy("ladi_v1")
    assert taxonomy.index_of("  Damage:FLOOD/Water ") == 1
    assert taxonomy.index_of("damage:meteor") is None


@pytest.mark.parametrize("name", BUILT_IN_TAXONOMIES)
def test_a_taxonomy_survives_its_yaml_form(name):
    taxonomy = load_taxonomy(name)
    again = taxonomy_from_dict(taxonomy.to_dict())
    assert again == taxonomy
    assert again.taxonomy_id == taxonomy.taxonomy_id


def test_a_file_of_ones_own_may_be_a_list_of_names(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nclasses: [flood, smoke, {name: nothing, none: true}]\n")
    taxonomy = load_taxonomy(file)
    assert [c.feature_id for c in taxonomy.classes] == [1, 2, None]
    assert taxonomy.class_counts is None


def test_the_id_follows_meaning_and_not_spelling_or_counts():
    plain = taxonomy_from_dict(two_classes())
    assert taxonomy_from_dict(two_classes(aliases=["x"], count=3)).taxonomy_id == plain.taxonomy_id
    assert taxonomy_from_dict(two_classes(category="c")).taxonomy_id != plain.taxonomy_id


def test_artifacts_of_two_taxonomies_are_never_mixed():
    with pytest.raises(TaxonomyError, match=r"the member has taxonomy ladi_v2a-.* expected ladi"):
        check_same_taxonomy(load_taxonomy("ladi_v1"), load_taxonomy("ladi_v2a"), what="the member")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "must be a mapping"),
        ({"name": "x", "classes": []}, "non-empty `classes`"),
        ({"name": "x", "classes": [{"category": "c"}]}, "class 1 has no `name`"),
        (two_classes(colour="red"), "class 'a': unknown key 'colour'"),
        (two_classes(none=True, feature=1), "excludes `feature`"),
        (two_classes(feature=0), "must be an integer from 1, got 0"),
        (two_classes(aliases=["B"]), "'b' means both 'a' and 'b'"),
        (
            {"name": "x", "classes": [{"name": "a", "feature": 1}, {"name": "b", "feature": 1}]},
            "feature 1 is both 'a' and 'b'",
        ),
        ({"name": "x", "classes": [{"name": "a", "none": True}]}, "no class is a feature"),
        ({"name": "x", "classes": "flood"}, "`classes` must be a list, got 'flood'"),
        (two_classes(aliases="abc"), "class 'a': `aliases` must be a list, got 'abc'"),
        (two_classes(feature=3), "class 'b' has no `feature` number and others have one"),
    ],
)
def test_a_broken_rule_is_named_with_its_class(data, message):
    with pytest.raises(TaxonomyError, match=message):
        taxonomy_from_dict(data)


def test_a_name_that_is_neither_built_in_nor_a_file_is_refused_with_the_choices():
    with pytest.raises(TaxonomyError, match=r"neither built in \(ladi_v1, ladi_v2a\)"):
        load_taxonomy("ladi_v9")


def test_a_file_that_is_no_yaml_is_refused(tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text("name: [")
    with pytest.raises(TaxonomyError, match="not valid YAML"):
        load_taxonomy(file)


def test_a_name_given_twice_is_refused(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("name: twice\nclasses: [flood, smoke, Flood, flood]\n")
    with pytest.raises(TaxonomyError, match="'flood' means both 'flood' and 'Flood'"):
        load_taxonomy(file)
