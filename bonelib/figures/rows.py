"""The one chart of intervals: rows of values with their intervals, headings, names and numbers."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bonelib.figures.style import BLUE, FAINT, INK, UNAVAILABLE, inches, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NONE = np.empty((0, 3))


class Row(NamedTuple):
    """A row of the chart.

    Attributes:
        ends: ``(K, 3)``: value, low, high of each of its intervals; none make a heading.
        text: At the right; None writes the first value with its interval.
        shade, marker, hollow: Of all its intervals, or one of each.
    """

    name: str
    ends: np.ndarray = NONE
    text: str | None = None
    shade: str | Sequence[str] = BLUE
    marker: str | Sequence[str] = "o"
    hollow: bool | Sequence[bool] = False


def draw_rows(
    ax: "Axes",
    rows: Sequence[Row],
    *,
    top: float = -0.6,
    size: float = 8,
    offsets: float | Sequence[float] = 0,
    written: bool = True,
) -> None:
    """Draw rows 0, 1, … from the top: dots with intervals, names at the left, texts at the right.

    Args:
        top: Where the axis ends above the first row.
        size: Of the type, in points; small type gets small dots.
        offsets: Of a row's intervals below its middle.
    """
    small = size < 8
    for place, row in enumerate(rows):
        if not len(row.ends):
            _heading(ax, place, row.name)
            continue
        looks = [row.shade, row.marker, row.hollow, np.add(place, offsets)]
        looks = [np.broadcast_to(look, len(row.ends)).tolist() for look in looks]
        for (value, low, high), shade, marker, hollow, y in zip(row.ends, *looks, strict=True):
            line = dict(linewidth=1.6 if small else 2.2, solid_capstyle="butt")
            ax.plot([low, high], [y, y], color=shade, zorder=2, **line)
            edge = dict(mfc="white", mew=1) if hollow else dict(mec="white", mew=0.6)
            dot = dict(color=shade, ms=4 if small else 5, clip_on=False, zorder=3)
            ax.plot(value, y, marker, **dot, **edge)
    names_at_left(ax, [row.name if len(row.ends) else "" for row in rows], top=top, size=size)
    if written:
        texts = [
            row.text or (with_interval(*row.ends[0]) if row.text is None and len(row.ends) else "")
            for row in rows
        ]
        texts_at_right(ax, texts, size=size)


def _heading(ax: "Axes", place: int, text: str) -> None:
    ax.axhspan(place - 0.5, place + 0.5, color="#F3F3F3", linewidth=0, zorder=0.5)
    ax.annotate(
        text, (0, place), xycoords=("axes fraction", "data"), xytext=(3, 0), va="center", size=7,
        textcoords="offset points", weight="bold", color=INK,
    )  # fmt: skip


def texts_at_right(ax: "Axes", texts: Sequence[str], *, size: float = 8) -> None:
    """Write a text at the right of rows 0, 1, … of a chart."""
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(texts)), texts)
    right.tick_params(length=0, pad=8, labelsize=size)
    right.spines["right"].set_visible(False)
    for label, text in zip(right.get_yticklabels(), texts, strict=True):
        if text == UNAVAILABLE:
            label.set(style="italic", color=FAINT)


def names_at_left(ax: "Axes", names: Sequence[str], *, top: float = -0.6, size: float = 8) -> None:
    """Name rows 0, 1, … of a chart from the top, without an axis line; long names are broken."""
    letters = max(22, int(10.5 * inches(ax)))
    cut = dict(max_lines=2, placeholder=" …", break_on_hyphens=False)
    cells = [n if "\n" in n else "\n".join(textwrap.wrap(n, letters, **cut)) for n in names]
    ax.set_yticks(range(len(names)), cells, linespacing=0.95)
    ax.set_ylim(len(names) - 0.45, top)
    ax.tick_params(axis="y", length=0, labelsize=size)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")


def mark_line(ax: "Axes", x: float, word: str = "") -> None:
    """Draw a dashed line at ``x`` behind the rest, with a word beside its upper end."""
    # Above the grid (0.5), one line of which may run through the same tick.
    ax.axvline(x, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.7)
    ax.annotate(
        word, (x, 1), xycoords=("data", "axes fraction"), xytext=(3, -1), va="top", size=7,
        textcoords="offset points", color=FAINT,
    )  # fmt: skip
