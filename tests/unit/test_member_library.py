import shutil
from dataclasses import replace

import numpy as np
import pytest
from validated_members import TAXONOMY, write_validated_member

from dsdi_ray.errors import DataError, TaxonomyError
from dsdi_ray.storage.member_library import find_bundles, read_library
from dsdi_ray.storage.validation_logits import VALIDATION_FILE, read_validation, write_validation
from dsdi_ray.taxonomy import taxonomy_from_dict


@pytest.fixture
def sweep(tmp_path):
    """A sweep's folder: two trials, one that is not over, a hidden one, members in a member."""
    folder = tmp_path / "sweep"
    for i, trial in enumerate(("one", "two")):
        write_validated_member(folder / "trials" / trial / "member", seed=i)
    write_validated_member(folder / "trials" / "two" / "member" / "last", seed=2)
    write_validated_member(folder / "trials" / "two" / "member" / "snapshots" / "cycle-1", seed=3)
    write_validated_member(folder / "trials" / "three" / "member.training" / "m", seed=4)
    write_validated_member(folder / ".old" / "member", seed=5)
    return folder


def names(places, **options):
    return [name for _, name in find_bundles(places, **options)]


def test_members_are_found_at_any_depth_but_not_in_members_hidden_or_unfinished(sweep):
    assert names([sweep]) == ["trials/one/member", "trials/two/member"]
    assert names([sweep], with_snapshots=True) == [
        "trials/one/member",
        "trials/two/member",
        "trials/two/member/last",
        "trials/two/member/snapshots/cycle-1",
    ]


def test_a_folder_may_be_a_member_itself_and_none_is_found_twice(sweep):
    two = sweep / "trials" / "two" / "member"
    assert find_bundles([two]) == [(two, "member")]
    assert find_bundles([two / "last"]) == [(two / "last", "last")]
    assert names([two, sweep]) == ["member", "trials/one/member"]


def test_names_that_two_folders_share_are_told_apart_by_their_paths(tmp_path):
    for i, folder in enumerate("ab"):
        write_validated_member(tmp_path / folder / "m", seed=i)
    assert names([tmp_path / "a", tmp_path / "b"]) == [
        str(tmp_path / "a" / "m"),
        str(tmp_path / "b" / "m"),
    ]


def test_a_place_without_members_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        find_bundles([tmp_path / "no"])
    with pytest.raises(DataError, match="there is no member bundle in it"):
        find_bundles([tmp_path])


def library_of(folder, **options):
    return read_library(find_bundles([folder], **options))


def test_a_library_holds_what_each_member_says_of_the_same_images(sweep):
    library = library_of(sweep, with_snapshots=True)
    assert [m.name for m in library.members] == names([sweep], with_snapshots=True)
    for member, logits in zip(library.members, library.logits, strict=True):
        own = read_validation(member.path)
        assert np.array_equal(own.logits, logits)
        assert list(own.image_ids) == list(library.image_ids)
    assert library.taxonomy == TAXONOMY
    assert (library.prepared_id, library.left_out, library.other_encodings) == ("p1", [], [])


def test_members_that_cannot_be_chosen_are_left_out_with_the_reason(sweep):
    one, two = (sweep / "trials" / name / "member" for name in ("one", "two"))
    shutil.copytree(one, sweep / "trials" / "zcopy")
    (two / VALIDATION_FILE).unlink()
    wild = sweep / "trials" / "wild"
    write_validated_member(wild, seed=9)
    own = read_validation(wild)
    write_validation(wild, replace(own, logits=np.full_like(own.logits, np.nan)))
    library = library_of(sweep)
    assert [m.name for m in library.members] == ["trials/one/member"]
    assert library.left_out == [
        ("trials/two/member", "no validation.parquet"),
        ("trials/wild", "logits that are not finite"),
        ("trials/zcopy", "the same weights as trials/one/member"),
    ]


def test_a_folder_of_members_that_all_cannot_be_chosen_is_refused(sweep):
    for name in ("one", "two"):
        (sweep / "trials" / name / "member" / VALIDATION_FILE).unlink()
    with pytest.raises(
        DataError, match="none of 2 member bundles can be chosen: trials/one/member"
    ):
        library_of(sweep)


def test_members_of_other_splits_or_sets_are_refused_and_named(sweep):
    for i, (name, changes) in enumerate(
        [("x", {"split_seed": 5}), ("y", {"prepared_id": "p2"}), ("z", {"split_seed": None}),
         ("zz", {"split_seed": 6})]
    ):  # fmt: skip
        write_validated_member(sweep / "trials" / name, seed=10 + i, **changes)
    with pytest.raises(DataError) as caught:
        library_of(sweep)
    assert str(caught.value) == (
        "members were not validated on the images of trials/one/member: trials/x (split_seed 5, "
        "not 0), trials/y (prepared set p2, not p1), trials/z (split_seed None, not 0) and 1 more; "
        "an ensemble is chosen among members of one prepared set and one split: train them with "
        "the same split_seed"
    )


def test_labels_of_another_encoding_are_told_and_other_labels_are_refused(sweep):
    write_validated_member(sweep / "trials" / "x", seed=10, encoding="majority")
    library = library_of(sweep)
    assert library.other_encodings == ["trials/x"]
    assert set(np.unique(library.labels)) == {0, 0.75}, "of the first member"

    own = read_validation(sweep / "trials" / "two" / "member")
    write_validation(
        sweep / "trials" / "two" / "member", replace(own, soft_labels=1 - own.soft_labels)
    )
    with pytest.raises(DataError, match=r"trials/two/member \(other labels of the same images\)"):
        library_of(sweep)


def test_logits_of_another_member_or_taxonomy_are_refused(sweep):
    one, two = (sweep / "trials" / name / "member" for name in ("one", "two"))
    other = taxonomy_from_dict({"name": "other", "classes": ["a", "b"]})
    write_validated_member(sweep / "trials" / "x", seed=10, taxonomy=other)
    with pytest.raises(TaxonomyError, match="trials/x has taxonomy other"):
        library_of(sweep)
    shutil.copy(one / VALIDATION_FILE, two / VALIDATION_FILE)
    with pytest.raises(DataError, match="validation.parquet is of member"):
        library_of(sweep)
