import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsdi_ray.errors import DataError
from dsdi_ray.report.page import PageSection, PageTable, write_page

VOID = {"meta", "img", "br", "link"}


class Reader(HTMLParser):
    """What a browser sees of a page: tags that close in order, texts by tag, attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts, self.tables = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not data.strip():
            return
        self.texts.append((self.open[-1], data.strip()))
        if self.open[-1] in {"th", "td"}:
            self.tables[-1][-1].append(data.strip())

    def attributes_of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def texts_of(self, tag):
        return [text for name, text in self.texts if name == tag]


def read(path):
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def write(path, *sections, title="Title", lead="Lead."):
    return read(write_page(path / "new" / "index.html", title=title, lead=lead, sections=sections))


def table(*rows, columns=("name", "value")):
    return PageTable(caption="Facts", columns=columns, rows=rows)


def test_headings_paragraphs_and_contents_are_in_order(tmp_path):
    page = write(
        tmp_path,
        PageSection(title="First", text="One\nline.\n\n \nTwo."),
        PageSection(title="Second"),
    )
    assert page.texts_of("h1") == page.texts_of("title") == ["Title"]
    assert page.texts_of("p") == ["Lead.", "One\nline.", "Two."]
    assert page.texts_of("h2") == ["Contents", "First", "Second"]
    links = [a["href"] for a in page.attributes_of("a")]
    assert links[1:] == [f"#{s['id']}" for s in page.attributes_of("section")]


def test_a_page_of_one_section_has_no_contents(tmp_path):
    assert write(tmp_path, PageSection(title="Only")).attributes_of("nav") == []


def test_cells_show_numbers_absent_values_paths_and_answers(tmp_path):
    rows = [
        ("a", 0.12345), ("b", None), ("c", 7), ("d", float("nan")), ("e", -2.0),
    ]  # fmt: skip
    others = table(("x", Path("/a/b")), ("y", True), ("z", "text"))
    page = write(tmp_path, PageSection(title="S", tables=[table(*rows), others]))
    assert page.tables == [
        [["name", "value"], ["a", "0.123"], ["b", "-"], ["c", "7"], ["d", "nan"], ["e", "-2.000"]],
        [["name", "value"], ["x", "/a/b"], ["y", "yes"], ["z", "text"]],
    ]
    assert page.texts_of("caption") == ["Facts", "Facts"]


def test_columns_of_numbers_alone_are_aligned_and_headers_name_their_cells(tmp_path):
    rows = [("a", 1, None), ("b", None, None), ("c", 2.5, None)]
    page = write(
        tmp_path, PageSection(title="S", tables=[table(*rows, columns=("n", "x", "none"))])
    )
    headers = page.attributes_of("th")
    assert [h["scope"] for h in headers] == ["col"] * 3 + ["row"] * 3
    assert ["class" in h for h in headers[:3]] == [False, True, False]
    assert ["class" in cell for cell in page.attributes_of("td")] == [True, False] * 3


def test_a_table_without_rows_says_so(tmp_path):
    page = write(tmp_path, PageSection(title="S", tables=[table()]))
    assert page.tables == [[["name", "value"], ["none"]]]


def test_nothing_that_is_given_becomes_html(tmp_path):
    evil = "<script>alert('1')</script> & \"quoted\""
    picture = tmp_path / "a_<b>_figure.png"
    Image.new("RGB", (4, 4)).save(picture)
    section = PageSection(
        title=evil,
        text=evil,
        tables=[PageTable(caption=evil, columns=[evil], rows=[[evil]])],
        figures=[picture],
    )
    page = write(tmp_path, section, section, title=evil, lead=evil)
    assert page.attributes_of("script") == []
    for tag in ("h1", "title", "p", "h2", "caption", "th"):
        assert evil in page.texts_of(tag)
    assert page.attributes_of("img")[0]["alt"] == "a b figure"


def test_figures_are_in_the_page_itself_to_the_byte(tmp_path):
    picture = tmp_path / "learning_curves.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (48, 96, 3), np.uint8)).save(picture)
    page = write(tmp_path, PageSection(title="S", figures=[picture]))
    (image,) = page.attributes_of("img")
    start, _, content = image["src"].partition(",")
    assert start == "data:image/png;base64"
    assert base64.b64decode(content) == picture.read_bytes()
    assert image["alt"] == "learning curves"
    assert int(image["width"]) == 2 * int(image["height"])


def test_a_page_names_no_other_file_and_runs_no_code(tmp_path):
    picture = tmp_path / "p.png"
    Image.new("RGB", (4, 4)).save(picture)
    page = write(tmp_path, PageSection(title="S", figures=[picture]), PageSection(title="T"))
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    assert {"script", "link"}.isdisjoint(name for name, _ in page.tags)


def test_a_figure_that_is_no_png_leaves_the_old_page_as_it_was(tmp_path):
    path = tmp_path / "index.html"
    write_page(path, title="Old", lead="", sections=[])
    (tmp_path / "no.png").write_bytes(b"text")
    for figure in ("no.png", "absent.png"):
        section = PageSection(title="S", figures=[tmp_path / figure])
        with pytest.raises(DataError, match=figure):
            write_page(path, title="New", lead="", sections=[section])
    assert read(path).texts_of("h1") == ["Old"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", "no.png"]


def test_a_row_of_another_length_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must have 2 cells"):
        write(tmp_path, PageSection(title="S", tables=[table(("a",))]))


def test_the_same_page_is_the_same_to_the_byte(tmp_path):
    pages = [
        write_page(
            tmp_path / f"{i}.html", title="T", lead="L", sections=[PageSection(title="S")]
        ).read_bytes()
        for i in range(2)
    ]
    assert pages[0] == pages[1]
