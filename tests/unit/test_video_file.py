"""A container that was read for its packets serves decoding as one opened anew does."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numbered_clips import result_of, write_clip

from dsdi_ray.vision.packet_facts import read_packets
from dsdi_ray.vision.video_stream import VideoFile, decoded_frames, open_video

OPEN_GROUPS = {"x264-params": "bframes=3:open-gop=1:keyint=10"}


def pictures(container, stream) -> list[tuple[int, bytes]]:
    with container:
        frames = [f for f in decoded_frames(container, stream, on_error=pytest.fail) if f]
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


def test_one_that_is_in_use_is_not_lent_again(tmp_path: Path):
    clip = write_clip(tmp_path / "a.mp4", codec="libx264", options=OPEN_GROUPS)
    with closing(VideoFile(str(clip))) as video:
        with video.packets():
            pass
        (one, _), (other, _) = video.open(), video.open()
        assert one is not other
        one.close()
        other.close()
