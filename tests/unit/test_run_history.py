import pytest

from dsdi_ray.errors import DataError, StoreError
from dsdi_ray.storage.bundles import EnsembleMember, EnsembleSpec, MemberSpec
from dsdi_ray.storage.manifest import manifest_table
from dsdi_ray.storage.run_history import changed_inputs, last_run, next_run, run_inputs
from dsdi_ray.storage.runs import run_of_scores, write_run
from dsdi_ray.taxonomy import taxonomy_from_dict

TAXONOMY = taxonomy_from_dict({"name": "two", "classes": ["red", "green"]})
RUN = run_of_scores({1: {"a": 0.5, "b": 0.25}})
CLIPS = manifest_table(
    {"clip_id": name, "uri": f"/{name}.mp4", "media": "video", "content_id": f"1-{name}"}
    for name in "ab"
)
SPEC = MemberSpec(
    backbone="resnet18", input_px=64, mean=(0, 0, 0), std=(1, 1, 1), taxonomy=TAXONOMY
)


def ensemble(**weights):
    members = tuple(
        EnsembleMember(path=f"/{name}", member_id=name, weight=weight, spec=SPEC)
        for name, weight in weights.items()
    )
    return EnsembleSpec(members=members, taxonomy=TAXONOMY)


def inputs(manifest=CLIPS, members=None, **changes):
    others = {"decode_id": "d", "pool": "max", "num_outcomes": {"ok": 2, "failed": 0}}
    return run_inputs(manifest, members or ensemble(m=1.0), **{**others, **changes})


def write_next(folder, run=RUN, **metadata):
    with next_run(folder) as new:
        write_run(run, new.folder / "run.parquet", metadata=metadata)
        new.write_manifest(CLIPS)
    return new.name


def test_runs_are_numbered_and_the_last_one_is_read_with_what_it_was_made_of(tmp_path):
    assert last_run(tmp_path / "runs") is None
    assert write_next(tmp_path / "runs") == "0001"
    other = run_of_scores({1: {"b": 0.75}})
    assert write_next(tmp_path / "runs", other, **inputs()) == "0002"
    last = last_run(tmp_path / "runs")
    assert last.name == "0002"
    assert last.run.equals(other)
    assert last.manifest.equals(CLIPS)
    assert last.inputs == inputs()
    assert last.member_weights == {"m": 1.0}
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["0001", "0002"]


def test_numbers_go_on_past_four_digits_and_other_folders_do_not_count(tmp_path):
    for name in ("9999", "10000", "20240101-notes", "x"):
        (tmp_path / name).mkdir()
    with next_run(tmp_path) as new:
        assert new.name == "10001"
    assert (tmp_path / "10001").is_dir()


def test_a_run_that_fails_half_way_is_not_there(tmp_path):
    write_next(tmp_path)

    def fail():
        with next_run(tmp_path) as new:
            write_run(RUN, new.folder / "run.parquet")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["0001"]


def test_a_run_never_takes_the_place_of_another(tmp_path):
    def be_late():
        with next_run(tmp_path) as new:
            write_run(RUN, tmp_path / new.name / "run.parquet")  # another job was faster
            write_run(run_of_scores({1: {"z": 1.0}}), new.folder / "run.parquet")

    with pytest.raises(StoreError, match="run this one again"):
        be_late()
    assert [p.name for p in tmp_path.iterdir()] == ["0001"]
    assert (tmp_path / "0001" / "run.parquet").is_file()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"), next_run(tmp_path / "runs"):
        pass


def test_the_order_of_clips_and_members_is_no_change():
    reordered = inputs(CLIPS.take([1, 0]), ensemble(n=2.0, m=1.0))
    assert changed_inputs(inputs(members=ensemble(m=1.0, n=2.0)), reordered) == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"manifest": CLIPS.slice(0, 1)}, ["clips"]),
        ({"members": ensemble(m=2.0)}, ["members"]),
        ({"members": ensemble(n=1.0)}, ["members"]),
        ({"pool": "mean", "decode_id": "e"}, ["decode_id", "pool"]),
        ({"num_outcomes": {"ok": 1, "failed": 1}}, ["outcomes"]),
    ],
)
def test_what_changed_is_named(changes, names):
    assert changed_inputs(inputs(), inputs(**changes)) == names


def test_a_clip_whose_content_or_part_changed_is_a_change():
    rows = CLIPS.to_pylist()
    for change in ({"content_id": "1-x"}, {"start_seconds": 2.0}, {"end_seconds": 2.0}):
        other = manifest_table([rows[0], rows[1] | change])
        assert changed_inputs(inputs(), inputs(other)) == ["clips"]
    assert changed_inputs(inputs(), inputs(manifest_table([rows[0], rows[1] | {"uri": "/"}]))) == []


def test_against_no_run_everything_changed():
    assert changed_inputs({}, inputs()) == ["clips", "members", "decode_id", "pool", "outcomes"]
