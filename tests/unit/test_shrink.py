"""The small JPEGs of a prepared set."""

import io

import numpy as np
import pytest
from PIL import Image

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.shrink import decode_at, shrink_to_jpeg


def picture(width, height):
    """Red left of green, with a blue top right corner."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 200
    pixels[:, width // 2 :, 1] = 200
    pixels[: height // 4, -width // 4 :] = (0, 0, 200)
    return Image.fromarray(pixels)


def shrink(path, **settings):
    return shrink_to_jpeg(path.read_bytes(), **settings)


def decode(shrunk):
    image = Image.open(io.BytesIO(shrunk.jpeg))
    assert image.size == (shrunk.width, shrunk.height)
    assert not image.getexif()
    return np.asarray(image.convert("RGB"), dtype=float)


@pytest.fixture(scope="module")
def photograph():
    """Noise at every scale, stronger where it is coarser, as ground seen from the air."""
    random = np.random.default_rng(0)
    width, height = 3072, 2048
    grey = np.full((height, width), 128, np.float32)
    for octave in range(8):
        noise = random.normal(0, 6 * 1.35**octave, (height >> octave, width >> octave))
        grey += np.asarray(Image.fromarray(noise.astype(np.float32)).resize((width, height)))
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")


class TestShrink:
    def test_the_short_side_is_as_asked_and_the_aspect_kept(self, tmp_path):
        picture(1500, 1000).save(tmp_path / "a.jpg", quality=95)
        shrunk = shrink(tmp_path / "a.jpg", short_side_px=128)
        assert (shrunk.width, shrunk.height) == (192, 128)
        expected = np.asarray(picture(192, 128), dtype=float)
        assert np.abs(decode(shrunk) - expected).mean() < 5

    def test_a_small_upright_jpeg_is_kept_byte_by_byte(self, tmp_path):
        picture(96, 64).save(tmp_path / "a.jpg")
        shrunk = shrink(tmp_path / "a.jpg", short_side_px=64)
        assert shrunk.jpeg == (tmp_path / "a.jpg").read_bytes()

    def test_small_images_are_never_enlarged(self, tmp_path):
        picture(40, 30).save(tmp_path / "a.png")
        shrunk = shrink(tmp_path / "a.png", short_side_px=512)
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
        shrunk = shrink(tmp_path / "a.jpg", short_side_px=40)
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
        mean = decode(shrink(tmp_path / "a.tif", short_side_px=20)).mean()
        assert abs(mean - 100) < 4

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("empty.jpg", b"", "empty"),
            ("text.jpg", b"not a picture", "not an image of a known format"),
            ("cut.jpg", None, "truncated"),
        ],
    )
    def test_what_cannot_be_read_says_why(self, tmp_path, name, content, reason):
        if content is None:
            picture(400, 300).save(tmp_path / name)
            content = (tmp_path / name).read_bytes()[:2000]
        with pytest.raises(DecodeError, match=reason):
            shrink_to_jpeg(content, short_side_px=64)

    def test_the_same_file_gives_the_same_bytes(self, tmp_path):
        picture(640, 480).save(tmp_path / "a.jpg")
        jpegs = {shrink(tmp_path / "a.jpg", short_side_px=64).jpeg for _ in range(2)}
        assert len(jpegs) == 1

    @pytest.mark.parametrize(
        "size", [(3072, 2048), (3000, 2000), (2250, 1500), (2144, 1424), (1536, 1024)]
    )
    def test_decoding_at_a_fraction_is_decoding_whole_to_40_db(self, photograph, size):
        file = io.BytesIO()
        photograph.crop((0, 0, *size)).save(file, "JPEG", quality=92)
        small = (round(size[0] * 256 / size[1]), 256)
        plain = Image.open(file).convert("RGB").resize(small, Image.Resampling.LANCZOS)
        quick = Image.open(file)
        difference = np.asarray(decode_at(quick, small), float) - np.asarray(plain, float)
        assert quick.size < size
        assert 10 * np.log10(255**2 / (difference**2).mean()) > 40

    def test_what_exif_says_comes_along(self, tmp_path):
        exif = Image.Exif()
        exif[0x0132] = "2017:09:10 14:07:06"
        exif.get_ifd(0x8825).update({1: "N", 2: (29.0, 30.0, 0.0), 3: "W", 4: (95.0, 15.0, 0.0)})
        picture(60, 40).save(tmp_path / "a.jpg", exif=exif)
        shrunk = shrink(tmp_path / "a.jpg", short_side_px=32)
        assert shrunk.capture_time == "2017-09-10T14:07:06"
        assert (shrunk.latitude, shrunk.longitude) == (29.5, -95.25)
