"""Charts of scores: a table of metrics comes in, axes go out.

Each says how many images of how many patients it stands on, and where its intervals
come from.
"""

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.names import colour, colours, display_name, display_names
from bonelib.figures.style import (
    BLUE,
    DASHES,
    FAINT,
    GREEN,
    INK,
    UNAVAILABLE,
    WIDTH,
    blank_axes,
    inches,
    interval_rows,
    mark_line,
    number,
    rows_named,
    with_interval,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Measures of maps whose names a reader can't guess.
MEASURES = {"PRO": "per-region overlap (PRO)", "pixel AP": "pixel average precision"}


def sample(table: pd.DataFrame) -> str:
    """Say what a table of metrics stands on: ``n = 240 images of 160 patients``."""

    def span(column: str) -> str:
        values = pd.to_numeric(table[column]).dropna().astype(int)
        low, high = values.min(), values.max()
        return f"{low:,}" if low == high else f"{low:,}–{high:,}"

    if "n" not in table or table["n"].isna().all():
        return ""
    pooled = {"study": "studies", "patient": "patients"}  # rows of `reporting.pooled_scores`
    per = pooled.get(table["per"].iloc[0], "images") if "per" in table else "images"
    text = f"n = {span('n')} {per}"
    if "groups" not in table or table["groups"].isna().all():
        return text
    kinds = table["group_kind"].dropna().unique()
    plural = {"patient": "of {} patients", "study": "of {} studies"}
    kind = kinds[0] if len(kinds) == 1 else "groups"
    return f"{text} {plural.get(kind, 'in {} ' + kind).format(span('groups'))}"


def _wrapped(ax: "Axes", text: str, *, letters: int = 12) -> str:
    # 8.5 pt type sets at least 12 characters an inch; "n = 240" is never parted.
    lines = textwrap.wrap(text.replace(" = ", "\xa0=\xa0"), int(inches(ax) * letters))
    return "\n".join(lines).replace("\xa0", " ")


def say(ax: "Axes", *lines: str) -> None:
    """Put small grey lines above the axes: what the figure stands on."""
    text = "\n".join(_wrapped(ax, line, letters=16) for line in lines)
    ax.set_title(text, loc="left", size=7.5, weight="normal", color=FAINT)


def interval_kind(table: pd.DataFrame) -> str:
    """Say where the intervals of a table come from."""
    kinds = list(table["group_kind"].dropna().unique()) if "group_kind" in table else []
    kind = kinds[0] if len(kinds) == 1 else "groups"
    plural = {"patient": "patients", "study": "studies"}.get(kind, kind)
    return f"95 % intervals: bootstrap over {plural}"


def mark_chance(ax: "Axes", metric: str, *, word: str = "") -> None:
    """Draw a dashed line where guessing lies on the axis of this metric, if that is known."""
    level = evaluation.chance(metric)
    if level is not None:
        mark_line(ax, level, word)


def plot_forest(table: pd.DataFrame, *, unit: str = "", ax: "Axes | None" = None) -> "Axes":
    """Draw one row per model: primary metric, 95 % interval, and both in figures at the right.

    Args:
        table: Its methods are named by their columns, or its rows by ``name``. Either ``value, low,
            high`` (rows of `evaluation.metrics`; another ``metric`` is left out) or ``<metric>,
            <metric>_low, <metric>_high`` (`reporting.results`); n, groups, group_kind. A ``status``
            that says so prints "weights not available".
        unit: Of an error: months.
    """
    long = "metric" in table and "value" in table
    metric = evaluation.primary_among(table["metric"] if long else table)
    if not metric:
        raise ValueError(f"No metric to draw. The table has: {', '.join(map(str, table))}.")
    if long:
        table = table[(table["metric"] == metric) | table["value"].isna()]
    ends = ("value", "low", "high") if long else (metric, f"{metric}_low", f"{metric}_high")
    names, shades = _named(table)
    values = table[list(ends)].to_numpy(dtype=float)
    ax = blank_axes(ax, WIDTH, 0.85 + 0.27 * len(table))
    status = table["status"] if "status" in table else [""] * len(table)
    texts = [
        UNAVAILABLE if word == UNAVAILABLE else with_interval(*row)
        for word, row in zip(status, values, strict=True)
    ]
    interval_rows(ax, values, names, shades=shades, texts=texts, top=-0.75)
    mark_chance(ax, metric, word="chance")
    note = _wrapped(ax, f"{interval_kind(table)}; {sample(table)}")
    ax.set_xlabel(f"{metric}{f', {unit}' if unit else ''}\n{note}", linespacing=1.4)
    return ax


def _named(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return what each row is called and its colour; rows that are no methods are blue."""
    named = set(evaluation.METHOD) <= set(table)
    if "name" in table:
        names = table["name"].astype(str).tolist()
    else:
        names = display_names(table).tolist() if named else table.index.astype(str).tolist()
    return names, colours(table) if named else [BLUE] * len(table)


def plot_calibration(
    predictions: pd.DataFrame,
    task: str,
    ax: "Axes | None" = None,
    *,
    bins: int = 8,
    draws: int = evaluation.DRAWS,
) -> "Axes":
    """Draw how often the positive class was there against how probable the model called it."""
    table = evaluation.calibration(predictions, task=task, bins=bins, draws=draws)
    facts = evaluation.metrics(predictions, task=task, draws=1, only=("Brier",))
    ax = blank_axes(ax, 3.7, 3.6)
    ax.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.vlines(table["predicted"], table["low"], table["high"], color=BLUE, linewidth=1.2)
    ax.plot(table["predicted"], table["value"], "o-", color=BLUE, markersize=4.5, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel=f"predicted probability of {evaluation.as_task(task).positive}")
    ax.set_ylabel("observed share")
    ax.grid()
    brier = f"Brier {number(facts.loc[0, 'value'])}"
    say(ax, f"{sample(facts)} · {brier}", interval_kind(facts))
    return ax


def plot_spread(spread: pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Draw one dot per wording of a prompt, in a row per style: how much hangs on the words.

    Args:
        spread: Rows of `reporting.scores` of single wordings; ``detail`` names the style.
    """
    metric = evaluation.primary_among(spread)
    names = list(dict.fromkeys(spread["detail"]))
    ax = blank_axes(ax, WIDTH * 0.62, 0.85 + 0.35 * len(names))
    for row, name in enumerate(names):
        values = spread.loc[spread["detail"] == name, metric].to_numpy(dtype=float)
        ax.plot([np.nanmedian(values)] * 2, [row - 0.25, row + 0.25], color=INK, linewidth=1.2)
        ax.plot(values, np.full(len(values), row), "o", color=GREEN, alpha=0.6, ms=5, mew=0)
    mark_chance(ax, metric)
    rows_named(ax, names)
    note = _wrapped(ax, f"a dot: one of {len(spread):,} wordings; bar: median; {sample(spread)}")
    ax.set_xlabel(f"{metric}\n{note}", linespacing=1.4)
    return ax


def plot_localisation(table: pd.DataFrame) -> "Figure":
    """Draw how well each kind of map meets the lesions, a panel per measure.

    Args:
        table: Rows of `evaluation.means`. Maps that saw no image (``sees`` none) are grey.
    """
    import matplotlib.pyplot as plt

    maps, measures = evaluation.by_method(table), list(table["measure"].unique())
    figure, axes = plt.subplots(
        1, len(measures), figsize=(WIDTH, 1.0 + 0.33 * len(maps)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, measure in zip(axes[0], measures, strict=True):
        for place, (method, rows) in enumerate(maps.items()):
            row = rows[rows["measure"] == measure].iloc[0]
            value, low, high = row[["value", "low", "high"]].astype(float)
            shade = colour(method)
            ax.plot([low, high], [place, place], color=shade, linewidth=2.2)
            ax.plot(value, place, "o", color=shade, ms=5, mec="white", mew=0.6)
            ax.annotate(number(value), (value, place), xytext=(0, 5), size=7,
                        textcoords="offset points", ha="center")  # fmt: skip
        told = MEASURES.get(measure, measure.replace("_", " "))
        ax.set_title(textwrap.fill(told, 19), weight="normal", size=8.5)
        mark_chance(ax, "AUROC" if "AUROC" in measure else "")
        rows_named(ax, [display_name(method) for method in maps])
        ax.set_xlim(left=0)
        ax.margins(x=0.15)
    figure.supxlabel(f"{interval_kind(table)}; {sample(table)}", size=8.5)
    return figure


def plot_risk(table: pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Draw how much each method errs among the share of images that it doubts least.

    Args:
        table: A row a method and ``coverage``: value, low, high; that of coverage 0 is the mean
            over all coverages and stands in the legend.
    """
    ax = blank_axes(ax, WIDTH, 2.9)
    for k, (method, rows) in enumerate(evaluation.by_method(table).items()):
        area, curve = rows[rows["coverage"] == 0].iloc[0], rows[rows["coverage"] > 0]
        told = with_interval(*area[["value", "low", "high"]].astype(float))
        name = "\n".join([*textwrap.wrap(display_name(method), 28), told])
        x, look = curve["coverage"] + 0.012 * k, dict(color=f"C{k}")  # side by side
        ax.plot(x, curve["value"], "o", linestyle=DASHES[k % len(DASHES)], ms=3, label=name, **look)
        ax.vlines(x, curve["low"], curve["high"], linewidth=1.2, alpha=0.6, **look)
    ax.set(xlabel="share of images answered, those of least doubt", ylabel="share of them wrong")
    ax.set(ylim=(0, None))
    ax.set_xticks(sorted(set(table["coverage"]) - {0.0}))
    ax.grid(axis="y")
    ax.legend(title="mean over coverages (AURC)", loc="center left", bbox_to_anchor=(1, 0.5))
    say(ax, sample(table), interval_kind(table))
    return ax
