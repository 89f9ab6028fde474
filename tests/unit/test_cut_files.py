"""Files that were cut off: what is gone is told, whole files are taken for whole."""

import pytest
from numbered_clips import decode, numbers, write_clip

from dsdi_ray.vision.decode import DecodeSettings

NUM_PICTURES = 200  # 8 s, 80 samples
CODECS = {"a.mp4": "libx264", "a.mkv": "libx264", "a.webm": "libvpx", "a.avi": "mpeg4"}


@pytest.fixture(scope="module", params=CODECS)
def clip(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / request.param
    options = {"movflags": "+faststart"} if path.suffix == ".mp4" else None
    return write_clip(
        path,
        codec=CODECS[path.name],
        num_pictures=NUM_PICTURES,
        gop=10,
        container_options=options,
    )


def cut(clip, folder, share):
    path = folder / clip.name
    content = clip.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def test_a_whole_file_and_its_parts_are_whole(clip):
    for start, end in ((None, None), (1.0, 2.0), (7.0, 9.0)):
        _, outcome = decode(clip, start=start, end=end)
        assert (outcome.status, outcome.error) == ("ok", None)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_what_a_file_lacks_is_counted(clip, tmp_path, share):
    chunks, outcome = decode(cut(clip, tmp_path, share))
    assert outcome.status == "partial"
    assert "the file was cut off" in outcome.error or "do not decode" in outcome.error
    assert outcome.frames_expected == pytest.approx(80, abs=1)
    assert outcome.frames_scored == len(numbers(chunks)) < 80
    assert all(number == int(k * 2.5) for k, number in numbers(chunks).items())


def test_a_part_lacks_what_is_gone_of_it_alone(clip, tmp_path):
    path = cut(clip, tmp_path, 0.6)
    _, before = decode(path, start=0.5, end=1.5)
    _, across = decode(path, start=1.0, end=8.0)
    _, behind = decode(path, start=7.5, end=8.0)
    assert (before.status, before.frames_expected) == ("ok", 10)
    assert across.status == "partial"
    assert across.frames_expected == pytest.approx(70, abs=1)
    assert behind.status == "failed"
    assert behind.error == "the clip's part lies beyond the end of a file that was cut off"


def test_pictures_of_a_slow_source_are_counted_once_each(tmp_path):
    whole = write_clip(tmp_path / "slow.mkv", num_pictures=40, fps=5)
    (tmp_path / "cut").mkdir()
    _, outcome = decode(cut(whole, tmp_path / "cut", 0.5), settings=DecodeSettings(fps=10))
    assert outcome.frames_expected == pytest.approx(40, abs=1)


def test_times_that_jump_by_decades_leave_the_clip_partial(tmp_path):
    """A recorder that sets its clock on the way."""
    later = 1_700_000_000_000
    clip = write_clip(
        tmp_path / "jump.mkv", num_pictures=50, shown_at_ms=lambda i: 40 * i + later * (i >= 20)
    )
    chunks, outcome = decode(clip)
    assert outcome.status == "partial"
    assert "30 pictures are not sampled: their times are years away" in outcome.error
    assert set(numbers(chunks).values()) >= {0, 2, 5, 7}
