"""The look of a thesis: text width, type, colours, written numbers."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.3  # inches: the text width of an A4 thesis with 2.5 cm margins
INK, FAINT = "#262626", "#6B6B6B"
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PINK, BROWN, GREY = "#56B4E9", "#C565A0", "#7F5B3A", "#ABABAB"
INDIGO = "#332288"
CLASSES = ("#A9C4D6", "#E6A83C", "#B4432F", "#5AA168", "#684891", "#4C7E8C", "#C87CD4", "#6C5851")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))  # of methods of one colour
UNAVAILABLE = "weights not available"


def use_thesis_style() -> None:
    """Set text width, 8–9 pt type, embedded TrueType fonts and quiet axes for all later figures."""
    import matplotlib.pyplot as plt

    plt.style.use(Path(__file__).with_name("thesis.mplstyle"))


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


def p_value(p: float) -> str:
    """Write ``p = .034``, or ``p < .001`` for what three decimals would round to none."""
    return "p < .001" if p < 0.001 else f"p = {number(p)}"


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


def panels(
    count: int, columns: int, tall: float, *, beside: float = 0.0, **options: Any
) -> "tuple[Figure, list[Axes]]":
    """Make a figure of the text's width with ``count`` axes, each line ``tall`` inches high."""
    import matplotlib.pyplot as plt

    columns = min(columns, count)
    lines = -(-count // columns)
    shape = dict(figsize=(WIDTH, beside + tall * lines), layout="constrained", squeeze=False)
    figure, axes = plt.subplots(lines, columns, **shape, **options)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return figure, list(axes.flat[:count])


def note(figure: "Figure", *facts: str) -> "Figure":
    """Put facts below a figure, in small grey type: what it stands on, what its signs mean.

    Charts that share a figure share its note: a fact that two of them state is written once. The
    layout leaves room for it, so that no axis label has to carry it.
    """
    told = [fact for fact in figure.get_supxlabel().replace("\n", " ").split("; ") if fact]
    told += [part for fact in facts for part in fact.split("; ") if part]
    room = int(15 * figure.get_figwidth())  # of 7.5 pt type: letters
    whole = [t.replace(" ", "\xa0") if len(t) < room - 1 else t for t in dict.fromkeys(told)]
    lines = "\n".join(textwrap.wrap("; ".join(whole), room, break_on_hyphens=False)).replace(
        "\xa0", " "
    )
    figure.supxlabel(lines, size=7.5, color=FAINT, linespacing=1.35)
    return figure


def synthetic_note(figure: "Figure", what: str = "radiographs") -> "Figure":
    """Say in the note of a figure that its radiographs (or what else) are synthetic."""
    return note(figure, f"synthetic {what}")


def inches(ax: "Axes") -> float:
    """Roughly the width an axes has, labels included, before the layout is made."""
    return ax.get_position(original=True).width * ax.figure.get_size_inches()[0] * 1.25
