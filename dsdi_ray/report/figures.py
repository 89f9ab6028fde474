"""Pictures of results: the best clips of each feature, and average precision beside chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.report.evaluation import Evaluation
from dsdi_ray.report.look import BLUE, FAINT, INK, PALE, RED, new_figure, save_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]

_RELEVANT = "#15803d"
_CELL_WIDTH_INCHES, _CELL_HEIGHT_INCHES = 2.3, 1.92
_PICTURE_ASPECT = 3 / 2
_LABEL_WIDTH_INCHES = 1.75


@dataclass(frozen=True, kw_only=True)
class ContactClip:
    """One clip of a contact sheet.

    Attributes:
        picture: The frame at which its score peaked, uint8 RGB ``[H, W, 3]``; None where it cannot
            be shown.
        rank: From 1.
        clip_id: Its name.
        score: Its confidence.
        peak_seconds: When the score peaked, None where unknown.
        is_relevant: What the judgements say, None where they say nothing.
    """

    picture: Picture | None
    rank: int
    clip_id: str
    score: float
    peak_seconds: float | None = None
    is_relevant: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ContactRow:
    """The best clips of one feature.

    Attributes:
        feature: Its name.
        clips: Best first.
        ap: Its average precision, None where unknown.
    """

    feature: str
    clips: Sequence[ContactClip]
    ap: float | None = None


def contact_sheet(rows: Sequence[ContactRow], out: Path, *, title: str | None = None) -> None:
    """Draw the best clips, one row per feature, each with the frame where its score peaked.

    A frame's border is green where the clip is relevant, orange-red where it is not, and absent
    where nobody judged it; a check mark or a cross says the same without colour.

    Args:
        rows: Features with their clips.
        out: PNG to write; its folder is made.
        title: Line above the rows.

    Raises:
        ValueError: If there is no row, or a picture is not uint8 ``[H, W, 3]``.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    num_columns = max(1, *(len(row.clips) for row in rows))
    width = _LABEL_WIDTH_INCHES + num_columns * _CELL_WIDTH_INCHES
    head = 0.5 if title else 0.12
    foot = 0.4 if any(c.is_relevant is not None for r in rows for c in r.clips) else 0.08
    height = head + len(rows) * _CELL_HEIGHT_INCHES + foot
    figure = new_figure(width, height)
    if title:
        figure.text(
            0.12 / width,
            1 - 0.3 / height,
            title,
            size=13,
            weight="bold",
            va="center",
            parse_math=False,
        )
    for place, row in enumerate(rows):
        top = height - head - place * _CELL_HEIGHT_INCHES
        _draw_label(figure, row, top=top, width=width, height=height)
        for column, clip in enumerate(row.clips):
            left = _LABEL_WIDTH_INCHES + column * _CELL_WIDTH_INCHES
            picture_width = _CELL_WIDTH_INCHES - 0.14
            picture_height = picture_width / _PICTURE_ASPECT
            box = (left, top - picture_height - 0.04, picture_width, picture_height)
            _draw_clip(figure, clip, _fractions(box, width, height))
    if foot > 0.2:
        _draw_legend(figure, width=width, height=height)
    save_figure(figure, out)


def map_chart(evaluation: Evaluation, out: Path, *, title: str | None = None) -> None:
    """Draw the average precision of each feature beside chance, best first.

    Args:
        evaluation: Of one run.
        out: PNG to write; its folder is made.
        title: Line above the bars; by default mAP and chance.
    """
    results = sorted(evaluation.features, key=lambda f: (-f.ap, f.feature_id))
    height = 1.25 + 0.3 * len(results)
    figure = new_figure(9.0, height)
    axes = figure.add_axes((0.36, 0.62 / height, 0.6, 1 - 1.15 / height))
    places = np.arange(len(results))
    axes.barh(places, [f.ap for f in results], height=0.62, color=BLUE, label="average precision")
    chances = [f.chance for f in results]
    axes.scatter(chances, places, marker="|", s=130, color=INK, lw=2, label="chance", zorder=3)
    for place, result in zip(places.tolist(), results, strict=True):
        axes.text(1.09, place, f"{result.ap:.3f}", va="center", ha="right", size=9, color=INK)
    names = [f"{shorten(f.feature or f.feature_id, 40)}  ({f.num_rel})" for f in results]
    axes.set_yticks(places, names, size=9, parse_math=False)
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.set_xlim(0, 1.1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel("average precision; in brackets: relevant clips", size=9, color=FAINT)
    axes.grid(axis="x", color=PALE, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=9)
    text = title or f"mAP {evaluation.map:.3f}, chance {evaluation.chance:.3f}"
    figure.text(
        0.02, 1 - 0.27 / height, text, size=13, weight="bold", va="center", parse_math=False
    )
    save_figure(figure, out)


def _fractions(
    box: tuple[float, float, float, float], width: float, height: float
) -> tuple[float, float, float, float]:
    left, bottom, box_width, box_height = box
    return left / width, bottom / height, box_width / width, box_height / height


def _draw_label(
    figure: "Figure", row: ContactRow, *, top: float, width: float, height: float
) -> None:
    lines = _wrap(row.feature, 19)
    left, y = 0.12 / width, top - 0.1
    name = "\n".join(lines)
    style: dict[str, Any] = {"size": 11, "weight": "bold", "color": INK, "parse_math": False}
    figure.text(left, y / height, name, va="top", **style)
    if row.ap is not None:
        below = (y - 0.2 * len(lines) - 0.06) / height
        figure.text(left, below, f"AP {row.ap:.3f}", size=9.5, va="top", color=FAINT)


def _draw_clip(figure: "Figure", clip: ContactClip, box: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(box)
    axes.set_xticks([])
    axes.set_yticks([])
    judged = clip.is_relevant is not None
    colour = _RELEVANT if clip.is_relevant else RED
    axes.spines[:].set(color=colour if judged else PALE, linewidth=3 if judged else 1)
    if clip.picture is None:
        axes.set_facecolor(PALE)
        axes.text(0.5, 0.5, "no picture", transform=axes.transAxes, ha="center", color=FAINT)
    else:
        _draw_whole(axes, clip.picture)
    mark = {True: " \N{CHECK MARK}", False: " \N{MULTIPLICATION X}", None: ""}[clip.is_relevant]
    _caption(axes, 0.0, -0.03, f"{clip.rank}{mark}", colour if judged else INK, bold=True)
    _caption(axes, 0.17, -0.03, shorten(clip.clip_id, 22), INK)
    when = "" if clip.peak_seconds is None else f" at {_clock(clip.peak_seconds)}"
    _caption(axes, 0.17, -0.14, f"{clip.score:.3f}{when}", FAINT)


def _caption(
    axes: "Axes", x: float, y: float, text: str, colour: str, *, bold: bool = False
) -> None:
    style: dict[str, Any] = {"weight": "bold"} if bold else {}
    axes.text(
        x, y, text, transform=axes.transAxes, size=8.5, va="top", color=colour, parse_math=False,
        **style,
    )  # fmt: skip


def _draw_legend(figure: "Figure", *, width: float, height: float) -> None:
    x, y = _LABEL_WIDTH_INCHES / width, 0.17 / height
    for mark, text, colour in (
        ("\N{CHECK MARK}", "relevant", _RELEVANT),
        ("\N{MULTIPLICATION X}", "not relevant", RED),
    ):
        figure.text(x, y, f"{mark} {text}", size=9, color=colour, weight="bold", va="center")
        x += 1.1 / width
    figure.text(x + 0.2 / width, y, "no mark: not judged", size=9, color=FAINT, va="center")


def _draw_whole(axes: "Axes", picture: Picture) -> None:
    """Draw a picture of any shape whole, in the middle of the cell: what was seen may be at an edge."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"a picture must be uint8 [H, W, 3], got {picture.dtype} {picture.shape}")
    height, width = picture.shape[:2]
    cell_width = max(width, height * _PICTURE_ASPECT)
    cell_height = cell_width / _PICTURE_ASPECT
    axes.set_facecolor(PALE)
    extent = (0, width, height, 0)
    axes.imshow(picture, aspect="auto", interpolation="antialiased", extent=extent)
    axes.set_xlim((width - cell_width) / 2, (width + cell_width) / 2)
    axes.set_ylim((height + cell_height) / 2, (height - cell_height) / 2)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _wrap(text: str, length: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, length, max_lines=5, placeholder=" …") or [""]
