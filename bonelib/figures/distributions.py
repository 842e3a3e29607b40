"""Charts that set two samples beside each other: shares, cumulative curves, bands of curves.

The reference is drawn in ink, what is compared with it in colour.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib.figures.rows import names_at_left
from bonelib.figures.style import BLUE, INK, RED, WIDTH, blank_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = (BLUE, INK, RED)


def plot_shares(
    table: pd.DataFrame,
    found: str,
    expected: str,
    *,
    value: str = "value",
    most: int = 14,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the share of each value as a bar, with a tick where another table has it.

    Args:
        table: A row per value with the counts ``found`` and ``expected``.
        most: Rows drawn, the most expected first; shares are of all.
    """
    shares = table[[found, expected]] / table[[found, expected]].sum()
    order = shares[expected].to_numpy().argsort(kind="stable")[::-1][:most]
    names = table[value].astype(str).iloc[order]
    ax = blank_axes(ax, WIDTH / 2, 0.95 + 0.2 * len(order))
    rows = np.arange(len(order))
    ax.barh(rows, shares[found].iloc[order], height=0.72, color="#A9C4D6", label=found)
    marks = shares[expected].iloc[order]
    ax.plot(marks, rows, "|", color=INK, ms=8, mew=1.6, label=expected, clip_on=False)
    names_at_left(ax, list(names), size=7.5)
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.set_xlabel(f"share of {int(table[found].sum()):,}")
    return ax


def plot_cumulative(
    samples: Mapping[str, np.ndarray],
    *,
    known: Collection[str] = (),
    log: bool = False,
    legend: bool = True,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the share of each sample at or below a value, one curve a sample.

    Args:
        known: Names of curves that are no samples, such as quantiles of a published distribution:
            their number of values says nothing and is not told.
        log: Logarithmic values.
    """
    ax = blank_axes(ax, WIDTH / 2, 2.4)
    for shade, (name, values) in zip(SHADES, samples.items(), strict=False):
        at = np.sort(np.asarray(values, float))
        share = np.arange(1, len(at) + 1) / len(at)
        label = name if name in known else f"{name} (n = {len(at):,})"
        ax.step(at, share, where="post", color=shade, label=label)
    ax.set(ylim=(0, 1), ylabel="share at or below")
    if log:
        ax.set_xscale("log")
    ax.grid()
    if legend:
        ax.legend(loc="best", fontsize=7)
    return ax


def plot_bands(
    x: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    log: bool = False,
    legend: bool = True,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the median curve of each group and a band that holds 90 % of it.

    Args:
        x: ``(F,)``.
        curves: For each group ``(N, F)``, one row an image.
        log: Both axes logarithmic.
    """
    ax = blank_axes(ax, WIDTH / 2, 2.6)
    for shade, (name, rows) in zip(SHADES, curves.items(), strict=False):
        low, middle, high = np.percentile(rows, [5, 50, 95], axis=0)
        ax.fill_between(x, low, high, color=shade, alpha=0.16, linewidth=0)
        ax.plot(x, middle, color=shade, label=f"{name} (n = {len(rows):,})")
    if log:
        ax.set(xscale="log", yscale="log")
        for axis in (ax.xaxis, ax.yaxis):  # powers of ten alone: a small panel has room for no more
            axis.set_minor_formatter("")
    ax.grid()
    if legend:
        ax.legend(loc="best", fontsize=7)
    return ax
