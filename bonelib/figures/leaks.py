"""The chart of a leak table: what share of each kind of identity was removed from reports."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib.figures.style import BLUE, INK, WIDTH, blank_axes, interval_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_leaks(leaks: pd.DataFrame, *, published: str, ax: "Axes | None" = None) -> "Axes":
    """Draw the recall of each type with its interval, and the published one beside it.

    Args:
        leaks: Rows of ``reports.leak_table``; types that were not counted are left out.
        published: Names the publication in the legend.
    """
    rows = leaks[leaks["n"] > 0].reset_index(drop=True)
    ax = blank_axes(ax, WIDTH, 1.3 + 0.27 * len(rows))
    ends = rows[["recall", "recall_low", "recall_high"]].to_numpy(dtype=float)
    names = [
        f"{t.replace('_', ' ').lower()} (n = {n:,})"
        for t, n in zip(rows["type"], rows["n"], strict=True)
    ]
    interval_rows(ax, ends, names, shades=[BLUE] * len(rows))
    ax.lines[1].set_label("removed, 95 % interval (Wilson)")
    ax.plot(rows["published_recall"], rows.index, "D", color=INK, mfc="none", ms=5,
            label=published, clip_on=False)  # fmt: skip
    lowest = rows[["recall_low", "published_recall"]].to_numpy(dtype=float)
    ax.set_xlim(np.floor(20 * np.nanmin(lowest)) / 20 - 0.01, 1)
    ax.set_xlabel("recall: share of identities that are removed whole")
    ax.figure.legend(loc="outside upper center", ncols=2, handletextpad=0.4)
    return ax
