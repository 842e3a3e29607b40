"""Charts of checks: how well each shortcut alone would do, what reports still tell of people."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib.figures.rows import Row, draw_rows, mark_line
from bonelib.figures.style import GREEN, INK, ORANGE, RED, WIDTH, blank_axes, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A shape and a word beside each colour, for readers who don't see it.
LEVELS = {"red": (RED, "s"), "amber": (ORANGE, "^"), "green": (GREEN, "o")}


def plot_findings(
    findings: pd.DataFrame, *, limits: tuple[float, float] | None = None, ax: "Axes | None" = None
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
    rows = [
        Row(row.what.replace("_", " "), np.array([[row.value, row.low, row.high]]), None, *look)
        for row in scored.itertuples()
        for look in [LEVELS[row.level]]
    ]
    draw_rows(ax, rows, top=-1.3)
    for x, word in zip((0.5, *(limits or ())), ("chance", "amber", "red"), strict=False):
        mark_line(ax, x, word)
    for level in (level for level in LEVELS if (scored["level"] == level).any()):
        shade, marker = LEVELS[level]
        ax.plot([], [], marker, color=shade, ms=5, mec="white", mew=0.6, label=level)
    ax.figure.legend(loc="outside upper center", ncols=3)
    tally = [f"{n} {k}" for k in LEVELS if (n := int((counted["level"] == k).sum()))]
    ax.set_xlabel("AUROC of what is seen alone")
    note(
        ax.figure, "95 % intervals: bootstrap over groups", f"n = {findings['n'].max():,.0f} images"
    )
    if tally:
        note(ax.figure, f"not drawn, as they are counts: {', '.join(tally)}")
    return ax


def plot_leaks(leaks: pd.DataFrame, *, published: str, ax: "Axes | None" = None) -> "Axes":
    """Draw the recall of each type with its interval, and the published one beside it.

    Args:
        leaks: Rows of ``reports.leak_table``; types that were not counted are left out.
        published: Names the publication in the legend.
    """
    rows = leaks[leaks["n"] > 0].reset_index(drop=True)
    ax = blank_axes(ax, WIDTH, 1.3 + 0.27 * len(rows))
    ends = rows[["recall", "recall_low", "recall_high"]].to_numpy(dtype=float)
    names = rows["type"].str.replace("_", " ").str.lower()
    named = [f"{name} (n = {n:,})" for name, n in zip(names, rows["n"], strict=True)]
    draw_rows(ax, [Row(name, row[None]) for name, row in zip(named, ends, strict=True)])
    ax.lines[1].set_label("removed, 95 % interval (Wilson)")
    ax.plot(rows["published_recall"], rows.index, "D", color=INK, mfc="none", ms=5,
            label=published, clip_on=False)  # fmt: skip
    lowest = rows[["recall", "recall_low", "published_recall"]].to_numpy(dtype=float)
    ax.set_xlim(np.floor(20 * np.nanmin(lowest)) / 20 - 0.01, 1)
    ax.set_xlabel("recall: share of identities that are removed whole")
    ax.figure.legend(loc="outside upper center", ncols=2, handletextpad=0.4)
    return ax
