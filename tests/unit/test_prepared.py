"""The folder of a prepared set."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dsdi_ray.errors import ConfigError, DataError, UserError
from dsdi_ray.storage.prepared import (
    PreparedSet,
    labels_matrix,
    labels_schema,
    prepared_schema,
    vectors_column,
)
from dsdi_ray.storage.prepared_files import (
    OUTCOME_SCHEMA,
    PartialSet,
    complete_set,
    content_hash,
    publish_set,
    write_images,
)
from dsdi_ray.taxonomy import taxonomy_from_dict

TAXONOMY = taxonomy_from_dict({"name": "two", "classes": ["a", "b"]})


def write_set(out, *, num_images=5, inputs_id="i"):
    folder = out.with_name(".partial")
    folder.mkdir()
    rows = [
        {
            "image_id": f"{i:02d}.jpg",
            "jpeg": b"%d" % i,
            "width": 4,
            "height": 3,
            "soft_label": [1.0, i / 10],
            "answer_counts": [4, i],
            "num_asked": [5, 3 * (i % 2)],
            "split": "validation" if i == 1 else "train",
            "group": None if i == 0 else f"flight {i // 2}",
        }
        for i in range(num_images)
    ]
    for start in range(0, num_images, 2):
        file = folder / f"images-{start:08d}.parquet"
        write_images(rows[start : start + 2], file)
    counts = {"images": num_images, "train": num_images - 1, "validation": 1}
    spec = {
        "prepared_id": "p",
        "inputs_id": inputs_id,
        "encoding": "max_count",
        "settings": {"split_seed": 0},
        "counts": counts,
        "taxonomy": TAXONOMY.to_dict(),
    }
    labels = pa.Table.from_pylist(rows, schema=labels_schema(2))
    return publish_set(folder, out, labels=labels, spec=spec, report={"missing": 0})


def test_a_set_is_read_in_the_order_of_image_ids(tmp_path):
    write_set(tmp_path / "set")
    prepared = PreparedSet.open(tmp_path / "set")
    table = prepared.read()
    assert table["image_id"].to_pylist() == [f"{i:02d}.jpg" for i in range(5)]
    assert table["jpeg"].to_pylist() == [b"0", b"1", b"2", b"3", b"4"]
    assert table.schema == prepared_schema(2)
    assert prepared.taxonomy == TAXONOMY
    assert (prepared.prepared_id, prepared.num_images) == ("p", 5)
    assert prepared.report == {"missing": 0}


def test_columns_and_a_split_can_be_asked_for(tmp_path):
    prepared = write_set(tmp_path / "set")
    train = prepared.read(["soft_label", "image_id"], split="train")
    assert train.column_names == ["soft_label", "image_id"]
    assert train["image_id"].to_pylist() == ["00.jpg", "02.jpg", "03.jpg", "04.jpg"]
    assert prepared.read(["image_id"], split="validation")["image_id"].to_pylist() == ["01.jpg"]
    with pytest.raises(DataError, match="no column 'labels', has image_id"):
        prepared.read(["labels"])
    with pytest.raises(DataError, match="train or validation, got 'test'"):
        prepared.read(split="test")


@pytest.mark.parametrize(
    ("column", "dtype"),
    [("soft_label", np.float32), ("answer_counts", np.int32), ("num_asked", np.int32)],
)
def test_labels_are_arrays_whatever_rows_were_asked_for(tmp_path, column, dtype):
    table = write_set(tmp_path / "set").read()
    everything = labels_matrix(table, column)
    assert everything.dtype == dtype
    np.testing.assert_allclose(everything.astype(float), np.array(table[column].to_pylist(), float))
    np.testing.assert_array_equal(labels_matrix(table.slice(1, 3), column), everything[1:4])
    assert labels_matrix(table.slice(0, 0), column).shape == (0, 2)


def test_an_array_survives_as_a_column():
    values = np.arange(12, dtype=np.float32).reshape(4, 3)[:, ::-1]
    table = pa.table({"v": vectors_column(values, pa.float32())})
    np.testing.assert_array_equal(labels_matrix(table, "v"), values)


def test_a_folder_without_its_description_is_not_a_set(tmp_path):
    write_set(tmp_path / "set")
    (tmp_path / "set" / "prepared.yaml").unlink()
    with pytest.raises(DataError, match=r"not a prepared set .*`dsdi prepare` makes one"):
        PreparedSet.open(tmp_path / "set")
    with pytest.raises(DataError, match="not a prepared set"):
        PreparedSet.open(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not the description of a prepared set"),
        ({"version": 1}, "made by an earlier version .* prepare again"),
        ({"version": 3}, "version must be 2, got 3"),
        ({"counts": None}, "lacks"),
        ({"taxonomy": None}, "must be a mapping"),
    ],
)
def test_a_changed_description_is_refused(tmp_path, change, message):
    write_set(tmp_path / "set")
    file = tmp_path / "set" / "prepared.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        PreparedSet.open(tmp_path / "set")


@pytest.mark.parametrize("name", ["images-00000002.parquet", "labels.parquet"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_lost_or_damaged_file_is_noticed(tmp_path, damage, name):
    prepared = write_set(tmp_path / "set")
    file = prepared.path / name
    content = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="a file cannot be read"):
        prepared.read()


def test_another_split_keeps_groups_together(tmp_path):
    prepared = write_set(tmp_path / "set", num_images=5)
    held_back = [prepared.split_again(seed) for seed in range(20)]
    assert len({tuple(held) for held in held_back}) > 1
    assert all(held[2] == held[3] for held in held_back)


def test_another_split_holds_as_many_back_as_the_set_does(tmp_path):
    prepared = write_set(tmp_path / "set", num_images=5)
    half = replace(prepared, settings={**prepared.settings, "validation_fraction": 0.6})
    assert prepared.split_again(1).count("validation") < half.split_again(1).count("validation")


def test_labels_that_say_what_is_held_back_are_not_overruled(tmp_path):
    prepared = write_set(tmp_path / "set")
    given = replace(prepared, settings={**prepared.settings, "split": "given"})
    with pytest.raises(ConfigError, match="set split_seed=null to keep to it"):
        given.split_again(1)


def test_a_set_of_an_earlier_version_lacks_new_columns_and_is_read(tmp_path):
    prepared = write_set(tmp_path / "set")
    file = prepared.path / "labels.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["source_sha1", "pseudo_labelled_by"]), file)
    table = prepared.read()
    assert table.schema == prepared_schema(2)
    assert table["pseudo_labelled_by"].null_count == 5
    assert prepared.num_pseudo_labelled == 0


class TestPartsOfASet:
    def write(self, parts, first_row, *names):
        rows = [{"image_id": n, "jpeg": n.encode(), "width": 1, "height": 1} for n in names]
        outcomes = [{"image_id": n, "status": "stored"} for n in names]
        parts.write_part(first_row, rows, pa.Table.from_pylist(outcomes, schema=OUTCOME_SCHEMA))

    def test_only_parts_with_outcomes_are_done(self, tmp_path):
        parts = PartialSet.of(tmp_path / "set", "inputs")
        assert len(parts.outcomes()) == 0
        parts.begin(tmp_path / "set")
        self.write(parts, 2, "c")
        self.write(parts, 0, "a", "b")
        (parts.folder / "images-00000004.parquet").write_bytes(b"half")
        (parts.folder / ".outcomes-00000004.parquet.1.tmp").write_bytes(b"half")
        assert parts.outcomes()["image_id"].to_pylist() == ["a", "b", "c"]

    def test_parts_of_other_inputs_are_removed(self, tmp_path):
        out = tmp_path / "set"
        for inputs_id in ("1" * 24, "2" * 24):
            PartialSet.of(out, inputs_id).begin(out)
        assert [p.name for p in tmp_path.iterdir()] == [f".set.{'2' * 12}.partial"]

    @pytest.mark.parametrize(
        ("one", "other"), [("ladi", "ladi.512"), ("ladi", "ladi.*"), ("[ab]", "a")]
    )
    def test_parts_of_a_set_of_a_similar_name_are_kept(self, tmp_path, one, other):
        kept = PartialSet.of(tmp_path / other, "1" * 24)
        kept.begin(tmp_path / other)
        PartialSet.of(tmp_path / one, "2" * 24).begin(tmp_path / one)
        assert kept.folder.is_dir()

    def test_a_part_without_any_image_is_done_too(self, tmp_path):
        parts = PartialSet.of(tmp_path / "set", "inputs")
        parts.begin(tmp_path / "set")
        table = pa.Table.from_pylist(
            [{"image_id": "a", "status": "missing", "reason": "gone"}], schema=OUTCOME_SCHEMA
        )
        parts.write_part(0, [], table)
        assert parts.outcomes()["reason"].to_pylist() == ["gone"]
        assert [p.name for p in parts.folder.iterdir()] == ["outcomes-00000000.parquet"]


class TestPlaceOfASet:
    def test_nothing_there_may_be_written(self, tmp_path):
        (tmp_path / "empty").mkdir()
        for name in ("new", "empty"):
            assert complete_set(tmp_path / name, inputs_id="i", overwrite=False) is None

    def test_the_same_inputs_reuse_it(self, tmp_path):
        out = write_set(tmp_path / "set", inputs_id="i").path
        existing = complete_set(out, inputs_id="i", overwrite=True)
        assert existing is not None
        assert existing.prepared_id == "p"

    def test_other_inputs_need_to_be_told_to_overwrite(self, tmp_path):
        out = write_set(tmp_path / "set").path
        with pytest.raises(DataError, match="other answers, images or settings"):
            complete_set(out, inputs_id="j", overwrite=False)
        assert complete_set(out, inputs_id="j", overwrite=True) is None
        assert write_set(out, num_images=2).num_images == 2
        assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]

    def test_what_is_not_a_set_is_never_replaced(self, tmp_path):
        out = write_set(tmp_path / "set").path
        (out / "thesis.doc").touch()
        with pytest.raises(DataError, match=r"holds other files \(thesis.doc\)"):
            complete_set(out, inputs_id="j", overwrite=True)
        with pytest.raises(DataError, match="not a prepared set"):
            complete_set(tmp_path, inputs_id="j", overwrite=True)
        with pytest.raises(DataError, match="is a file"):
            complete_set(out / "thesis.doc", inputs_id="j", overwrite=True)


def test_the_id_follows_every_part_that_a_network_learns_from():
    def hash_of(**changes):
        columns = {
            "soft_label": vectors_column(np.array([[0, 1.0]]), pa.float32()),
            "answer_counts": vectors_column(np.array([[0, 4]]), pa.int32()),
            "num_asked": vectors_column(np.array([[5, 5]]), pa.int32()),
            "image_id": pa.array(["a"]),
            "split": pa.array(["train"]),
            "group": pa.array([None], pa.string()),
        }
        hashes = changes.pop("hashes", ["1"])
        return content_hash(hashes, pa.table(columns | changes), TAXONOMY)

    others = [
        hash_of(hashes=["2"]),
        hash_of(image_id=pa.array(["b"])),
        hash_of(soft_label=vectors_column(np.array([[0, 0.5]]), pa.float32())),
        hash_of(num_asked=vectors_column(np.array([[5, 4]]), pa.int32())),
        hash_of(split=pa.array(["validation"])),
        hash_of(group=pa.array(["storm"])),
    ]
    assert hash_of() == hash_of()
    assert len({hash_of(), *others}) == 7
