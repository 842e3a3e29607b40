"""The chart of an audit: how well each shortcut alone would do."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib.figures.style import (
    GREEN,
    ORANGE,
    RED,
    WIDTH,
    blank_axes,
    interval_rows,
    mark_line,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A shape and a word beside each colour, for readers who don't see it.
LEVELS = {"red": (RED, "s"), "amber": (ORANGE, "^"), "green": (GREEN, "o")}


def plot_findings(
    findings: pd.DataFrame,
    *,
    limits: tuple[float, float] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw one row per shortcut that has an interval, the strongest first; counts are not drawn.

    Args:
        findings: Rows of `audit.findings`.
        limits: Of amber and red, as lines; the lower end of an interval is held against them.
    """
    scored = findings[findings["low"].notna()]
    # Whether features name the centre is another question than what tells the classes: it is last.
    last = scored["check"] == "origin"
    scored = scored.iloc[np.lexsort((-scored["value"], last))]
    counted = findings[findings["low"].isna()]
    ax = blank_axes(ax, WIDTH, 1.15 + 0.21 * len(scored))
    shades, markers = ([LEVELS[level][k] for level in scored["level"]] for k in (0, 1))
    ends = scored[["value", "low", "high"]].to_numpy(dtype=float)
    names = scored["what"].str.replace("_", " ")
    interval_rows(ax, ends, names, shades=shades, markers=markers, top=-1.3)
    for x, word in zip((0.5, *(limits or ())), ("chance", "amber", "red"), strict=False):
        mark_line(ax, x, word)
    for level in (level for level in LEVELS if (scored["level"] == level).any()):
        shade, marker = LEVELS[level]
        ax.plot([], [], marker, color=shade, ms=5, mec="white", mew=0.6, label=level)
    ax.figure.legend(loc="outside upper center", ncols=3)
    tally = [f"{n} {k}" for k in LEVELS if (n := int((counted["level"] == k).sum()))]
    note = f"; not drawn, as they are counts: {', '.join(tally)}" if tally else ""
    ax.set_xlabel(
        "AUROC of what is seen alone, 95 % interval: bootstrap over groups\n"
        f"n = {int(findings['n'].max()):,} images{note}",
        linespacing=1.4,
    )
    return ax
