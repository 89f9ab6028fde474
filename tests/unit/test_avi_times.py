"""AVI files: pictures that were dropped, B-frames, and holes that FFmpeg counts over."""

import av
import numpy as np
import pytest
from numbered_clips import decode, numbers, write_clip

X264 = {"x264-params": "b-adapt=0:bframes=2"}


@pytest.mark.parametrize(
    ("codec", "options", "b_frames"),
    [("mjpeg", {}, 0), ("mpeg4", {}, 2), ("libx264", X264, None)],
)
def test_where_pictures_were_dropped_the_others_keep_their_times(
    tmp_path, codec, options, b_frames
):
    clip = tmp_path / "a.avi"
    whole = write_clip(
        tmp_path / "whole.avi",
        codec=codec,
        options=options,
        max_b_frames=b_frames,
        pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p",
        num_pictures=97,
    )
    shown_at = [i + 14 * (i >= 30) + i // 7 for i in range(97)]  # in slots of 40 ms
    with av.open(str(whole)) as source, av.open(str(clip), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        delay = source.streams.video[0].codec_context.reorder_depth
        for place, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream = stream
            packet.dts = packet.pts = [*range(-delay, 0), *shown_at][place]
            copy.mux(packet)
    chunks, outcome = decode(clip)
    assert outcome.status == "ok"
    for k, number in numbers(chunks).items():
        assert number == np.searchsorted(shown_at, 2.5 * k + 1e-6, side="right") - 1


@pytest.mark.parametrize(("codec", "pixel_format"), [("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")])
def test_what_lies_in_a_hole_is_missing_and_what_follows_is_not_shown_early(
    tmp_path, codec, pixel_format
):
    clip = write_clip(
        tmp_path / "a.avi", codec=codec, pixel_format=pixel_format, num_pictures=100, gop=5
    )
    with av.open(str(clip)) as container:
        places = [p.pos for p in container.demux(video=0) if p.size]
    data = bytearray(clip.read_bytes())
    data[places[41] : places[59]] = bytes(places[59] - places[41])
    clip.write_bytes(data)
    chunks, outcome = decode(clip)
    shown = numbers(chunks)
    assert outcome.status == "partial"
    assert outcome.frames_expected == 40
    assert "do not decode" in outcome.error
    assert "pictures of its index" in outcome.note
    assert 30 <= len(shown) < 36
    assert all(number == k * 25 // 10 for k, number in shown.items() if not 16 <= k <= 24)
    assert {k for k in range(40) if not 16 <= k <= 24} <= shown.keys()
