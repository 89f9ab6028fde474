"""The folder of a prepared set, and the small JPEGs in it."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from dsdi_ray.errors import DataError, DecodeError, UserError
from dsdi_ray.storage.prepared import (
    PreparedSet,
    complete_set,
    content_hash,
    labels_matrix,
    prepared_schema,
    publish_set,
    vectors_column,
    write_shard,
)
from dsdi_ray.taxonomy import taxonomy_from_dict
from dsdi_ray.vision.shrink import shrink_to_jpeg

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
        }
        for i in range(num_images)
    ]
    for start in range(0, num_images, 2):
        file = folder / f"images-{start:08d}.parquet"
        write_shard(rows[start : start + 2], prepared_schema(2), file)
    counts = {"images": num_images, "train": num_images - 1, "validation": 1}
    spec = {
        "prepared_id": "p",
        "inputs_id": inputs_id,
        "encoding": "max_count",
        "settings": {"split_seed": 0},
        "counts": counts,
        "taxonomy": TAXONOMY.to_dict(),
    }
    return publish_set(folder, out, spec=spec, report={"missing": 0})


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


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_lost_or_damaged_image_file_is_noticed(tmp_path, damage):
    prepared = write_set(tmp_path / "set")
    file = prepared.path / "images-00000002.parquet"
    content = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="has 3 rows" if damage == "gone" else "cannot be read"):
        prepared.read()


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
            "split": pa.array(["train"]),
            "group": pa.array([None], pa.string()),
        }
        images = changes.pop("images", [("a", "1")])
        return content_hash(images, pa.table(columns | changes), TAXONOMY)

    others = [
        hash_of(images=[("a", "2")]),
        hash_of(images=[("b", "1")]),
        hash_of(soft_label=vectors_column(np.array([[0, 0.5]]), pa.float32())),
        hash_of(num_asked=vectors_column(np.array([[5, 4]]), pa.int32())),
        hash_of(split=pa.array(["validation"])),
        hash_of(group=pa.array(["storm"])),
    ]
    assert hash_of() == hash_of()
    assert len({hash_of(), *others}) == 7


def picture(width, height):
    """Red left of green, with a blue top right corner."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 200
    pixels[:, width // 2 :, 1] = 200
    pixels[: height // 4, -width // 4 :] = (0, 0, 200)
    return Image.fromarray(pixels)


def decode(shrunk):
    image = Image.open(io.BytesIO(shrunk.jpeg))
    assert image.size == (shrunk.width, shrunk.height)
    assert not image.getexif()
    return np.asarray(image.convert("RGB"), dtype=float)


class TestShrink:
    def test_the_short_side_is_as_asked_and_the_aspect_kept(self, tmp_path):
        picture(1500, 1000).save(tmp_path / "a.jpg", quality=95)
        shrunk = shrink_to_jpeg(tmp_path / "a.jpg", short_side_px=128)
        assert (shrunk.width, shrunk.height) == (192, 128)
        expected = np.asarray(picture(192, 128), dtype=float)
        assert np.abs(decode(shrunk) - expected).mean() < 5

    def test_a_small_upright_jpeg_is_kept_byte_by_byte(self, tmp_path):
        picture(96, 64).save(tmp_path / "a.jpg")
        shrunk = shrink_to_jpeg(tmp_path / "a.jpg", short_side_px=64)
        assert shrunk.jpeg == (tmp_path / "a.jpg").read_bytes()

    def test_small_images_are_never_enlarged(self, tmp_path):
        picture(40, 30).save(tmp_path / "a.png")
        shrunk = shrink_to_jpeg(tmp_path / "a.png", short_side_px=512)
        assert (shrunk.width, shrunk.height) == (40, 30)

    @pytest.mark.parametrize("size", [(60, 40), (600, 400)])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation_comes_out_upright(self, tmp_path, orientation, size):
        how_a_camera_stores_it = {
            1: None,
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }[orientation]
        stored = picture(*size)
        if how_a_camera_stores_it is not None:
            stored = stored.transpose(how_a_camera_stores_it)
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
        shrunk = shrink_to_jpeg(tmp_path / "a.jpg", short_side_px=40)
        pixels = np.asarray(Image.open(io.BytesIO(shrunk.jpeg)), dtype=float)
        assert np.abs(pixels - np.asarray(picture(60, 40), dtype=float)).mean() < 8

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "LA", "1", "I;16"])
    def test_every_kind_of_pixel_becomes_rgb(self, tmp_path, mode):
        grey = np.full((30, 40), 100, np.uint8)
        if mode == "I;16":
            image = Image.fromarray(grey.astype(np.uint16) << 8)
        else:
            image = Image.fromarray(grey).convert("RGB").convert(mode)
        image.save(tmp_path / "a.tif")
        mean = decode(shrink_to_jpeg(tmp_path / "a.tif", short_side_px=20)).mean()
        assert abs(mean - 100) < 4

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("empty.jpg", b"", "empty"),
            ("text.jpg", b"not a picture", "not an image of a known format"),
            ("cut.jpg", None, "truncated"),
            ("gone.jpg", False, "No such file"),
        ],
    )
    def test_what_cannot_be_read_says_why(self, tmp_path, name, content, reason):
        file = tmp_path / name
        if content is None:
            picture(400, 300).save(file)
            content = file.read_bytes()[:2000]
        if content is not False:
            file.write_bytes(content)
        with pytest.raises(DecodeError, match=reason):
            shrink_to_jpeg(file, short_side_px=64)

    def test_the_same_file_gives_the_same_bytes(self, tmp_path):
        picture(640, 480).save(tmp_path / "a.jpg")
        hashes = {
            hashlib.sha256(shrink_to_jpeg(tmp_path / "a.jpg", short_side_px=64).jpeg).hexdigest()
            for _ in range(2)
        }
        assert len(hashes) == 1
