"""Charts of studies: what each recipe adds to a probe, how much hangs on the words of a prompt."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.rows import Row, draw_rows, names_at_left, texts_at_right
from bonelib.figures.scores import interval_kind, mark_chance, sample
from bonelib.figures.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    WIDTH,
    blank_axes,
    note,
    number,
    panels,
    with_interval,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LANGUAGES = {"en": "English", "fr": "French", "de": "German"}


def plot_gains(table: pd.DataFrame) -> "Figure":
    """Draw one panel a task and one row a recipe: the difference and its 95 % interval.

    Better is always to the right, so the axis of an error runs backwards. An interval that holds
    zero is drawn hollow; in a panel whose label stands in captions, recipes that never saw it are
    grey. A recipe that was judged in fewer folds than the others says so.

    Args:
        table: Rows of `reporting.recipes` of one data set and seed, recipes in the order to draw;
            the one named ``ours`` stands out. The share with most training labels is a circle, the
            smallest a diamond below it. Rows without a ``gain`` are left out.
    """
    table = table.dropna(subset=["gain"])
    recipes, tasks = table["recipe"].unique(), table["task"].unique()
    shares = sorted(table["share"].unique(), reverse=True)
    shares = [shares[0], shares[-1]][: len(shares)]
    figure, axes = panels(len(tasks), len(tasks), max(2.4, 1.4 + 0.26 * len(recipes)), sharey=True)
    folds = table.groupby("recipe")["folds"].max()
    names = [str(r).replace("_", " ") for r in recipes]
    for row, recipe in enumerate(recipes):
        if folds[recipe] < folds.max():
            names[row] += f"\n({folds[recipe]} of {folds.max()} folds)"
    for ax, task in zip(axes, tasks, strict=True):
        part = table[table["task"] == task]
        supervised, rows = bool(part["in_captions"].any()), []
        for name, recipe in zip(names, recipes, strict=True):
            own = part[part["recipe"] == recipe].drop_duplicates("share").set_index("share")
            own = own.reindex(shares)
            ends = own[["gain", "gain_low", "gain_high"]].to_numpy(float)
            unseen = supervised and not own["in_captions"].eq(True).any()
            shade = GREY if unseen else BLUE if recipe == "ours" else INK
            hollow = ~((ends[:, 1] > 0) | (ends[:, 2] < 0))
            rows.append(Row(name, ends, "", shade, ["o", "D"][: len(shares)], hollow))
        apart = (-0.14, 0.2) if len(shares) > 1 else 0
        draw_rows(ax, rows, size=7.8, offsets=apart, written=False)
        ax.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
        metric = part["metric"].iloc[0]
        named = "named in captions" if supervised else "named in no caption"
        ax.set_title(f"{task.replace('_', ' ')}\n({named})", fontsize=8)
        unit = evaluation.as_task(task).unit if evaluation.lower_is_better(metric) else ""
        ax.set_xlabel(f"{metric}{f', {unit}' if unit else ''}\nover the start")
        if evaluation.lower_is_better(metric):
            ax.invert_xaxis()
    sizes = " · ".join(
        f"{task.replace('_', ' ')} {int(np.max(table.loc[table['task'] == task, 'n'])):,}"
        for task in tasks
    )
    words = " and ".join(
        f"{'circles' if k == 0 else 'diamonds'}: {share:.0%} of the training labels"
        for k, share in enumerate(shares)
    )
    words += "; hollow: the interval holds 0"
    if table.groupby("task")["in_captions"].nunique().max() > 1:
        words += "; grey: not named"
    note(figure, words, interval_kind(table), f"images: {sizes}")
    return figure


def plot_spread(spread: pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Draw one dot per wording of a prompt, in a row per style: how much hangs on the words.

    Dots lie at three decimals: a score that differs in its last bits on two machines is one dot.

    Args:
        spread: Rows of `reporting.scores` of single wordings; ``detail`` names the style.
    """
    metric = evaluation.primary_among(spread)
    names = list(dict.fromkeys(spread["detail"]))
    ax = blank_axes(ax, WIDTH * 0.62, 0.85 + 0.35 * len(names))
    for row, name in enumerate(names):
        values = spread.loc[spread["detail"] == name, metric].to_numpy(dtype=float).round(3)
        ax.plot([np.nanmedian(values)] * 2, [row - 0.25, row + 0.25], color=INK, linewidth=1.2)
        ax.plot(
            np.sort(values), np.full(len(values), row), "o", color=GREEN, alpha=0.6, ms=5, mew=0
        )
    mark_chance(ax, metric)
    names_at_left(ax, names)
    ax.set_xlabel(metric)
    note(ax.figure, f"a dot: one of {len(spread):,} wordings", "bar: median", sample(spread))
    return ax


def plot_wordings(
    report: pd.DataFrame, values: pd.DataFrame, *, unit: str = "", reads: str = ""
) -> "Figure":
    """Draw the danger of a single prompt: a row a language and kind of variant.

    Args:
        report: Rows of ``zero_shot.report``, and ``values``, a row a variant.
        unit: Of an error: months.
        reads: The one language of the text tower, if it has one: rows of others are marked.
    """
    metric, names, spreads = report["metric"].iloc[0], [], []
    ax = blank_axes(None, WIDTH, 1.7 + 0.3 * len(report))
    dots = dict(color=GREEN, alpha=0.5, ms=5, mew=0, linestyle="", marker="o")
    for place, row in enumerate(report.itertuples()):
        own = values[(values["language"] == row.language) & (values["kind"] == row.kind)]
        single = ax.plot(own["value"], [place] * len(own), **dots)[0]
        ax.plot([row.low, row.high], [place + 0.3] * 2, color=INK, linewidth=1.2)
        whole = ax.plot(row.ensemble, place + 0.3, "D", color=INK, ms=4)[0]
        mark = "" if reads in ("", row.language) else "*"
        language = LANGUAGES.get(row.language, row.language) + mark
        names.append(f"{language}, {row.kind} ({row.variants})")
        spreads.append(with_interval(row.spread, row.spread_low, row.spread_high))
    mark_chance(ax, metric, word="chance")
    names_at_left(ax, names, top=-1.0)
    texts_at_right(ax, spreads)
    beside = dict(xycoords=("axes fraction", "data"), textcoords="offset points", va="center")
    ax.annotate("spread", (1, -0.8), xytext=(8, 0), **beside)
    ends = sorted(values["value"].agg(["min", "max"]), reverse=evaluation.lower_is_better(metric))
    told = f"The danger of a single prompt: {metric} from {number(ends[0])} to {number(ends[1])}"
    ax.set_title(told, loc="left", size=9, pad=32)
    alone, both = "one prompt alone, each in another wording", "the language's templates together"
    place = dict(loc="lower left", bbox_to_anchor=(-0.02, 0.99), borderpad=0, handletextpad=0.3)
    ax.legend([single, whole], [alone, f"{both}, 95 % interval"], **place)
    ax.set_xlabel(f"{metric}{f', {unit}' if unit else ''}")
    note(ax.figure, interval_kind(report), sample(report))
    note(ax.figure, "spread: SD over the wordings, without what the luck of few patients adds")
    if reads:
        note(ax.figure, f"* the text tower learnt {LANGUAGES.get(reads, reads)} alone")
    return ax.figure
