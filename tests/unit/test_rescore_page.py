import pytest
from PIL import Image
from test_page import read

from dsdi_ray.method.run_changes import compare_runs
from dsdi_ray.report.rescore_page import Rescoring, newly_on_top, write_rescore_page
from dsdi_ray.storage.manifest_changes import ManifestChanges
from dsdi_ray.storage.runs import run_of_scores
from dsdi_ray.taxonomy import taxonomy_from_dict

TAXONOMY = taxonomy_from_dict({"name": "two", "classes": ["flood", "boat"]})
BEFORE = {1: {"a": 0.9, "b": 0.8, "c": 0.7}, 2: {"a": 0.5, "b": 0.4, "c": 0.3}}
AFTER = {1: {"c": 0.95, "a": 0.9, "b": 0.8}, 2: {"new<1>": 0.6, "a": 0.5, "b": 0.4, "c": 0.3}}


def rescoring(*, first=False, **changes):
    values = {
        "name": "0002",
        "compared_with": None if first else "0001",
        "how": "Scored at 10 frames per second.",
        "facts": {"clips": 4, "seconds": 2},
        "members": {"id1": ("m1", 1.0, 1.0), "id2": ("m2", 2.0, None)},
        "clips": ManifestChanges(new=("new<1>",), changed=(), gone=("z",)),
        "failed": {"cannot be decoded": 2},
        "unranked": {},
        "run": run_of_scores(AFTER, taxonomy=TAXONOMY),
        "changes": compare_runs({} if first else BEFORE, AFTER, top_k=2),
        "top_k": 2,
    }
    return Rescoring(**{**values, **changes})


def table_with(page, *columns):
    (table,) = [t for t in page.tables if t[0][: len(columns)] == list(columns)]
    return table[1:]


@pytest.fixture
def page(tmp_path):
    return read(write_rescore_page(tmp_path / "index.html", rescoring(), sheet=None))


def test_the_page_names_what_was_done_and_why_clips_failed(page):
    assert ["clips", "4"] in table_with(page, "what")
    assert table_with(page, "member") == [
        ["m1", "id1", "1.000", "1.000"], ["m2", "id2", "2.000", "-"],
    ]  # fmt: skip
    assert table_with(page, "reason") == [["cannot be decoded", "2"]]
    assert table_with(page, "clip", "footage") == [["new<1>", "new"], ["z", "gone"]]
    assert "Run 0002, compared with run 0001." in page.texts_of("p")


def test_the_page_names_what_entered_left_rose_and_fell(page):
    assert table_with(page, "feature", "clip", "footage", "rank", "rank before") == [
        ["flood", "c", "known", "1", "3", "0.950", "0.700"],
        ["boat", "new<1>", "new", "1", "-", "0.600", "-"],
    ]
    rose, fell = [t[1:] for t in page.tables if t[0][:3] == ["feature", "clip", "places"]]
    assert rose == [["flood", "c", "2", "3", "1", "0.700", "0.950"]]
    assert [row[:3] for row in fell] == [["flood", "a", "-1"], ["flood", "b", "-1"]]
    assert table_with(page, "feature", "clip", "footage", "rank before") == [
        ["flood", "b", "known", "2", "3"], ["boat", "b", "known", "2", "3"],
    ]  # fmt: skip
    (flood, boat) = table_with(page, "feature", "entered")
    assert flood == ["flood", "1", "1", "1", "2", "0.500", "-0.333"]
    assert boat == ["boat", "1", "1", "0", "0", "0.500", "1.000"]


def test_a_first_run_shows_its_best_clips_and_no_changes(tmp_path):
    first = rescoring(first=True, name="0001")
    page = read(write_rescore_page(tmp_path / "index.html", first, sheet=None))
    assert "Run 0001, the first one." in page.texts_of("p")
    assert table_with(page, "feature", "rank")[0] == ["flood", "1", "c", "0.950"]
    assert page.texts_of("h2") == ["Contents", "What was done", "Best clips"]


def test_long_lists_are_cut_and_the_page_says_so(tmp_path):
    clips = ManifestChanges(new=tuple(f"n{i:04}" for i in range(500)), changed=(), gone=())
    many = {1: {f"c{i}": 1 - i / 100 for i in range(50)}}
    cut = rescoring(clips=clips, changes=compare_runs({}, many, top_k=30))
    page = read(write_rescore_page(tmp_path / "index.html", cut, sheet=None))
    texts = " ".join(page.texts_of("p"))
    assert "The first 200 of 500 are listed." in texts
    assert "At most 6 clips are listed per feature." in texts


def test_only_clips_that_entered_are_shown_so_many_per_feature():
    run = run_of_scores(AFTER, taxonomy=TAXONOMY)
    shown = newly_on_top(run, compare_runs(BEFORE, AFTER, top_k=2), num_clips=6)
    assert [(r["feature"], r["clip_id"]) for r in shown.to_pylist()] == [
        ("flood", "c"), ("boat", "new<1>"),
    ]  # fmt: skip
    first = newly_on_top(run, compare_runs({}, AFTER, top_k=3), num_clips=2)
    assert first["rank"].to_pylist() == [1, 2, 1, 2]
    assert len(newly_on_top(run, compare_runs(AFTER, AFTER, top_k=2), num_clips=2)) == 0


def test_pictures_stand_before_the_tables_they_belong_to(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "new_on_top.png")
    for first, title in ((True, "Pictures: best clips"), (False, "Pictures: new in the top 2")):
        path = tmp_path / f"{first}.html"
        page = read(
            write_rescore_page(path, rescoring(first=first), sheet=tmp_path / "new_on_top.png")
        )
        assert page.texts_of("h2")[2] == title
        assert [image["alt"] for image in page.attributes_of("img")] == ["new on top"]
