"""Frames against the pictures that were encoded, whatever the pixel format, tags and container."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numbered_clips import decode
from PIL import Image

SIDE_PX = 64
BOTH = pytest.mark.parametrize("is_careful", [False, True])


def scene(width: int, height: int) -> np.ndarray:
    """Four colours that run into each other; no two corners or mirror images are alike."""
    corners = np.array([[[210, 40, 40], [40, 190, 60]], [[50, 60, 200], [180, 180, 170]]], np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR))


def stripes(width: int, height: int) -> np.ndarray:
    """Saturated colours with hard edges, as in test patterns."""
    colours = np.array([[255, 0, 0], [0, 255, 255], [0, 0, 255], [255, 255, 0]], np.uint8)
    row = colours[np.arange(width) // 24 % len(colours)]
    return np.ascontiguousarray(np.broadcast_to(row, (height, width, 3)))


def write_scene(
    path: Path,
    *,
    picture: np.ndarray | None = None,
    size: tuple[int, int] = (224, 128),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    space: Colorspace = Colorspace.ITU601,
    color_range: ColorRange = ColorRange.MPEG,
    options: dict[str, str] | None = None,
    sizes: tuple[tuple[int, int], ...] = (),
) -> Path:
    """A second of a still picture; ``sizes`` are those of further streams, which are grey."""
    with av.open(str(path), "w") as container:
        first = scene(*size) if picture is None else picture
        pictures = [first, *(np.full((h, w, 3), 90, np.uint8) for w, h in sizes)]
        streams = []
        for shown in pictures:
            stream = container.add_stream(codec, rate=10, options={"crf": "8", **(options or {})})
            stream.height, stream.width, _ = shown.shape
            stream.pix_fmt = pixel_format
            stream.codec_context.colorspace = space
            stream.codec_context.color_range = color_range
            streams.append(stream)
        for _ in range(10):
            for stream, shown in zip(streams, pictures, strict=True):
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(
                    format=pixel_format, dst_colorspace=space, dst_color_range=color_range
                )
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


def psnr_of_frames(
    path: Path, truth: np.ndarray, *, is_careful: bool, num_frames: int = 10
) -> float:
    """The worst frame's, against a picture that Pillow resizes."""
    small = Image.fromarray(truth).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    return worst_psnr(path, np.asarray(small), is_careful=is_careful, num_frames=num_frames)


def worst_psnr(
    path: Path, reference: np.ndarray, *, is_careful: bool, num_frames: int = 10
) -> float:
    """Of the frames against one picture, ``[S, S, 3]``, or one each."""
    chunks, outcome = decode(path, is_careful=is_careful)
    assert (outcome.status, outcome.frames_scored) == ("ok", num_frames)
    frames = np.concatenate([c.pixels[SIDE_PX] for c in chunks]).astype(float)
    errors = np.mean((frames - reference) ** 2, axis=(1, 2, 3))
    return float(10 * np.log10(255**2 / max(errors.max(), 1e-9)))


@BOTH
@pytest.mark.parametrize("color_range", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("space", [Colorspace.ITU601, Colorspace.ITU709])
def test_matrix_and_range_are_taken_from_the_file(tmp_path, space, color_range, is_careful):
    clip = write_scene(tmp_path / "a.mp4", space=space, color_range=color_range)
    assert psnr_of_frames(clip, scene(224, 128), is_careful=is_careful) > 35


@BOTH
@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [
        ("libx264", "yuv444p"),
        ("libx264", "yuv422p"),
        ("libx264", "yuv420p10le"),
        ("libx264", "yuv444p10le"),
        ("libx265", "yuv420p10le"),
        ("libx265", "yuv420p12le"),
        ("libx265", "yuv444p12le"),
    ],
)
def test_depth_and_subsampling(tmp_path, codec, pixel_format, is_careful):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else None
    clip = write_scene(tmp_path / "a.mkv", codec=codec, pixel_format=pixel_format, options=options)
    assert psnr_of_frames(clip, scene(224, 128), is_careful=is_careful) > 35


@BOTH
@pytest.mark.parametrize("size", [(225, 129), (223, 128), (224, 131)])
@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mkv", "ffv1", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_odd_sizes(tmp_path, name, codec, pixel_format, size, is_careful):
    options = {"b": "4M", "deadline": "realtime"} if codec == "libvpx-vp9" else None
    clip = write_scene(
        tmp_path / name, codec=codec, pixel_format=pixel_format, size=size, options=options
    )
    assert psnr_of_frames(clip, scene(*size), is_careful=is_careful) > 35


@pytest.mark.parametrize("side_px", [224, 320])  # decord hands over none of 96
def test_both_decoders_give_the_same_bytes_even_where_resizing_overshoots(tmp_path, side_px):
    rng = np.random.default_rng(0)
    blocks = rng.choice([0, 255], (23, 41, 3)).repeat(12, 0).repeat(12, 1)[:270, :482]
    grain = rng.normal(0, 12, blocks.shape)
    picture = np.clip(blocks + grain, 0, 255).astype(np.uint8)
    options = {"crf": "1", "bf": "0"}
    clip = write_scene(tmp_path / "a.mp4", picture=picture, pixel_format="yuv422p", options=options)
    (decord, *_), one = decode(clip, sizes=(side_px,))
    (pyav, *_), other = decode(clip, sizes=(side_px,), is_careful=True)
    assert (one.decoder, other.decoder) == ("decord", "pyav")
    np.testing.assert_array_equal(decord.pixels[side_px], pyav.pixels[side_px])


@BOTH
@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_interlaced_coding(tmp_path, name, is_careful):
    clip = write_scene(tmp_path / name, options={"x264-params": "tff=1"})
    assert psnr_of_frames(clip, scene(224, 128), is_careful=is_careful) > 35


@BOTH
@pytest.mark.parametrize("num_turns", [1, 2, 3])
def test_a_display_matrix_turns_the_pictures_upright(tmp_path, num_turns, is_careful):
    clip = write_scene(tmp_path / "a.mp4")
    data = bytearray(clip.read_bytes())
    cos, sin = [(0, 1), (-1, 0), (0, -1)][num_turns - 1]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    header = data.index(b"tkhd") + 4
    data[header + 40 : header + 76] = struct.pack(">9i", *matrix)
    clip.write_bytes(data)
    upright = np.ascontiguousarray(np.rot90(scene(224, 128), -num_turns))
    assert psnr_of_frames(clip, upright, is_careful=is_careful) > 35


@BOTH
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_of_several_video_streams_one_is_taken_and_named(tmp_path, b_frames, is_careful):
    clip = write_scene(tmp_path / "a.mp4", sizes=((96, 64), (64, 96)), options={"bf": b_frames})
    assert psnr_of_frames(clip, scene(224, 128), is_careful=is_careful) > 35
    assert "video stream 0 of several" in decode(clip, is_careful=is_careful)[1].note


@BOTH
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_saturated_edges_look_as_pyav_resizes_them(tmp_path, b_frames, is_careful):
    """Pillow's, of a whole picture in RGB, has sharper colours: YUV's are half as wide."""
    clip = write_scene(tmp_path / "a.mp4", picture=stripes(640, 360), options={"bf": b_frames})
    with av.open(str(clip)) as container:
        reference = np.stack(
            [
                frame.reformat(
                    SIDE_PX, SIDE_PX, format="rgb24", interpolation="BICUBIC"
                ).to_ndarray()
                for frame in container.decode(video=0)
            ]
        )
    assert worst_psnr(clip, reference, is_careful=is_careful) > 35
