"""The chart of wordings: a dot for each single prompt beside the ensemble of all templates."""

from typing import TYPE_CHECKING

import pandas as pd

from bonelib import evaluation
from bonelib.figures.scores import interval_kind, mark_chance, sample
from bonelib.figures.style import GREEN, INK, WIDTH, number, rows_named, with_interval, write_right

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LANGUAGES = {"en": "English", "fr": "French", "de": "German"}


def plot_wordings(
    report: pd.DataFrame, values: pd.DataFrame, *, unit: str = "", reads: str = ""
) -> "Figure":
    """Draw the danger of a single prompt: a row a language and kind of variant.

    Args:
        report: Rows of ``zero_shot.report``, and ``values``, a row a variant.
        unit: Of an error: months.
        reads: The one language of the text tower, if it has one: rows of others are marked.
    """
    import matplotlib.pyplot as plt

    metric, names, spreads = report["metric"].iloc[0], [], []
    figure, ax = plt.subplots(figsize=(WIDTH, 1.7 + 0.3 * len(report)), layout="constrained")
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
    rows_named(ax, names, top=-1.0)
    write_right(ax, spreads)
    beside = dict(xycoords=("axes fraction", "data"), textcoords="offset points", va="center")
    ax.annotate("spread", (1, -0.8), xytext=(8, 0), **beside)
    ends = sorted(values["value"].agg(["min", "max"]), reverse=evaluation.lower_is_better(metric))
    told = f"The danger of a single prompt: {metric} from {number(ends[0])} to {number(ends[1])}"
    ax.set_title(told, loc="left", size=9, pad=32)
    alone, both = "one prompt alone, each in another wording", "the language's templates together"
    place = dict(loc="lower left", bbox_to_anchor=(-0.02, 0.99), borderpad=0, handletextpad=0.3)
    ax.legend([single, whole], [alone, f"{both}, 95 % interval"], **place)
    note = f"{interval_kind(report)}; {sample(report)}\nspread: standard deviation "
    note += "over the wordings, without what the luck of few patients adds"
    if reads:
        note += f"\n* the text tower learnt {LANGUAGES.get(reads, reads)} alone"
    ax.set_xlabel(f"{metric}{f', {unit}' if unit else ''}\n{note}", linespacing=1.4)
    return figure
