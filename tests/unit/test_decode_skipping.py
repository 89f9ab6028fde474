"""Pictures that nothing needs are skipped; the others are those of a full decode, bit for bit."""

from pathlib import Path

import av
import numpy as np
import pytest
from numbered_clips import decode, numbers, result_of, write_clip

from dsdi_ray.vision.decode import DecodeOutcome, DecodeSettings, FrameChunk
from dsdi_ray.vision.packet_facts import read_packets
from dsdi_ray.vision.references import unreferenced
from dsdi_ray.vision.video_stream import open_video

EVERY_TENTH = {k: k * 25 // 10 for k in range(20)}
SMALL_CHUNKS = DecodeSettings(chunk_frames=4)


def x264(parameters: str) -> dict[str, str]:
    return {"x264-params": f"b-adapt=0:bframes=3:{parameters}"}


def x265(parameters: str) -> dict[str, str]:
    return {"x265-params": f"log-level=none:b-adapt=0:bframes=3:{parameters}"}


ENCODINGS = {
    "pyramid in MP4": ("a.mp4", "libx264", x264("b-pyramid=normal")),
    "strict pyramid in Matroska": ("a.mkv", "libx264", x264("b-pyramid=strict")),
    "no pyramid, start codes": ("a.ts", "libx264", x264("b-pyramid=none")),
    "long run of B-frames": ("a.mp4", "libx264", x264("bframes=9:b-pyramid=normal:ref=6")),
    "open groups": ("a.mp4", "libx264", x264("open-gop=1:keyint=10")),
    "open groups, start codes": ("a.ts", "libx264", x264("open-gop=1:keyint=10")),
    "several slices": ("a.mp4", "libx264", x264("slices=5")),
    "several slices, start codes": ("a.ts", "libx264", x264("slices=5:aud=1")),
    "CAVLC": ("a.flv", "libx264", x264("cabac=0:8x8dct=0")),
    "temporal direct, weights": ("a.mp4", "libx264", x264("direct=temporal:weightp=2:weightb=1")),
    "no key frames": ("a.mp4", "libx264", x264("intra-refresh=1:keyint=10")),
    "x265": ("a.mp4", "libx265", x265("keyint=20")),
    "x265, open groups": ("a.mkv", "libx265", x265("open-gop=1:keyint=10:b-pyramid=1")),
    "x265, start codes": ("a.ts", "libx265", x265("open-gop=0:keyint=10")),
    "x265, temporal layers": ("a.mp4", "libx265", x265("temporal-layers=3:keyint=20")),
    "MPEG-2": ("a.mkv", "mpeg2video", {}),
    "MPEG-2 in a program stream": ("a.mpg", "mpeg2video", {}),
    "MPEG-1": ("a.mkv", "mpeg1video", {}),
    "MPEG-4 part 2": ("a.mp4", "mpeg4", {}),
}


def write(folder: Path, encoding: str, **kwargs) -> Path:
    name, codec, options = ENCODINGS[encoding]
    b_frames = 2 if codec.startswith("mpeg") else None
    return write_clip(folder / name, codec=codec, options=options, max_b_frames=b_frames, **kwargs)


def assert_same(
    fast: tuple[list[FrameChunk], DecodeOutcome], full: tuple[list[FrameChunk], DecodeOutcome]
) -> None:
    for name in ("status", "error", "decoder", "frames_expected", "frames_scored"):
        assert getattr(fast[1], name) == getattr(full[1], name)
    for ours, theirs in zip(fast[0], full[0], strict=True):
        np.testing.assert_array_equal(ours.frame_indices, theirs.frame_indices)
        for size, pixels in ours.pixels.items():
            np.testing.assert_array_equal(pixels, theirs.pixels[size])


def has_skipped(outcome: DecodeOutcome) -> bool:
    return "skipped undecoded" in (outcome.note or "")


def unneeded_packets(path: Path) -> list[tuple[int, int, int]]:
    """Number, position and size of the packets whose picture no other picture needs."""
    container, stream = open_video(str(path))
    with container:
        facts = result_of(read_packets(container, stream))
    with av.open(str(path)) as container:
        packets = [(p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size]
    shown_at = sorted(pts for pts, _, _ in packets)
    return [
        (shown_at.index(pts), position, size)
        for (pts, position, size), is_unneeded in zip(
            packets, unreferenced(facts.references), strict=True
        )
        if is_unneeded
    ]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_pictures_are_those_of_a_full_decode(tmp_path, encoding):
    clip = write(tmp_path, encoding)
    fast, full = decode(clip), decode(clip, is_careful=True)
    assert has_skipped(fast[1])
    assert fast[1].attempts == 1  # nothing called for a full decode
    assert numbers(fast[0]) == EVERY_TENTH
    assert_same(fast, full)


@pytest.mark.parametrize("encoding", ["pyramid in MP4", "open groups, start codes", "MPEG-2"])
@pytest.mark.parametrize("fps", [3.0, 10.0, 17.0])
def test_any_rate_and_any_part_are_those_of_a_full_decode(tmp_path, encoding, fps):
    clip, settings = write(tmp_path, encoding), DecodeSettings(fps=fps, chunk_frames=4)
    for part in ({}, {"start": 0.5}, {"start": 0.9, "end": 1.6}, {"first_chunk": 1}):
        full = decode(clip, settings=settings, is_careful=True, **part)
        assert_same(decode(clip, settings=settings, **part), full)


def test_variable_rates_are_those_of_a_full_decode(tmp_path):
    clip = write_clip(
        tmp_path / "a.mkv",
        num_pictures=60,
        shown_at_ms=lambda i: 500 + 45 * i + (i % 7) ** 2,
        options=x264("keyint=15"),
        max_b_frames=None,
    )
    fast = decode(clip)
    assert has_skipped(fast[1])
    assert_same(fast, decode(clip, is_careful=True))


def test_pictures_of_a_lower_temporal_layer_are_not_skipped(tmp_path):
    """In HEVC a higher layer may need what its own layer does not."""
    layered, plain = (
        write_clip(tmp_path / f"{i}.mp4", codec="libx265", options=x265(more), max_b_frames=None)
        for i, more in enumerate(["temporal-layers=3:keyint=20", "keyint=20"])
    )
    assert 0 < len(unneeded_packets(layered)) <= len(unneeded_packets(plain))


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv"])
def test_interlaced_pictures_are_not_skipped(tmp_path, name):
    clip = write_clip(tmp_path / name, options=x264("tff=1"), max_b_frames=None)
    chunks, outcome = decode(clip)
    assert not has_skipped(outcome)
    assert outcome.status == "ok"
    assert numbers(chunks) == EVERY_TENTH


def test_where_every_picture_is_sampled_nothing_is_skipped(tmp_path):
    clip = write(tmp_path, "pyramid in MP4")
    _, outcome = decode(clip, settings=DecodeSettings(fps=25))
    assert (outcome.status, outcome.decoder, outcome.note) == ("ok", "decord", None)


def test_the_decoder_never_sees_what_is_skipped(tmp_path):
    clip = write(tmp_path, "pyramid in MP4")
    before, data = decode(clip), bytearray(clip.read_bytes())
    skipped = [p for p in unneeded_packets(clip) if p[0] not in EVERY_TENTH.values()]
    for _, position, size in skipped:
        data[position + 5 : position + size] = bytes(size - 5)  # all but length and NAL header
    clip.write_bytes(data)
    assert len(skipped) > 10
    assert_same(decode(clip), before)


@pytest.mark.parametrize("encoding", ["pyramid in MP4", "no pyramid, start codes", "x265"])
@pytest.mark.parametrize("seed", range(6))
def test_damage_is_accounted_for_as_by_a_full_decode(tmp_path, encoding, seed):
    clip = write(tmp_path, encoding, num_pictures=100)
    with av.open(str(clip)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size > 20]
    rng, data = np.random.default_rng(seed), bytearray(clip.read_bytes())
    for i in rng.choice(len(packets), 4, replace=False):
        position, size = packets[i]
        if seed % 2:  # a hole, or flipped bits
            data[position + 8 : position + size] = bytes(size - 8)
        else:
            data[position + int(rng.integers(8, size))] ^= 1 << int(rng.integers(8))
    clip.write_bytes(data)
    fast = decode(clip, settings=SMALL_CHUNKS)
    assert_same(fast, decode(clip, settings=SMALL_CHUNKS, is_careful=True))
