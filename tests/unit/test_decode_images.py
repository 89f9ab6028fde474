"""Still images: one frame, upright, whatever the depth; damaged ones as far as they go."""

import struct
import zlib

import numpy as np
import pytest
from numbered_clips import decode
from PIL import Image

from dsdi_ray.vision.probe import probe


def quadrants() -> Image.Image:
    """Red above left, green above right, blue below left, grey below right."""
    picture = np.full((120, 200, 3), 128, np.uint8)
    picture[:60, :100], picture[:60, 100:], picture[60:, :100] = (
        (220, 20, 20),
        (20, 220, 20),
        (20, 20, 220),
    )
    return Image.fromarray(picture)


def corner(pixels: np.ndarray) -> list[int]:
    return pixels[0, 8, 8].astype(int).tolist()


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp", "jpg"])
def test_an_image_is_one_frame(tmp_path, suffix):
    quadrants().save(tmp_path / f"a.{suffix}", quality=95)
    (chunk,), outcome = decode(tmp_path / f"a.{suffix}", media="image", sizes=(64, 32))
    assert (outcome.status, outcome.decoder) == ("ok", "pillow")
    assert (outcome.frames_expected, outcome.frames_scored) == (1, 1)
    assert chunk.frame_indices.tolist() == [0]
    assert chunk.times_seconds.tolist() == [0.0]
    assert chunk.pixels[64].shape == (1, 64, 64, 3)
    assert chunk.pixels[32].shape == (1, 32, 32, 3)
    np.testing.assert_allclose(corner(chunk.pixels[64]), [220, 20, 20], atol=12)


@pytest.mark.parametrize(
    ("orientation", "above_left"), [(1, "red"), (3, "grey"), (6, "blue"), (8, "green")]
)
def test_exif_orientation_is_applied(tmp_path, orientation, above_left):
    exif = Image.Exif()
    exif[0x0112] = orientation
    quadrants().save(tmp_path / "a.jpg", quality=95, exif=exif)
    (chunk,), _ = decode(tmp_path / "a.jpg", media="image")
    colour = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
    np.testing.assert_allclose(
        corner(chunk.pixels[64]), colour.get(above_left, (128, 128, 128)), atol=12
    )


def test_grey_of_16_bits_is_scaled_not_clipped(tmp_path):
    ramp = np.tile(np.linspace(0, 65_535, 256).astype(np.uint16), (64, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    (chunk,), _ = decode(tmp_path / "a.png", media="image")
    row = chunk.pixels[64][0, 32, :, 0].astype(int)
    assert row[0] < 8
    assert row[-1] > 247
    assert 110 < row[32] < 145


@pytest.mark.parametrize("missing", [np.nan, np.inf, -3.4e38])
def test_pixels_without_a_value_leave_the_others_as_they_are(tmp_path, missing):
    heat = np.full((64, 64), 10.0, np.float32)
    heat[:, 32:] = 40.0
    Image.fromarray(heat).save(tmp_path / "whole.tif")
    heat[:4, :4] = missing
    Image.fromarray(heat).save(tmp_path / "holes.tif")
    (whole,), _ = decode(tmp_path / "whole.tif", media="image")
    (holes,), outcome = decode(tmp_path / "holes.tif", media="image")
    assert outcome.status == "ok"
    np.testing.assert_array_equal(holes.pixels[64][0, 8:], whole.pixels[64][0, 8:])
    assert holes.pixels[64][0, :3, :3].max() == 0
    Image.fromarray(np.full((8, 8), missing, np.float32)).save(tmp_path / "none.tif")
    assert decode(tmp_path / "none.tif", media="image")[1].error == "no pixel has a value"


def png_of_size(path, width, height):
    """Headers alone."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    body = struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", 0) + b"IDAT" + bytes(4))
    return path


def test_sizes_up_to_the_limit_are_probed_and_beyond_it_are_a_reason(tmp_path):
    facts = probe(str(png_of_size(tmp_path / "large.png", 20_000, 10_000)), "image")
    assert (facts.width, facts.probe_error) == (20_000, None)
    facts = probe(str(png_of_size(tmp_path / "absurd.png", 60_000, 60_000)), "image")
    assert facts.probe_error.startswith("cannot be opened: Image size (3600000000 pixels)")


def test_a_truncated_image_is_partial(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    chunks, outcome = decode(tmp_path / "a.jpg", media="image")
    assert (outcome.status, len(chunks)) == ("partial", 1)
    assert outcome.error.startswith("damaged: image file is truncated")


def test_what_is_no_image_says_so(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image at all")
    chunks, outcome = decode(tmp_path / "a.jpg", media="image")
    assert (chunks, outcome.status) == ([], "failed")
    assert outcome.error == "not an image of a known format"
