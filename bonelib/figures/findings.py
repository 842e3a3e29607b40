"""The chart of an audit: how well each shortcut alone would do."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib.figures.style import (
    FAINT,
    GREEN,
    ORANGE,
    RED,
    WIDTH,
    blank_axes,
    with_interval,
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
    texts, shown = [], {}
    for place, row in enumerate(scored.itertuples()):
        shade, marker = LEVELS[row.level]
        ax.plot([row.low, row.high], [place, place], color=shade, lw=2.2, solid_capstyle="butt")
        (point,) = ax.plot(row.value, place, marker, color=shade, ms=5.5, mec="white", mew=0.6)
        shown.setdefault(row.level, point)
        texts.append(with_interval(row.value, row.low, row.high))
    lines = [(0.5, "chance")]
    lines += [] if limits is None else list(zip(limits, ("amber", "red"), strict=True))
    for x, word in lines:
        ax.axvline(x, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        ax.annotate(
            word, (x, 1), xycoords=("data", "axes fraction"), xytext=(3, -1), va="top", size=7,
            textcoords="offset points", color=FAINT,
        )  # fmt: skip
    ax.set_yticks(range(len(scored)), scored["what"].str.replace("_", " "))
    ax.set_ylim(len(scored) - 0.45, -1.3)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(texts)), texts)
    right.tick_params(length=0)
    for spine in (ax.spines["left"], right.spines["right"]):
        spine.set_visible(False)
    levels = [level for level in LEVELS if level in shown]
    ax.figure.legend(
        [shown[level] for level in levels], levels, loc="outside upper center", ncols=3
    )
    tally = [f"{n} {k}" for k in LEVELS if (n := int((counted["level"] == k).sum()))]
    note = f"; not drawn, as they are counts: {', '.join(tally)}" if tally else ""
    ax.set_xlabel(
        "AUROC of what is seen alone, 95 % interval: bootstrap over groups\n"
        f"n = {int(findings['n'].max()):,} images{note}",
        linespacing=1.4,
    )
    return ax
