"""Unfinished work is told by the whole of its name."""

from dsdi_ray.storage.unfinished import unfinished_beside


def test_only_work_for_the_very_same_place_is_found(tmp_path):
    for name in (
        ".a01.0123abcd.tmp",
        ".a01.v2.0123abcd.tmp",
        ".a01.0123abcd.partial",
        ".a01.0123abcde.tmp",
        ".a01.notes.tmp",
        ".a01.notebook.tmp",
        ".a0x.0123abcd.tmp",
    ):
        (tmp_path / name).mkdir()
    found = unfinished_beside(tmp_path / "a01", num_id_characters=8, suffix="tmp")
    assert [path.name for path in found] == [".a01.0123abcd.tmp"]


def test_names_are_no_patterns(tmp_path):
    for name in (".a[01].0123abcd.tmp", ".a0.0123abcd.tmp"):
        (tmp_path / name).mkdir()
    found = unfinished_beside(tmp_path / "a[01]", num_id_characters=8, suffix="tmp")
    assert [path.name for path in found] == [".a[01].0123abcd.tmp"]
