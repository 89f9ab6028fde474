"""Holes in containers: FFmpeg passes over them without an error, and says so in its log alone."""

from pathlib import Path

import av
import pytest
from numbered_clips import SIDE_PX, numbers, write_clip
from numbered_clips import decode as decode_here

from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings
from dsdi_ray.vision.decode_process import DecodeProcess

CODECS = {"a.mkv": "libx264", "a.webm": "libvpx-vp9", "a.flv": "libx264"}


@pytest.fixture(scope="module")
def process():
    with DecodeProcess(DecodeSettings()) as process:
        yield process


def decode(
    process: DecodeProcess, clip: Path, start: float | None = None, end: float | None = None
):
    source = ClipSource(uri=str(clip), start_seconds=start, end_seconds=end)
    *chunks, outcome = process.decode(source, [SIDE_PX])
    assert isinstance(outcome, DecodeOutcome)
    return numbers(chunks), outcome


@pytest.fixture(params=CODECS)
def clip(request, tmp_path):
    b_frames = 2 if CODECS[request.param] == "libx264" else None
    name = tmp_path / request.param
    return write_clip(
        name, codec=CODECS[name.name], num_pictures=200, gop=10, max_b_frames=b_frames
    )


def with_hole(clip: Path) -> Path:
    """Zeros over some 30 pictures in the middle, and the heads of their packets."""
    with av.open(str(clip)) as container:
        places = [p.pos for p in container.demux(video=0) if p.size]
    data = bytearray(clip.read_bytes())
    first, stop = places[85] - 20, places[115] - 20
    data[first:stop] = bytes(stop - first)
    clip.write_bytes(data)
    return clip


def test_a_file_with_a_hole_is_partial_and_says_so(process, clip):
    assert decode(process, clip)[1].status == "ok"
    shown, outcome = decode(process, with_hole(clip))
    assert outcome.status == "partial"
    assert outcome.frames_scored == len(shown) < 75


def test_what_lies_in_the_hole_is_counted_where_its_place_is_known(process, tmp_path):
    clip = write_clip(tmp_path / "a.mkv", num_pictures=200, gop=10, max_b_frames=0)
    _, outcome = decode(process, with_hole(clip))
    assert "frames are missing: the container is damaged" in outcome.error
    assert outcome.frames_expected == pytest.approx(80, abs=1)
    _, outcome = decode(process, clip, 6.0, 8.0)
    assert (outcome.status, outcome.frames_scored) == ("ok", 20)


def test_the_log_of_other_code_is_left_alone(tmp_path):
    clip = with_hole(write_clip(tmp_path / "a.mkv", num_pictures=200, gop=10, max_b_frames=0))
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as lines:
            _, outcome = decode_here(clip)
            assert av.logging.get_level() == av.logging.ERROR
    finally:
        av.logging.set_level(level)
    assert "the container is damaged" in outcome.error
    assert any(name == "matroska,webm" for _, name, _ in lines)


def test_where_nothing_is_logged_it_stays_so(tmp_path):
    clip = with_hole(write_clip(tmp_path / "a.mkv", num_pictures=200, gop=10, max_b_frames=0))
    level = av.logging.get_level()
    decode_here(clip)
    assert av.logging.get_level() == level
