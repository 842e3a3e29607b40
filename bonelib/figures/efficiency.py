"""How many labels a method needs: its score over the number of labelled images.

A table of scores by method and number of labels comes in, a figure goes out.
"""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import NullLocator, StrMethodFormatter

from bonelib import evaluation
from bonelib.evaluation import Method
from bonelib.figures.names import FITTED, display_name
from bonelib.figures.scores import sample
from bonelib.figures.style import DASHES, INK, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TICKS = tuple(digit * 10**power for power in range(6) for digit in (1, 3))
BAR = "probe"  # what the others must clear: drawn in ink, with its interval


def plot_efficiency(table: pd.DataFrame) -> "Figure":
    """Draw a panel a start, a line a head: the mean over draws of labels at each number of images.

    Shots a class and shares of the labels stand on one line, by how many images they are. The
    linear probe has its 95 % interval.

    Args:
        table: ``start, strategy, sees, detail, shots, share, images, metric, value, low, high``.
    """
    starts = list(dict.fromkeys(zip(table["start"], table["detail"], strict=True)))
    heads = list(dict.fromkeys(table["strategy"]))
    rest = [head for head in heads if head != BAR]
    shades = {head: f"C{k % 10}" for k, head in enumerate(rest)} | {BAR: INK}
    dashes = {head: DASHES[k // 10 % len(DASHES)] for k, head in enumerate(rest)} | {BAR: "-"}
    columns = min(3, len(starts))
    lines = -(-len(starts) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(WIDTH, 0.5 + 2.4 * lines),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    metric = table["metric"].iloc[0]
    for ax, (start, detail) in zip(axes.flat, starts, strict=False):
        own = table[(table["start"] == start) & (table["detail"] == detail)]
        for head in heads:
            rows = own[own["strategy"] == head].sort_values("images")
            look = dict(color=shades[head], linestyle=dashes[head], marker="o", ms=2.5, lw=1)
            ax.plot(rows["images"], rows["value"], **look)
            if head == BAR:
                band = dict(color=INK, alpha=0.1, lw=0)
                ax.fill_between(rows["images"], rows["low"], rows["high"], **band)
        name = display_name(Method(start=start, strategy="none", detail=detail))
        ax.set(xscale="log", title=name, xlabel="labelled images")
        low, high = table["images"].min(), table["images"].max()
        ax.xaxis.set_ticks([tick for tick in TICKS if low <= tick <= high], minor=False)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        level = evaluation.chance(metric)
        if level is not None:
            ax.axhline(level, color=INK, lw=0.6, ls=(0, (1, 2)))
    for ax in axes.flat[len(starts) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel(metric)
    handles = [
        plt.Line2D([], [], color=shades[h], linestyle=dashes[h], label=FITTED.get(h, h))
        for h in heads
    ]
    places = dict(loc="outside lower center", ncols=3, handlelength=1.6)
    figure.legend(handles=handles, title=_told(table), **places)
    if evaluation.lower_is_better(metric):
        axes[0, 0].set_ylabel(f"{metric} (lower is better)")
    return figure


def _told(table: pd.DataFrame) -> str:
    """Say what a line is the mean of, and what the interval resamples."""
    draws = int(table["repeats"].max())
    lines = f"mean of {draws} draws of labels" if draws > 1 else "one draw of labels"
    return f"{lines}; 95 % interval of the linear probe: {sample(table)}"
