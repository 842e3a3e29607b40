"""The chart of a leak table: what share of each kind of identity was removed from reports."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib.figures.style import BLUE, INK, WIDTH, blank_axes, with_interval

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
    ends = rows[["recall_low", "recall_high"]].to_numpy(dtype=float)
    ax.hlines(rows.index, *ends.T, color=BLUE, linewidth=2.2)
    ax.plot(rows["recall"], rows.index, "o", color=BLUE, ms=5, mec="white", mew=0.6,
            label="removed, 95 % interval (Wilson)", clip_on=False)  # fmt: skip
    ax.plot(rows["published_recall"], rows.index, "D", color=INK, mfc="none", ms=5,
            label=published, clip_on=False)  # fmt: skip
    known = rows[["recall_low", "published_recall"]].to_numpy(dtype=float)
    ax.set_xlim(np.floor(20 * np.nanmin(known)) / 20 - 0.01, 1)
    names = [
        f"{t.replace('_', ' ').lower()} (n = {n:,})"
        for t, n in zip(rows["type"], rows["n"], strict=True)
    ]
    ax.set_yticks(rows.index, names)
    ax.set_ylim(len(rows) - 0.45, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    values = rows[["recall", "recall_low", "recall_high"]].to_numpy(dtype=float)
    right = ax.secondary_yaxis("right")
    right.set_yticks(rows.index, [with_interval(*value) for value in values])
    right.tick_params(length=0, pad=8)
    for spine in (ax.spines["left"], right.spines["right"]):
        spine.set_visible(False)
    ax.set_xlabel("recall: share of identities that are removed whole")
    ax.figure.legend(loc="outside upper center", ncols=2, handletextpad=0.4)
    return ax
