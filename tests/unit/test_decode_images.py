"""Still images: one frame, upright, whatever the depth; damaged ones as far as they go."""

import numpy as np
import pytest
from numbered_clips import decode
from PIL import Image


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
