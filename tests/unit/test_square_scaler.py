"""Resized pictures: the same whichever way FFmpeg takes to them."""

import ctypes
import platform
import subprocess
import sys

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy._core import _multiarray_umath

from dsdi_ray.vision import cpu_features
from dsdi_ray.vision.cpu_features import avoid_slow_gathers, forgo_gathers
from dsdi_ray.vision.pictures import SquareScaler

BT709, UNSPECIFIED, SMPTE170M, BT2020 = 1, 2, 6, 9
LIMITED, FULL = 1, 2


def frame_of(pixels: np.ndarray, pixel_format: str, *, matrix: int, value_range: int) -> VideoFrame:
    frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pixel_format)
    frame.colorspace, frame.color_range = matrix, value_range
    return frame


def rough_scene(height: int, width: int, *, low: int = 0, high: int = 255) -> np.ndarray:
    """Saturated blocks with hard edges, and grain."""
    rng = np.random.default_rng(0)
    blocks = rng.choice([low, high], (height // 12 + 1, width // 12 + 1, 3))
    pixels = blocks.repeat(12, 0).repeat(12, 1)[:height, :width]
    return np.clip(pixels + rng.normal(0, 12, (height, width, 3)), low, high).astype(np.uint8)


def in_one_step(frame: VideoFrame, side_px: int) -> np.ndarray:
    resized = frame.reformat(side_px, side_px, format="rgb24", interpolation="BICUBIC", threads=1)
    return resized.to_ndarray()


@pytest.mark.parametrize("value_range", [0, LIMITED, FULL])
@pytest.mark.parametrize("matrix", [BT709, UNSPECIFIED, SMPTE170M, BT2020])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "nv12", "yuv444p", "yuv420p10le"])
def test_squares_are_those_of_scaling_and_converting_at_once(pixel_format, matrix, value_range):
    scene = rough_scene(270, 482, low=20, high=235)
    frame = frame_of(scene, pixel_format, matrix=matrix, value_range=value_range)
    scaler = SquareScaler([64, 97, 224], like_decord=False)
    for side_px, picture in scaler.squares(frame).items():
        np.testing.assert_array_equal(picture, in_one_step(frame, side_px))
        assert picture.std() > 20


@pytest.mark.parametrize("side_px", [96, 224, 360])
def test_full_saturation_with_hard_edges_changes_next_to_nothing(side_px):
    # Resizing overshoots 0 and 255, where one step goes on and two steps clip.
    frame = frame_of(rough_scene(270, 482), "yuv422p", matrix=BT709, value_range=LIMITED)
    error = SquareScaler([side_px], like_decord=False).squares(frame)[side_px].astype(float)
    error -= in_one_step(frame, side_px)
    assert np.abs(error).max() <= 8
    assert 10 * np.log10(255**2 / max((error**2).mean(), 1e-9)) > 70


def test_where_decord_may_serve_not_even_overshoots_differ():
    frame = frame_of(rough_scene(270, 482), "yuv422p", matrix=BT709, value_range=LIMITED)
    for side_px, picture in SquareScaler([96, 224], like_decord=True).squares(frame).items():
        np.testing.assert_array_equal(picture, in_one_step(frame, side_px))


def test_a_change_of_range_on_the_way_is_followed():
    scaler = SquareScaler([64], like_decord=False)
    for value_range in (LIMITED, FULL, LIMITED):
        frame = frame_of(rough_scene(96, 128), "yuv420p", matrix=BT709, value_range=value_range)
        np.testing.assert_array_equal(scaler.squares(frame)[64], in_one_step(frame, 64))


@pytest.fixture
def ffmpeg():
    """PyAV's FFmpeg, which takes gathers to be quick until the test is over."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip("gathers are x86's")
    library = ctypes.CDLL(av.video.reformatter.__file__)
    found = library.av_get_cpu_flags()
    if not found & cpu_features._AVX2:
        pytest.skip("this CPU has no gathers")
    library.av_force_cpu_flags(found & ~cpu_features._SLOW_GATHER)
    yield library
    library.av_force_cpu_flags(found)


def forgoes(library: ctypes.CDLL) -> bool:
    return bool(library.av_get_cpu_flags() & cpu_features._SLOW_GATHER)


def test_forgoing_gathers_leaves_the_bytes_as_they_are(ffmpeg):
    frame = frame_of(rough_scene(270, 482), "yuv420p", matrix=BT709, value_range=LIMITED)
    pictures = [in_one_step(frame, 224)]
    assert forgo_gathers(ffmpeg)
    assert forgoes(ffmpeg)
    assert not forgo_gathers(ffmpeg)
    pictures.append(in_one_step(frame, 224))
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize(("seconds", "is_slow"), [([1.0, 2.0], True), ([1.0, 1.05], False)])
def test_gathers_are_forgone_where_resizing_is_slower_with_them(
    ffmpeg, monkeypatch, seconds, is_slow
):
    monkeypatch.setattr(cpu_features, "_seconds_to_resize", iter(seconds).__next__)
    assert avoid_slow_gathers.__wrapped__() == is_slow
    assert forgoes(ffmpeg) == is_slow


def test_trying_it_out_leaves_ffmpeg_as_it_says(ffmpeg):
    assert avoid_slow_gathers.__wrapped__() == forgoes(ffmpeg)


def test_a_build_that_does_not_show_its_flags_is_left_alone():
    assert not forgo_gathers(ctypes.CDLL(_multiarray_umath.__file__))


def test_pyav_is_loaded_before_decord_whose_ffmpeg_it_would_call():
    told = "import sys, dsdi_ray.vision.decord_reader; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert names.index("av") < names.index("decord")
