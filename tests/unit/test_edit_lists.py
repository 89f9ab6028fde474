"""Files whose edit lists show some stretches of the film, or one twice."""

import pytest
from edit_lists import with_edits
from numbered_clips import decode, numbers, write_clip

TICKS_PER_PICTURE = 512  # 12800 a second, 25 pictures
FIRST_SHOWN = 2 * TICKS_PER_PICTURE  # B-frames delay all of them


@pytest.fixture
def clip(tmp_path):
    options = {"x264-params": "b-adapt=0:scenecut=0"}
    return write_clip(tmp_path / "a.mp4", num_pictures=150, gop=25, max_b_frames=3, options=options)


def at(number: int) -> int:
    return FIRST_SHOWN + number * TICKS_PER_PICTURE


def test_what_an_edit_list_hides_is_decoded_where_shown_pictures_need_it(clip):
    with_edits(clip, [(840, at(27)), (920, at(106))])
    chunks, outcome = decode(clip)
    assert outcome.status == "ok"
    assert "skipped undecoded" in outcome.note
    shown = [27 + i for i in range(21)] + [106 + i for i in range(23)]
    assert numbers(chunks) == {k: shown[k * 25 // 10] for k in range(18)}


def test_a_part_of_a_film_that_shows_a_stretch_twice_is_the_wholes(clip):
    with_edits(clip, [(1080, at(25)), (1080, at(25))])
    whole, part = decode(clip), decode(clip, start=0.9, end=1.5)
    assert part[1].frames_expected == 6
    assert numbers(part[0]) == {k: numbers(whole[0])[9 + k] for k in range(6)}
