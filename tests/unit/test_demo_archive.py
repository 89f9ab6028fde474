"""Where a made-up archive may be written: over one begun there, never over anything else."""

import json

import pytest

from dsdi_ray.distributed import demo_archive
from dsdi_ray.distributed.demo_archive import find_archive, make_archive
from dsdi_ray.errors import DataError

SIZE = {"num_images": 1, "num_clips": 0}


class PowerCutError(Exception):
    pass


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(demo_archive, "_on_all_cores", map)


def cut_short(monkeypatch, root, *, seed):
    """begin an archive that is not whole when the power goes."""

    def render(work, numbers):
        for number in numbers:
            yield work(number)
            raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(demo_archive, "_on_all_cores", render)
        with pytest.raises(PowerCutError):
            make_archive(root, **SIZE, seed=seed)


@pytest.mark.parametrize(
    "name", ["holiday.mp4", "answers.tsv", "images/photo.jpg", "archive.json", ".hidden"]
)
def test_a_folder_of_others_is_refused_and_kept(tmp_path, name):
    file = tmp_path / "archive" / name
    file.parent.mkdir(parents=True)
    file.write_text("[]")
    with pytest.raises(DataError, match=f"holds {name}.*choose another folder"):
        make_archive(tmp_path / "archive", **SIZE, seed=0)
    assert file.read_text() == "[]"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [file]


def test_files_that_were_put_into_an_archive_are_not_replaced_with_it(tmp_path):
    make_archive(tmp_path, **SIZE, seed=0)
    mine = tmp_path / "clips" / "mine.mp4"
    mine.write_bytes(b"film")
    make_archive(tmp_path, **SIZE, seed=0)
    with pytest.raises(DataError, match=r"holds clips/mine.mp4"):
        make_archive(tmp_path, **SIZE, seed=1)
    assert mine.read_bytes() == b"film"
    assert find_archive(tmp_path, **SIZE, seed=0) is not None


@pytest.mark.parametrize("seed", [0, 1])
def test_an_archive_that_was_cut_off_is_replaced(tmp_path, monkeypatch, seed):
    cut_short(monkeypatch, tmp_path / "archive", seed=0)
    assert find_archive(tmp_path / "archive", **SIZE, seed=0) is None
    made = make_archive(tmp_path / "archive", **SIZE, seed=seed)
    assert find_archive(tmp_path / "archive", **SIZE, seed=seed) == made
    assert json.loads((tmp_path / "archive" / "truth.json").read_text())["seed"] == seed


def test_an_archive_that_was_made_another_way_is_replaced(tmp_path):
    make_archive(tmp_path, num_images=2, num_clips=0, seed=0)
    made = make_archive(tmp_path, **SIZE, seed=0)
    assert len(list(made.images_dir.iterdir())) == 1


def test_an_empty_folder_and_a_marker_that_was_torn_are_begun_in(tmp_path):
    (tmp_path / ".archive.json.1a2b3c4d.tmp").write_text('{"requ')
    make_archive(tmp_path, **SIZE, seed=0)
    assert find_archive(tmp_path, **SIZE, seed=0) is not None
