import numpy as np
import pytest
from PIL import Image

from dsdi_ray.report.evaluation import evaluate_run
from dsdi_ray.report.figures import ContactClip, ContactRow, contact_sheet, map_chart
from dsdi_ray.storage.runs import run_of_scores

GREEN, ORANGE = (21, 128, 61), (194, 65, 12)


def plain(colour, height=90, width=160):
    return np.full((height, width, 3), colour, np.uint8)


def clip(rank, colour, **fields):
    return ContactClip(picture=plain(colour), rank=rank, clip_id=f"c{rank}", score=0.5, **fields)


def pixels_of(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(pixels, colour):
    return int((pixels == np.array(colour)).all(axis=-1).sum())


def test_a_sheet_shows_each_picture_once_and_marks_what_was_judged(tmp_path):
    row = ContactRow(
        feature="boat",
        clips=[
            clip(1, (1, 2, 200), is_relevant=True, peak_seconds=61.25),
            clip(2, (200, 2, 1), is_relevant=False),
            clip(3, (200, 200, 1)),
        ],
        ap=0.5,
    )
    out = tmp_path / "new" / "sheet.png"
    contact_sheet([row], out)
    pixels = pixels_of(out)
    for colour in ((1, 2, 200), (200, 2, 1), (200, 200, 1)):
        assert count(pixels, colour) > 10_000
    assert count(pixels, GREEN) > 1_000
    assert count(pixels, ORANGE) > 1_000


def test_without_judgements_nothing_is_marked(tmp_path):
    contact_sheet([ContactRow(feature="boat", clips=[clip(1, (9, 9, 9))])], tmp_path / "s.png")
    pixels = pixels_of(tmp_path / "s.png")
    assert count(pixels, GREEN) == count(pixels, ORANGE) == 0


@pytest.mark.parametrize("shape", [(400, 40), (40, 400), (1, 1), (2160, 3840)])
def test_pictures_of_any_shape_are_shown_whole(tmp_path, shape):
    picture = plain((10, 20, 230), *shape)
    edge = max(1, shape[0] // 8)
    picture[:edge], picture[-edge:] = (230, 10, 20), (20, 230, 10)
    shown = ContactClip(picture=picture, rank=1, clip_id="c", score=1.0)
    contact_sheet([ContactRow(feature="f", clips=[shown])], tmp_path / "s.png")
    pixels = pixels_of(tmp_path / "s.png")
    assert count(pixels, (20, 230, 10)) > 20
    if shape[0] > 1:
        assert count(pixels, (230, 10, 20)) > 20


def test_rows_may_be_of_different_length_empty_or_without_pictures(tmp_path):
    rows = [
        ContactRow(
            feature="a $very$ long name of a feature that must be broken into lines", clips=[]
        ),
        ContactRow(
            feature="b_$x$",
            clips=[ContactClip(picture=None, rank=1, clip_id="$x^" * 20, score=0.0)],
        ),
        ContactRow(feature="c", clips=[clip(i, (i, i, i)) for i in range(1, 7)]),
    ]
    contact_sheet(rows, tmp_path / "s.png", title="50 $ of flooding")
    assert pixels_of(tmp_path / "s.png").shape[1] > 1500


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(tmp_path, picture):
    shown = ContactClip(picture=picture, rank=1, clip_id="c", score=1.0)
    with pytest.raises(ValueError, match="uint8"):
        contact_sheet([ContactRow(feature="f", clips=[shown])], tmp_path / "s.png")


def test_a_sheet_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([], tmp_path / "s.png")


def test_bars_are_as_long_as_average_precision(tmp_path):
    run = run_of_scores({1: {"a": 1.0, "b": 0.5}, 2: {"a": 1.0, "b": 0.5}})
    evaluation = evaluate_run(run, {"1": {"a": 1, "b": 0}, "2": {"a": 0, "b": 1}})
    map_chart(evaluation, tmp_path / "map.png")
    is_bar = (pixels_of(tmp_path / "map.png") == np.array((0x25, 0x63, 0xEB))).all(axis=-1)
    is_bar[: is_bar.shape[0] // 4] = False  # the legend's sample
    lengths = sorted({int(n) for n in is_bar.sum(axis=1) if n})
    assert lengths[0] / lengths[-1] == pytest.approx(0.5, abs=0.02)  # AP 1/2 and 1
