"""Parts of longer files: the samples of the whole, at the cost of the part."""

import numpy as np
import pytest
from numbered_clips import decode, numbers, result_of, write_clip

from dsdi_ray.vision import pyav_reader
from dsdi_ray.vision.decode import ClipSource
from dsdi_ray.vision.sampling import plan_samples
from dsdi_ray.vision.timeline_reader import read_timeline
from dsdi_ray.vision.video_stream import VideoFile

GOP = 10
ENCODINGS = {
    "closed.mp4": ("libx264", {"x264-params": "bframes=3:b-adapt=0:scenecut=0"}, None),
    "open.mp4": ("libx264", {"x264-params": "bframes=3:b-adapt=0:open-gop=1"}, None),
    "open.mkv": ("libx265", {"x265-params": "log-level=none:bframes=3:open-gop=1"}, None),
    "plain.mkv": ("libx264", {}, 0),
    "late.mkv": ("libx264", {"x264-params": "bframes=3:b-adapt=0:scenecut=0"}, None),
    "stream.ts": ("libx264", {"x264-params": "bframes=3:b-adapt=0:scenecut=0"}, None),
}


@pytest.fixture(scope="module", params=ENCODINGS)
def clip(request, tmp_path_factory):
    codec, options, b_frames = ENCODINGS[request.param]
    return write_clip(
        tmp_path_factory.mktemp("parts") / request.param,
        codec=codec,
        options=options,
        max_b_frames=b_frames,
        num_pictures=200,
        gop=GOP,
        shown_at_ms=(lambda i: 4000 + 40 * i) if request.param == "late.mkv" else None,
    )


class Counter:
    """Counts what passes by."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, items):
        for item in items:
            self.count += item is not None
            yield item


@pytest.mark.parametrize("end", [None, 0.3, 1.7])
@pytest.mark.parametrize("start", [0.0, 0.39, 0.4, 2.8, 5.03, 7.95, 8.0, 30.0])
def test_a_parts_samples_are_those_of_the_whole_files_timeline(clip, start, end):
    end = None if end is None else start + end
    source = ClipSource(uri=str(clip), start_seconds=start, end_seconds=end)
    whole = plan_samples(result_of(read_timeline(VideoFile(str(clip)))), source, fps=10)
    part = plan_samples(result_of(read_timeline(VideoFile(str(clip)), start, end)), source, fps=10)
    np.testing.assert_array_equal(part.frame_indices, whole.frame_indices)
    np.testing.assert_array_equal(part.display_times, whole.display_times)


def test_an_indexed_files_timeline_is_read_around_the_part_alone(clip):
    part = result_of(read_timeline(VideoFile(str(clip)), 5.0, 5.6))
    is_indexed = clip.suffix != ".ts"
    margin = 25  # pictures of a second
    assert (len(part.display_times) <= 15 + margin + 2 * GOP) == is_indexed


@pytest.mark.parametrize("is_careful", [False, True])
@pytest.mark.parametrize("start", [0.44, 2.0, 3.56, 5.2, 7.96])
def test_no_more_than_a_group_of_pictures_is_decoded_beside_the_part(
    clip, start, is_careful, monkeypatch
):
    counter = Counter()
    plain = pyav_reader.decoded_frames
    monkeypatch.setattr(pyav_reader, "decoded_frames", lambda *a, **k: counter.of(plain(*a, **k)))
    chunks, outcome = decode(clip, start=start, end=start + 0.6, is_careful=is_careful)
    first = int(start * 25 + 1e-6)
    assert outcome.status == "ok"
    assert numbers(chunks)[0] == first
    num_pictures = min(199, int((start + 0.6) * 25)) - first
    assert counter.count <= num_pictures + GOP + 1


def test_a_part_of_a_program_stream_shows_the_whole_ones_pictures(tmp_path):
    """After a seek FFmpeg gives other times to pictures that share a packet."""
    clip = write_clip(
        tmp_path / "a.mpg", codec="mpeg1video", num_pictures=100, gop=12, max_b_frames=2
    )
    whole = numbers(decode(clip)[0])
    for first in range(0, 40, 5):
        chunks, outcome = decode(clip, start=first / 10, end=first / 10 + 0.5)
        assert (outcome.status, outcome.frames_scored) == ("ok", 5)
        assert numbers(chunks) == {k: whole[first + k] for k in range(5)}
