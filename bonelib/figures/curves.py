"""Curves with bands, a line a method: ROC, precision and recall, net benefit, risk, calibration.

A band is the 95 % interval at each place of the horizontal axis, not one of the whole curve.
"""

import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.evaluation import DRAWS
from bonelib.figures.names import colour, display_name
from bonelib.figures.scores import interval_kind, sample
from bonelib.figures.style import DASHES, FAINT, WIDTH, blank_axes, note, number, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

GUIDE = dict(color="#BDBDBD", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
BANDS = 4  # methods of one axes whose bands can still be told apart


def banded(
    ax: "Axes", curve: pd.DataFrame, x: str = "x", *, band: bool = True, **look: object
) -> "Line2D":
    """Draw ``value`` over the column ``x`` and, as a band, ``low, high``; return the line."""
    if band:
        ends = (curve[end].astype(float) for end in (x, "low", "high"))
        ax.fill_between(*ends, color=look["color"], alpha=0.13, linewidth=0)
    return ax.plot(curve[x], curve["value"], **look)[0]


class Lines:
    """The curves of one axes: a colour, a dash and a label a method, and their legend."""

    def __init__(self, ax: "Axes | None", height: float = 3.5):
        self.beside = ax is None  # there is room for the legend at the right of an own figure
        self.ax = blank_axes(ax, WIDTH, height)
        self.used: dict[str, int] = {}

    def style(self, method: evaluation.Method, told: str = "", *, dots: bool = False) -> dict:
        """Return the options of ``plot``; methods of one colour differ by dash, or by marker."""
        shade = colour(method)
        before = self.used.get(shade, 0) % len(DASHES)
        self.used[shade] = before + 1
        line = {"linestyle": "", "marker": "os^D"[before]} if dots else {}
        name = display_name(method)
        if self.beside:
            name = "\n".join(textwrap.wrap(name, 26, max_lines=3, placeholder=" …"))
        label = f"{name}{chr(10) if self.beside else '  '}{told}".strip()
        return {"color": shade, "linestyle": DASHES[before], "label": label} | line

    def legend(self, title: str = "") -> None:
        """Put the legend at the right of an own figure, below axes that were given."""
        place = {"loc": "center left", "bbox_to_anchor": (1.03, 0.5), "labelspacing": 0.9}
        if self.beside:  # a line for the name, one for the number
            figure, room = self.ax.figure, 0.9 + 0.38 * sum(self.used.values())
            figure.set_figheight(max(figure.get_figheight(), room))
        else:
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.22), "fontsize": 7}
        self.ax.legend(title=title or None, alignment="left", **place)


def scored(
    predictions: pd.DataFrame, task: str, metric: str, draws: int, kept: dict
) -> Iterator[tuple[evaluation.Method, pd.DataFrame, pd.DataFrame, str]]:
    """Yield each method with its labelled rows, its row of ``metric``, and that as a text.

    ``kept`` holds rows that were computed before.
    """
    for method, table in evaluation.by_method(predictions).items():
        table = table[table["label"].notna()]
        if method not in kept:
            kept[method] = evaluation.metrics(table, task=task, draws=draws, only=(metric,))
        one = kept[method]
        yield method, table, one, with_interval(*one.loc[0, ["value", "low", "high"]])


def _of_positive(predictions: pd.DataFrame, task: str, metric: str) -> tuple[str, str]:
    """Name the metric of the positive class, and that class; of the mean, where none occurs."""
    known = evaluation.as_task(task)
    several = len(known.classes) > 2
    if several and not (predictions["label"] == known.positive).any():
        return metric, ""
    positive = known.positive or known.classes[1]
    if several:
        return f"{metric} {positive}", f"{positive} against the rest"
    return metric, positive


def _draw(
    lines: Lines,
    predictions: pd.DataFrame,
    task: str,
    metric: str,
    draws: int,
    curve: Callable[..., pd.DataFrame],
    kept: dict | None = None,
) -> pd.DataFrame:
    """Draw the curve of each method, the metric in the legend; return the last curve."""
    found, band = [], len(evaluation.by_method(predictions)) <= BANDS
    kept = {} if kept is None else kept
    for method, table, one, value in scored(predictions, task, metric, draws, kept):
        if (method, band) not in kept:
            kept[method, band] = curve(table, task=task, draws=draws if band else 1)
        drawn = kept[method, band]
        banded(lines.ax, drawn, band=band and "low" in drawn, **lines.style(method, value))
        found.append(one)
    lines.ax.grid()
    lines.legend(f"{metric.split()[0]} [95 % interval]")
    _say(lines.ax, pd.concat(found))
    return drawn


def _unit_square(ax: "Axes", x: str, y: str) -> None:
    ticks = dict(xticks=np.linspace(0, 1, 5), yticks=np.linspace(0, 1, 5))
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=x, ylabel=y, **ticks)
    ax.grid(visible=True)


def _mean_roc(table: pd.DataFrame, *, task: str, draws: int) -> pd.DataFrame:
    from sklearn.metrics import roc_curve

    grid, curves = np.linspace(0, 1, 501), []
    for name in (c for c in evaluation.as_task(task).classes if (table["label"] == c).any()):
        false, true, _ = roc_curve(table["label"] == name, table[f"p_{name}"])
        curves.append(np.interp(grid, false, true))
    return pd.DataFrame({"x": grid, "value": np.mean(curves, axis=0)})


def plot_roc(
    predictions: pd.DataFrame,
    *,
    task: str,
    draws: int = DRAWS,
    ax: "Axes | None" = None,
    kept: dict | None = None,
) -> "Axes":
    """Draw a ROC curve per method with its band, AUROC and its 95 % interval in the legend.

    Of the positive class against the rest; of a task without one, the mean of one-vs-rest curves
    over the classes that occur, which has no band. ``kept`` as in `plot_predictions`.
    """
    lines, (metric, told) = Lines(ax), _of_positive(predictions, task, "AUROC")
    note(lines.ax.figure, told or "mean over classes, one against the rest")
    _draw(lines, predictions, task, metric, draws, evaluation.roc if told else _mean_roc, kept)
    lines.ax.plot([0, 1], [0, 1], **GUIDE)
    _unit_square(lines.ax, "1 − specificity", "sensitivity")
    return lines.ax


def plot_precision_recall(
    predictions: pd.DataFrame, *, task: str, draws: int = DRAWS, ax: "Axes | None" = None
) -> "Axes":
    """Draw precision over recall of the positive class with bands, AUPRC in the legend.

    The dashed line is the share of positive images, which guessing reaches at every recall.
    """
    lines, (metric, told) = Lines(ax), _of_positive(predictions, task, "AUPRC")
    _draw(lines, predictions, task, metric, draws, evaluation.precision_recall)
    labels = predictions["label"].dropna()
    share = (labels == told.split(" against")[0]).mean()
    lines.ax.axhline(share, **GUIDE)
    _unit_square(lines.ax, "recall", "precision")
    note(lines.ax.figure, f"dashed: the share of {told}, {share:.0%}")
    return lines.ax


def plot_decision(
    predictions: pd.DataFrame, *, task: str, draws: int = DRAWS, ax: "Axes | None" = None
) -> "Axes":
    """Draw the net benefit of each method over the threshold probability, with bands.

    Beside it stand referring everyone and no one (Vickers & Elkin 2006, Med. Decis. Making 26:565;
    recalled): a method is worth its use where it lies above both.
    """
    lines = Lines(ax, 3.1)
    curve = _draw(lines, predictions, task, "Brier", draws, evaluation.decision_curve)
    lines.ax.plot(curve["x"], curve["treat_all"], color=FAINT, lw=1)
    lines.ax.axhline(0, color=FAINT, lw=1, ls=(0, (4, 3)))
    highest = max(np.max(line.get_ydata()) for line in lines.ax.lines)
    lines.ax.set(xlim=(0, curve["x"].max()), ylim=(-0.25 * highest, 1.15 * highest))
    lines.ax.set(xlabel="threshold probability", ylabel="net benefit")
    note(lines.ax.figure, "grey: refer all", "dashed: refer none")
    return lines.ax


def plot_risk(table: pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Draw how much each method errs among the share of images that it doubts least.

    Args:
        table: A row a method and ``coverage``: value, low, high; that of coverage 0 is the mean
            over all coverages and stands in the legend.
    """
    lines = Lines(ax, 2.9)
    for k, (method, rows) in enumerate(evaluation.by_method(table).items()):
        area, curve = rows[rows["coverage"] == 0].iloc[0], rows[rows["coverage"] > 0]
        style = lines.style(method, with_interval(*area[["value", "low", "high"]].astype(float)))
        x = curve["coverage"] + 0.012 * k  # side by side
        lines.ax.plot(x, curve["value"], marker="o", ms=3, **style)
        lines.ax.vlines(x, curve["low"], curve["high"], color=style["color"], lw=1.2, alpha=0.6)
    lines.ax.set(xlabel="share of images answered, those of least doubt", ylim=(0, None))
    lines.ax.set_ylabel("share of them wrong")
    lines.ax.set_xticks(sorted(set(table["coverage"]) - {0.0}))
    lines.ax.grid(axis="y")
    lines.legend("mean over coverages (AURC)")
    _say(lines.ax, table)
    return lines.ax


def plot_calibration(
    predictions: pd.DataFrame,
    task: str,
    ax: "Axes | None" = None,
    *,
    bins: int = 8,
    draws: int = DRAWS,
) -> "Axes":
    """Draw how often the positive class was there against how probable the model called it.

    Bins hold equally many images. The table is of one method; its Brier score and ECE stand above.
    """
    table = evaluation.calibration(predictions, task=task, bins=bins, draws=draws)
    facts = evaluation.metrics(predictions, task=task, draws=1, only=("Brier", "ECE"))
    shade = colour(next(iter(evaluation.by_method(predictions))))
    ax = blank_axes(ax, 3.7, 3.6)
    ax.plot([0, 1], [0, 1], **GUIDE)
    ax.vlines(table["predicted"], table["low"], table["high"], color=shade, linewidth=1.2)
    ax.plot(table["predicted"], table["value"], "o-", color=shade, markersize=4.5, clip_on=False)
    _unit_square(ax, f"probability of {evaluation.as_task(task).positive}", "observed share")
    told = "  ".join(f"{row.metric} {number(row.value)}" for row in facts.itertuples())
    ax.set_title(told, loc="left", size=7.5, weight="normal", color=FAINT)
    _say(ax, facts, f"calibration: {len(table)} bins of equally many images")
    return ax


def _say(ax: "Axes", table: pd.DataFrame, *facts: str) -> None:
    note(ax.figure, sample(table), interval_kind(table), *facts)
