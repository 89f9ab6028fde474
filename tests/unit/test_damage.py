"""Damage counts wherever it may be seen: in the picture hit and in all that are predicted from it."""

import re
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_clips import SIDE_PX, decode

from dsdi_ray.vision.decode import ClipSource, DecodeSettings
from dsdi_ray.vision.decode_process import DecodeProcess

TS_PACKET_BYTES = 188
FILM_PID = 0x100  # FFmpeg's first stream
CODECS = {
    "H.264": ("libx264", {"x264-params": "b-adapt=0:scenecut=0:bframes=3"}),
    "H.264 without B-frames": ("libx264", {"x264-params": "scenecut=0:bframes=0"}),
    "HEVC": ("libx265", {"x265-params": "log-level=none:scenecut=0:bframes=3"}),
    "MPEG-2": ("mpeg2video", {"b": "4M"}),
}


def moving_clip(path: Path, codec: str, options: dict[str, str], num_pictures: int = 100) -> Path:
    """Noise that drifts: every picture takes several packets and is predicted from others."""
    noise = (
        np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, _ = noise.shape
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", 20
        for number in range(num_pictures):
            shown = np.ascontiguousarray(np.roll(noise, 3 * number, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return path


def film_packets(data: bytes) -> list[tuple[int, bool]]:
    """Where the film's transport packets begin, and whether a picture does with them."""
    places = range(0, len(data), TS_PACKET_BYTES)
    return [
        (at, bool(data[at + 1] & 0x40))
        for at in places
        if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF == FILM_PID
    ]


def pictures(clip: Path, **how) -> tuple[dict[int, np.ndarray], str, str | None]:
    chunks, outcome = decode(clip, **how)
    shown = {
        int(k): picture.astype(int)
        for chunk in chunks
        for k, picture in zip(chunk.frame_indices, chunk.pixels[SIDE_PX], strict=True)
    }
    return shown, outcome.status, outcome.error


def num_different(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> int:
    return sum(int(np.abs(one[k] - other[k]).max() > 8) for k in one.keys() & other.keys())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("share", [0.31, 0.52, 0.74])
def test_frames_behind_a_lost_transport_packet_count_as_damaged(tmp_path, codec, share):
    clip = moving_clip(tmp_path / "a.ts", *CODECS[codec])
    whole, status, _ = pictures(clip)
    assert status == "ok"
    data = clip.read_bytes()
    packets = film_packets(data)
    starts = [i for i, (_, is_start) in enumerate(packets) if is_start]
    at, _ = packets[starts[int(len(starts) * share)] + 1]
    clip.write_bytes(data[:at] + data[at + TS_PACKET_BYTES :])
    shown, status, error = pictures(clip)
    assert status == "partial"
    num_claimed = int(re.match(r"(\d+) frames may show damage", error)[1])
    assert num_different(shown, whole) <= num_claimed <= 9  # a group of pictures has 8 samples


@pytest.mark.parametrize("codec", CODECS)
def test_recordings_put_one_behind_the_other_are_whole(tmp_path, codec):
    data = moving_clip(tmp_path / "a.ts", *CODECS[codec], num_pictures=40).read_bytes()
    (tmp_path / "b.ts").write_bytes(data + data)
    assert pictures(tmp_path / "b.ts")[1:] == ("ok", None)


def zeroed(clip: Path, numbers: list[int]) -> None:
    """Blank the second half of packets, counted as they are stored."""
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for number in numbers:
        position, size = packets[number]
        data[position + size // 2 : position + size] = bytes(size - size // 2)
    clip.write_bytes(data)


@pytest.mark.parametrize("is_careful", [False, True])
def test_damage_between_samples_counts_where_samples_are_predicted_from_it(tmp_path, is_careful):
    clip = moving_clip(tmp_path / "a.mp4", *CODECS["H.264"])
    settings = DecodeSettings(fps=5)  # pictures 0, 5, 10, ...
    whole, _, _ = pictures(clip, settings=settings)
    zeroed(clip, [21])  # the first behind the second key frame, which is 20
    shown, status, error = pictures(clip, settings=settings, is_careful=is_careful)
    assert 0 < num_different(shown, whole) <= 3
    assert (status, error.partition(":")[0]) == ("partial", "3 frames may show damage")


def test_damage_to_a_picture_that_nothing_needs_is_not_seen_elsewhere(tmp_path):
    clip = moving_clip(tmp_path / "a.mp4", *CODECS["H.264"])
    settings = DecodeSettings(fps=5)
    whole, _, _ = pictures(clip, settings=settings)
    zeroed(clip, [23])  # a B-frame
    shown, status, _ = pictures(clip, settings=settings, is_careful=True)
    assert num_different(shown, whole) == 0
    assert status == "ok"


def test_a_frame_that_comes_twice_counts_once(tmp_path):
    data = moving_clip(tmp_path / "a.ts", *CODECS["MPEG-2"]).read_bytes()
    packets = [data[i : i + TS_PACKET_BYTES] for i in range(0, len(data), TS_PACKET_BYTES)]
    (tmp_path / "b.ts").write_bytes(b"".join(2 * packet for packet in packets))
    shown, _, error = pictures(tmp_path / "b.ts")
    assert int(re.match(r"(\d+) frames may show damage", error)[1]) <= len(shown)


@pytest.mark.parametrize("codec", ["H.264 without B-frames", "MPEG-4"])
def test_damage_that_decord_conceals_is_left_to_pyav(tmp_path, codec):
    how = {**CODECS, "MPEG-4": ("mpeg4", {"b": "4M"})}[codec]
    clip = moving_clip(tmp_path / "a.mp4", *how)
    whole, _, _ = pictures(clip)
    with av.open(str(clip)) as container:
        position, size = [(p.pos, p.size) for p in container.demux(video=0)][30]
    data = bytearray(clip.read_bytes())
    for at in range(position + size // 2, position + size, size // 8):
        data[at] ^= 0x5A
    clip.write_bytes(data)
    with DecodeProcess(DecodeSettings()) as process:
        *chunks, outcome = process.decode(ClipSource(uri=str(clip)), [SIDE_PX])
    assert (outcome.status, outcome.decoder) == ("partial", "pyav")
    assert "decord met damage" in outcome.note
    shown = {
        int(k): p.astype(int)
        for c in chunks
        for k, p in zip(c.frame_indices, c.pixels[SIDE_PX], strict=True)
    }
    assert 0 < num_different(shown, whole) <= int(outcome.error.split()[0])
