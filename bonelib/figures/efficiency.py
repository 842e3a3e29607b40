"""How many labels a method needs: its score over the number of labelled images.

A table of scores by method and number of labels comes in, a figure goes out.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.ticker import NullLocator, StrMethodFormatter

from bonelib import evaluation
from bonelib.evaluation import Method
from bonelib.figures.curves import banded
from bonelib.figures.names import FITTED, colour, display_name
from bonelib.figures.scores import interval_kind, of_images, sample, spelt_metric, spelt_task
from bonelib.figures.style import DASHES, FAINT, INK, note, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    parts = dict([*table.groupby(["start", "detail"], sort=False)])
    rest = [head for head in dict.fromkeys(table["strategy"]) if head != BAR]
    looks = {head: (f"C{k % 8}", DASHES[k // 8 % len(DASHES)]) for k, head in enumerate(rest)}
    looks[BAR] = (INK, "-")
    metric, drawn = table["metric"].iloc[0], {}
    figure, axes = panels(len(parts), 3, 2.4, beside=0.6, sharey=True)
    for ax, ((start, detail), part) in zip(axes, parts.items(), strict=True):
        for head, rows in part.sort_values("images", kind="stable").groupby("strategy", sort=False):
            look = dict(color=looks[head][0], linestyle=looks[head][1], marker="o", ms=2.5, lw=1)
            drawn[head] = banded(ax, rows, "images", band=head == BAR, **look)
        _number_axis(ax, [t for t in TICKS if table["images"].min() <= t <= table["images"].max()])
        name = display_name(Method(start=start, strategy="none", detail=detail))
        ax.set_title("\n".join(textwrap.wrap(name, 24, max_lines=2, placeholder=" …")))
        _chance(ax, metric)
    lower = evaluation.lower_is_better(metric)
    axes[0].set_ylabel(f"{metric} (lower is better)" if lower else metric)
    heads = [head for head in dict.fromkeys(table["strategy"]) if head in drawn]
    _legend(figure, {FITTED.get(head, head): drawn[head] for head in heads}, table, columns=3)
    note(figure, "shaded: 95 % interval of the linear probe", sample(table))
    return figure


def plot_label_shares(scores: pd.DataFrame, *, strategies: Sequence[str]) -> "Figure | None":
    """Draw a panel a task and a line an encoder: the score over the number of labelled images.

    Args:
        scores: As in `plot_tasks`, with ``images``.
        strategies: Of the methods that are drawn: heads on frozen features, say.
    """
    kept = scores[scores["sees"].eq("image") & scores["strategy"].isin(strategies)]
    parts = of_images(kept) if len(kept) else {}
    if not parts:
        return None
    drawn: dict[str, object] = {}
    figure, axes = panels(len(parts), 2, 2.3, beside=0.9)
    for ax, (task, part) in zip(axes, parts.items(), strict=True):
        used: list[str] = []
        for method, rows in evaluation.by_method(part).items():
            shade = colour(method)
            look = dict(color=shade, linestyle=DASHES[used.count(shade) % len(DASHES)])
            used.append(shade)
            name = display_name(Method(method.start, "none", "image", method.detail))
            rows = rows.sort_values("images")
            drawn[name] = banded(ax, rows, "images", marker="o", ms=3, **look)
        at = part.groupby("share")["images"].mean()
        _number_axis(ax, list(at), [f"{n:,.0f}\n{share:.0%}" for share, n in at.items()])
        told = f"{spelt_task(task)}, n = {part['n'].iloc[0]:,} test images"
        ax.set_title(told, loc="left", size=8.5)
        ax.set_ylabel(spelt_metric(task), size=7.5)
        _chance(ax, evaluation.threshold_free(task))
    whole = pd.concat(parts.values())
    _legend(figure, drawn, whole, columns=2)
    note(figure, f"shaded: {interval_kind(whole)}")
    return figure


def _number_axis(ax: "Axes", ticks: list[float], words: list[str] | None = None) -> None:
    ax.set(xscale="log", xlabel="labelled images")
    ax.set_xticks(ticks, words)
    ax.xaxis.set_minor_locator(NullLocator())
    if words is None:
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.grid(axis="y")


def _chance(ax: "Axes", metric: str) -> None:
    level = evaluation.chance(metric)
    if level is not None:
        ax.axhline(level, color=FAINT, lw=0.8, ls=(0, (4, 3)))
        note(ax.figure, "dashed: chance")


def _legend(
    figure: "Figure", drawn: dict[str, object], table: pd.DataFrame, *, columns: int
) -> None:
    place = dict(loc="outside upper center", ncols=columns)
    figure.legend(drawn.values(), drawn, **place)
    draws = int(table["repeats"].max())
    note(figure, f"mean of {draws} draws of labels" if draws > 1 else "one draw of labels")
