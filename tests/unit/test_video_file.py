"""A file opened in the quickest way, or read for its packets before, decodes as any does."""

import re
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_clips import decode, result_of, write_clip

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.packet_decoding import decoded_frames
from dsdi_ray.vision.packet_facts import read_packets
from dsdi_ray.vision.probe import probe
from dsdi_ray.vision.video_stream import VideoFile, open_video

OPEN_GROUPS = {"x264-params": "bframes=3:open-gop=1:keyint=10"}


def pictures(container, stream) -> list[tuple[int, bytes]]:
    with container:
        frames = [
            f
            for f in decoded_frames(
                container, stream, on_fault=lambda error, _: pytest.fail(str(error))
            )
            if f
        ]
    return [(f.pts, f.to_ndarray().tobytes()) for f in frames]


@pytest.mark.parametrize(
    ("name", "is_kept"), [("a.mp4", True), ("a.mov", True), ("a.mkv", False), ("a.ts", False)]
)
def test_its_pictures_are_those_of_a_file_opened_anew(tmp_path: Path, name: str, is_kept: bool):
    clip = write_clip(tmp_path / name, codec="libx264", options=OPEN_GROUPS)
    with closing(VideoFile(str(clip))) as video:
        with video.packets() as (first, stream):
            facts = result_of(read_packets(first, stream))
        again, stream = video.open()
        assert (again is first) == is_kept
        found = pictures(again, stream)
        assert found == pictures(*open_video(str(clip)))
        np.testing.assert_array_equal([pts for pts, _ in found], sorted(facts.display_times))


def without_reordering_limits(clip: Path) -> Path:
    """Take from the headers how late pictures may be shown (H.264 E.1.1, bitstream_restriction)."""
    with av.open(str(clip)) as container:
        extradata = bytes(container.streams.video[0].codec_context.extradata)
    length = int.from_bytes(extradata[6:8], "big")
    header = extradata[8 : 8 + length]
    bits = "".join(f"{byte:08b}" for byte in header)
    # The flag, three times 1, and twice the same length of motion vectors, a code of seven bits.
    restriction = list(re.finditer(r"1111(0001\d{3})\1", bits))[-1]
    bits = (bits[: restriction.start()] + "01").ljust(len(bits), "0")
    changed = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    content = clip.read_bytes()
    assert content.count(header) == 1
    clip.write_bytes(content.replace(header, changed))
    return clip


@pytest.mark.parametrize(
    "parameters",
    ["bframes=3", "bframes=3:open-gop=1:keyint=10", "b-adapt=0:bframes=9:b-pyramid=normal:ref=6"],
)
@pytest.mark.parametrize("is_limited", [True, False])
def test_opening_without_decoding_changes_no_picture(
    tmp_path: Path, parameters: str, is_limited: bool
):
    options = {"x264-params": parameters}
    clip = write_clip(tmp_path / "a.mp4", options=options, max_b_frames=None)
    if not is_limited:
        without_reordering_limits(clip)
    container = av.open(str(clip))
    truth = pictures(container, container.streams.video[0])
    container, stream = open_video(str(clip))
    assert stream.codec_context.pix_fmt is None  # which FFmpeg sets with the first picture
    assert pictures(container, stream) == truth
    assert len(truth) == 50


@pytest.mark.parametrize(("name", "b_frames"), [("a.mp4", 0), ("a.mkv", 3)])
def test_where_headers_do_not_tell_the_order_ffmpeg_finds_it_out(
    tmp_path: Path, name: str, b_frames: int
):
    container, stream = open_video(str(write_clip(tmp_path / name, max_b_frames=b_frames)))
    assert stream.codec_context.pix_fmt == "yuv420p"
    container.close()


def test_one_that_is_in_use_is_not_lent_again(tmp_path: Path):
    clip = write_clip(tmp_path / "a.mp4", codec="libx264", options=OPEN_GROUPS)
    with closing(VideoFile(str(clip))) as video:
        with video.packets():
            pass
        (one, _), (other, _) = video.open(), video.open()
        assert one is not other
        one.close()
        other.close()


def test_a_codec_that_nobody_knows_is_a_reason(tmp_path):
    clip = write_clip(tmp_path / "a.mp4")
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"XYZW"))
    with pytest.raises(DecodeError, match="no decoder for the video's codec"):
        open_video(str(clip))


def test_a_list_of_files_is_not_the_film_that_it_names(tmp_path):
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(DecodeError, match="a list of other files"):
        open_video(str(tmp_path / "list.mp4"))


def test_sound_that_goes_on_does_not_lengthen_the_film(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        film = container.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for _ in range(50):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(film.encode(frame))
        container.mux(film.encode())
        for _ in range(7):
            second = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
            second.sample_rate = 8000
            container.mux(sound.encode(second))
        container.mux(sound.encode())
    with av.open(str(path)) as container:
        assert container.duration > 6_000_000
    assert probe(str(path), "video").duration_seconds == pytest.approx(2.0, abs=0.05)


def write_streams(path: Path, *streams: tuple[str, int, int]) -> Path:
    """Streams of still pictures: codec, width (height is half of it), number of pictures."""
    with av.open(str(path), "w") as container:
        added = []
        for codec, width, _ in streams:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = width, width // 2
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.max_b_frames = 0
            added.append(stream)
        for stream, (_, width, num_pictures) in zip(added, streams, strict=True):
            picture = np.full((width // 2, width, 3), 90, np.uint8)
            for _ in range(num_pictures):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return path


def test_one_picture_beside_a_film_is_not_the_film(tmp_path: Path):
    clip = write_streams(tmp_path / "a.mov", ("mjpeg", 512, 1), ("libx264", 128, 50))
    _, outcome = decode(clip)
    assert (outcome.status, outcome.frames_scored) == ("ok", 20)
    assert probe(str(clip), "video").width == 128


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
def test_of_streams_that_nothing_tells_apart_the_largest_is_taken(tmp_path: Path, name: str):
    clip = write_streams(tmp_path / name, ("libx264", 128, 50), ("libx264", 256, 50))
    container, stream = open_video(str(clip))
    assert (stream.index, stream.width) == (1, 256)
    container.close()
    assert decode(clip)[1].decoder == "pyav"  # decord takes the first
