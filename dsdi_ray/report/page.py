"""A page of results in one file: text, tables and figures, readable anywhere without a network."""

import base64
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dsdi_ray.errors import DataError
from dsdi_ray.storage.filesystems import short_reason, write_bytes

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = "page.html.j2"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PICTURE_DPI = 110  # of the figures; a figure is shown at its size in inches where there is room
_CSS_DPI = 96


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """A table of a section.

    Attributes:
        caption: What it shows.
        columns: Their names, the first one that of the rows' names.
        rows: Cells in the columns' order; None shows as "-", floats to three decimals.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True, kw_only=True)
class PageSection:
    """A part of a page, named in its list of contents.

    Attributes:
        title: Its heading.
        text: Plain text; blank lines separate paragraphs.
        tables: Shown below the text.
        figures: PNG files, shown below the tables; the name of a file says in words what is seen.
    """

    title: str
    text: str = ""
    tables: Sequence[PageTable] = ()
    figures: Sequence[Path] = ()


@dataclass(frozen=True)
class _Cell:
    text: str
    is_number: bool


@dataclass(frozen=True)
class _Picture:
    source: str
    alt: str
    width: int
    height: int


def write_page(path: Path, *, title: str, lead: str, sections: Sequence[PageSection]) -> Path:
    """Write an HTML page that needs nothing beside itself; it is there whole or not at all.

    Text is shown as it is given: nothing in it counts as HTML.

    Args:
        path: File to write; its folder is made.
        title: Heading of the page.
        lead: What the page says, in a sentence or two, below the heading.
        sections: In the order in which they are shown.

    Returns:
        The path.

    Raises:
        DataError: If a figure is no PNG file, or the page cannot be written.
        ValueError: If a row has another number of cells than its table has columns.
    """
    html = _template().render(
        title=title,
        lead=_paragraphs(lead),
        sections=[
            {
                "title": section.title,
                "paragraphs": _paragraphs(section.text),
                "tables": [_table(table) for table in section.tables],
                "pictures": [_picture(figure) for figure in section.figures],
            }
            for section in sections
        ],
    )
    try:
        write_bytes(path, html.encode("utf-8"))
    except OSError as error:
        raise DataError(f"page {path}: cannot be written: {short_reason(error)}") from error
    return path


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("dsdi_ray.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(_TEMPLATE)


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", text.strip()) if part]


def _table(table: PageTable) -> dict[str, object]:
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(
                f"table {table.caption!r}: a row must have {len(table.columns)} cells, got {row}"
            )
    rows = [[_cell(value) for value in row] for row in table.rows]
    # A column of numbers is aligned to the right, its heading too.
    is_number = [
        any(row[i].is_number for row in rows)
        and all(row[i].is_number or row[i].text == "-" for row in rows)
        for i in range(len(table.columns))
    ]
    return {
        "caption": table.caption,
        "columns": list(zip(table.columns, is_number, strict=True)),
        "rows": [list(zip((cell.text for cell in row), is_number, strict=True)) for row in rows],
    }


def _cell(value: object) -> _Cell:
    if value is None:
        return _Cell("-", is_number=False)
    if isinstance(value, bool):
        return _Cell("yes" if value else "no", is_number=False)
    if isinstance(value, float):
        text = f"{value:.3f}" if math.isfinite(value) else str(value)
        return _Cell(text, is_number=True)
    return _Cell(str(value), is_number=isinstance(value, int))


def _picture(figure: Path) -> _Picture:
    try:
        content = figure.read_bytes()
    except OSError as error:
        raise DataError(f"figure {figure}: cannot be read: {short_reason(error)}") from error
    if not content.startswith(_PNG_START) or len(content) < 24:
        raise DataError(f"figure {figure}: must be a PNG file")
    width, height = struct.unpack(">II", content[16:24])
    return _Picture(
        source=f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}",
        alt=re.sub(r"[\W_]+", " ", figure.stem).strip(),
        width=round(width * _CSS_DPI / _PICTURE_DPI),
        height=round(height * _CSS_DPI / _PICTURE_DPI),
    )
