"""What all figures share: colours, resolution, and how a figure begins and ends."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, PALE = "#1f2430", "#6b7280", "#e5e7eb"
BLUE, RED = "#2563eb", "#c2410c"
_DPI = 110


def new_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = None
) -> "Figure":
    """A white figure of so many inches.

    Args:
        width: In inches.
        height: In inches.
        layout: ``constrained`` leaves the places of its axes to matplotlib.
    """
    from matplotlib.figure import Figure

    # No pyplot: it keeps every figure and picks a backend for the whole process.
    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout=layout)


def save_figure(figure: "Figure", out: Path) -> None:
    """Write a figure as PNG; its folder is made."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="png")


def shorten(text: str, length: int) -> str:
    """A text of at most ``length`` characters: its beginning and its end."""
    return text if len(text) <= length else f"{text[: length - 7]}…{text[-6:]}"


def write_title(figure: "Figure", text: str) -> None:
    """Write a line above a figure of constrained layout, from its left edge."""
    figure.suptitle(text, x=0.012, ha="left", size=13, weight="bold", color=INK, parse_math=False)


def draw_nothing(text: str, out: Path) -> Path:
    """Write a figure that only says why there is nothing to see."""
    figure = new_figure(6.0, 1.4)
    figure.text(0.5, 0.5, text, ha="center", va="center", size=11, color=FAINT, parse_math=False)
    save_figure(figure, out)
    return out


def set_grid_style(axes: "Axes") -> None:
    """Give axes a pale grid and no frame."""
    axes.grid(color=PALE, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK, labelsize=8)
    axes.spines[:].set_visible(False)
