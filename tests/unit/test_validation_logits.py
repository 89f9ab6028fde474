from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsdi_ray.errors import DataError
from dsdi_ray.storage.validation_logits import (
    VALIDATION_FILE,
    ValidationLogits,
    read_validation,
    write_validation,
)

N, C = 5, 3


def validation(num_images=N, num_classes=C, seed=0):
    rng = np.random.default_rng(seed)
    shape = (num_images, num_classes)
    return ValidationLogits(
        image_ids=[f"image-{i}" for i in range(num_images)],
        groups=["flight", *[None] * (num_images - 1)],
        soft_labels=rng.integers(0, 4, shape).astype(np.float32) / 3,
        is_asked=rng.random(shape) < 0.5,
        logits=rng.normal(size=shape).astype(np.float32),
        member_id="m1",
        taxonomy_id="colours-1",
        prepared_id="p1",
        split_seed=7,
        epoch=3,
    )


def test_what_is_written_is_read(tmp_path):
    for seed in (7, None):
        written = replace(validation(), split_seed=seed)
        write_validation(tmp_path, written)
        read = read_validation(tmp_path)
        for name in ("soft_labels", "is_asked", "logits"):
            got, expected = getattr(read, name), getattr(written, name)
            assert got.dtype == expected.dtype
            assert np.array_equal(got, expected)
        for name in ("image_ids", "groups", "member_id", "taxonomy_id", "prepared_id", "epoch"):
            assert getattr(read, name) == getattr(written, name)
        assert read.split_seed == seed
    assert [path.name for path in tmp_path.iterdir()] == [VALIDATION_FILE]


def test_it_is_plain_parquet_with_vectors_of_fixed_size(tmp_path):
    write_validation(tmp_path, validation())
    schema = pq.read_schema(tmp_path / VALIDATION_FILE)
    kinds = {"soft_label": pa.float32(), "is_asked": pa.bool_(), "logits": pa.float32()}
    for name, kind in kinds.items():
        assert schema.field(name).type.value_type == kind
        assert schema.field(name).type.list_size == C
    assert schema.metadata[b"dsdi_ray.prepared_id"] == b'"p1"'
    assert schema.metadata[b"dsdi_ray.split_seed"] == b"7"


def test_it_is_small(tmp_path):
    """8,000 images of 37 classes: little more than the logits themselves."""
    write_validation(tmp_path, validation(8_000, 37))
    logits_bytes = 8_000 * 37 * 4
    assert (tmp_path / VALIDATION_FILE).stat().st_size < 1.3 * logits_bytes


def test_logits_that_are_not_finite_are_kept(tmp_path):
    one = validation()
    one.logits[2, 1] = np.nan
    write_validation(tmp_path, one)
    assert np.array_equal(read_validation(tmp_path).logits, one.logits, equal_nan=True)


def test_shapes_that_differ_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be of shape"):
        write_validation(tmp_path, replace(validation(), soft_labels=np.zeros((N, 2), np.float32)))
    assert list(tmp_path.iterdir()) == []


def test_a_member_without_the_file_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"has no validation.parquet: .*; train it again"):
        read_validation(tmp_path)


def rewritten(tmp_path, change):
    write_validation(tmp_path, validation())
    table = pq.read_table(tmp_path / VALIDATION_FILE)
    pq.write_table(change(table), tmp_path / VALIDATION_FILE)


def with_column(name, column):
    return lambda t: t.set_column(t.column_names.index(name), name, column)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace_schema_metadata({}), "is not of format"),
        (
            lambda t: t.replace_schema_metadata(
                {k: v for k, v in t.schema.metadata.items() if k != b"dsdi_ray.epoch"}
            ),
            "its metadata lacks 'dsdi_ray.epoch'",
        ),
        (lambda t: t.drop_columns(["logits"]), "no column `logits`, has image_id, group"),
        (with_column("logits", pa.array([1.0] * N)), "column `logits` must be"),
        (
            with_column("soft_label", pa.array([[0.5] * 2] * N, pa.list_(pa.float32(), 2))),
            "column `soft_label` must be",
        ),
        (
            with_column(
                "soft_label", pa.array([None, *[[0.5] * C] * 4], pa.list_(pa.float32(), C))
            ),
            "column `soft_label` has nulls",
        ),
        (
            with_column("is_asked", pa.array([[None] * C] * N, pa.list_(pa.bool_(), C))),
            "column `is_asked` has nulls",
        ),
        (with_column("image_id", pa.array(["same"] * N)), "must have images, each once"),
        (lambda t: t.slice(0, 0), "must have images, each once"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, change, message):
    rewritten(tmp_path, change)
    with pytest.raises(DataError) as caught:
        read_validation(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / VALIDATION_FILE) in str(caught.value)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    write_validation(tmp_path, validation())
    file = tmp_path / VALIDATION_FILE
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_validation(tmp_path)
    assert "\n" not in str(caught.value)


def test_groups_may_be_absent(tmp_path):
    rewritten(tmp_path, lambda t: t.drop_columns(["group"]))
    assert read_validation(tmp_path).groups == [None] * N
