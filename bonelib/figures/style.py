"""The look of a thesis: text width, type, colours, written numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.3  # inches: the text width of an A4 thesis with 2.5 cm margins
INK, FAINT = "#262626", "#6B6B6B"
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PINK, BROWN, GREY = "#56B4E9", "#CC79A7", "#7F5B3A", "#8C8C8C"
INDIGO = "#332288"
CLASSES = ("#A9C4D6", "#E6A83C", "#B4432F", "#5B7F4B", "#7C6AA6", "#4F9DA6", "#D58BB0", "#8A7B5C")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))  # of methods of one colour
UNAVAILABLE = "weights not available"


def use_thesis_style() -> None:
    """Set text width, 8–9 pt type, embedded TrueType fonts and quiet axes for all later figures."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    cycle = cycler(color=[BLUE, RED, GREEN, ORANGE, PINK, SKY, BROWN, GREY])
    small, normal = 8, 8.5
    ticks = {"color": FAINT, "labelcolor": INK, "labelsize": small, "major.width": 0.7}
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.4),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "savefig.dpi": 200,
            "pdf.fonttype": 42,
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
            "font.size": normal,
            "axes.titlesize": 9,
            "axes.titleweight": "bold",
            "axes.labelsize": normal,
            "legend.fontsize": small,
            "legend.title_fontsize": small,
            "figure.titlesize": 9,
            "legend.frameon": False,
            "axes.prop_cycle": cycle,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "text.color": INK,
            **{f"{axis}tick.{key}": ink for axis in "xy" for key, ink in ticks.items()},
            "axes.linewidth": 0.7,
            "axes.axisbelow": True,
            "grid.color": "#E4E4E4",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.5,
        }
    )


def number(value: float, *, beside: float = 0.0) -> str:
    """Write a metric as theses do: three decimals, no zero before the point; one from 10 on.

    Args:
        beside: A number that is written with as many decimals, the end of its interval say.
    """
    if not np.isfinite(value):
        return "–"
    if max(abs(value), abs(beside)) >= 10:
        return f"{value:.1f}"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and abs(round(value, 3)) < 1 else text


def with_interval(value: float, low: float, high: float) -> str:
    """Write ``.851 [.822, .877]``, or the value alone where there is no interval."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return number(value)
    most = max(value, low, high, key=abs)
    value, low, high = (number(x, beside=most) for x in (value, low, high))
    return f"{value} [{low}, {high}]"


def intervals(table: "pd.DataFrame", by: str | list[str]) -> dict[Any, str]:
    """Write value and interval of each row of a table, by what the columns ``by`` hold."""
    rows = table.set_index(by)[["value", "low", "high"]].astype(float).itertuples()
    return {key: with_interval(*row) for key, *row in rows}


def blank_axes(ax: "Axes | None", width: float, height: float) -> "Axes":
    """Return ``ax``, or new axes of that size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def interval_rows(
    ax: "Axes",
    ends: np.ndarray,
    names: Sequence[str],
    *,
    shades: Sequence[str],
    markers: Sequence[str] = (),
    texts: Sequence[str] = (),
    top: float = -0.6,
) -> None:
    """Draw a row of each interval with a dot at its value, named at the left, written at the right.

    Args:
        ends: ``(N, 3)``: value, low, high.
        texts: What stands at the right; by default value and interval in figures.
        top: Where the axis ends above the first row, which is 0.
    """
    for row, (value, low, high) in enumerate(ends):
        ax.plot([low, high], [row, row], color=shades[row], linewidth=2.2, solid_capstyle="butt")
        marker = markers[row] if len(markers) else "o"
        ax.plot(value, row, marker, color=shades[row], ms=5, mec="white", mew=0.6, clip_on=False)
    rows_named(ax, names, top=top)
    write_right(ax, list(texts) or [with_interval(*row) for row in ends])


def write_right(ax: "Axes", texts: Sequence[str], *, size: float | None = None) -> None:
    """Write a text at the right of rows 0, 1, … of a chart."""
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(texts)), texts)
    right.tick_params(length=0, pad=8, labelsize=size)
    right.spines["right"].set_visible(False)
    for label, text in zip(right.get_yticklabels(), texts, strict=True):
        if text == UNAVAILABLE:
            label.set(style="italic", color=FAINT)


def rows_named(ax: "Axes", names: Sequence[str], *, top: float = -0.6) -> None:
    """Name rows 0, 1, … of a chart from the top, without an axis line beside them."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.45, top)
    ax.tick_params(axis="y", length=0)
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


def synthetic_note(figure: "Figure", what: str = "radiographs") -> None:
    """Write "synthetic radiographs" (or what else was drawn) below a figure, at the right."""
    figure.text(
        1, 0, f"synthetic {what}", ha="right", va="top", size=7, style="italic", color=FAINT
    )


def inches(ax: "Axes") -> float:
    """Roughly the width an axes has, labels included, before the layout is made."""
    return ax.get_position(original=True).width * ax.figure.get_size_inches()[0] * 1.25
