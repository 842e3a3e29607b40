"""Charts of predictions, one for each kind of task: ROC curves, agreement with the truth, counts.

A predictions table of one or several methods comes in, axes go out.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.names import colour, display_name
from bonelib.figures.scores import interval_kind, sample, say
from bonelib.figures.style import (
    DASHES,
    INK,
    WIDTH,
    blank_axes,
    number,
    with_interval,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_predictions(
    predictions: pd.DataFrame,
    *,
    task: str,
    draws: int = evaluation.DRAWS,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the predictions of all methods of a table by the chart that fits the kind of task.

    ROC curves for classes (`plot_roc`); for values and grades what was predicted against what is
    true (`plot_agreement`), where a single method's grades are counted (`plot_confusion`).
    """
    kind = evaluation.as_task(task).kind
    if kind in ("binary", "multiclass"):
        return plot_roc(predictions, task=task, draws=draws, ax=ax)
    if kind == "ordinal" and len(evaluation.by_method(predictions)) == 1:
        return plot_confusion(predictions, task, ax=ax)
    return plot_agreement(predictions, task=task, draws=draws, ax=ax)


def _curve(
    truth: pd.Series, scores: pd.Series, grid: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(truth, scores)
    return (false, true) if grid is None else (grid, np.interp(grid, false, true))


def plot_roc(
    predictions: pd.DataFrame,
    *,
    task: str,
    draws: int = evaluation.DRAWS,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a ROC curve per method, with AUROC and its 95 % interval in the legend.

    Of the positive class against the rest; of a task without one, the mean of one-vs-rest curves
    over the classes that occur.
    """
    known, found = evaluation.as_task(task), []
    lines = _Lines(ax)
    ax = lines.ax
    one_class = len(known.classes) == 2 or (predictions["label"] == known.positive).any()
    metric = f"AUROC {known.positive}" if one_class and len(known.classes) > 2 else "AUROC"
    for method, table in evaluation.by_method(predictions).items():
        table = table[table["label"].notna()]
        one = evaluation.metrics(table, task=task, draws=draws, only=(metric,))
        occur = [c for c in known.classes if (table["label"] == c).any()]
        targets = [known.positive or known.classes[1]] if one_class else occur
        grid = None if len(targets) == 1 else np.linspace(0, 1, 501)
        curves = [_curve(table["label"] == c, table[f"p_{c}"], grid) for c in targets]
        mean = np.mean([true for _, true in curves], axis=0)
        ax.plot(curves[0][0], mean, clip_on=False, **lines.style(method, one))
        found.append(one)
    ax.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="1 − specificity", ylabel="sensitivity")
    ax.set_xticks(np.arange(0, 1.01, 0.25))
    ax.set_yticks(np.arange(0, 1.01, 0.25))
    ax.grid()
    everyone = pd.concat(found)
    lines.legend("AUROC")
    what = known.positive if one_class else "mean over classes, one against the rest"
    what += " against the rest" if metric != "AUROC" else ""
    say(ax, f"{what} · {sample(everyone)}", interval_kind(everyone))
    return ax


def plot_agreement(
    predictions: pd.DataFrame,
    *,
    task: str,
    draws: int = evaluation.DRAWS,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw what is predicted against what is true, beside the line where both are equal.

    A value is a dot an image. A grade is the mean, over the images of each true grade, of the grade
    that the probabilities expect: dots on the line are right on average, a flat curve has learnt
    nothing. The primary metric and its 95 % interval stand in the legend.
    """
    known, found = evaluation.as_task(task), []
    lines, metric = _Lines(ax), evaluation.primary(known).metric
    ax, graded = lines.ax, known.kind == "ordinal"
    ends = []
    for method, table in evaluation.by_method(predictions).items():
        table = table[table["label"].notna()]
        one = evaluation.metrics(table, task=task, draws=draws, only=(metric,))
        truth = known.encode(table["label"])
        if graded:
            p = table[[f"p_{name}" for name in known.classes]].to_numpy(dtype=float)
            expected = pd.Series(p @ np.arange(len(known.classes)))
            mean = expected.groupby(truth).mean()
            ax.plot(mean.index, mean, marker="o", ms=4, **lines.style(method, one))
        else:
            dots = lines.style(method, one, dots=True)
            ax.plot(truth, table["value"], ms=3, mew=0, alpha=0.5, **dots)
            ends += [truth.min(), truth.max(), table["value"].min(), table["value"].max()]
        found.append(one)
    ends = [0, len(known.classes) - 1] if graded else [min(ends), max(ends)]
    ax.plot(ends, ends, color="#BDBDBD", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    if graded:
        ax.set_xticks(range(len(known.classes)), known.classes)
        ax.set_yticks(range(len(known.classes)), known.classes)
    ax.set_aspect("equal")
    words = f" {known.name.replace('_', ' ')}{f', {known.unit}' if known.unit else ''}"
    ax.set(xlabel=f"true{words}", ylabel=f"{'mean ' if graded else ''}predicted{words}")
    ax.grid()
    everyone = pd.concat(found)
    lines.legend(f"{metric}{f', {known.unit}' if known.unit else ''}")
    say(ax, sample(everyone), interval_kind(everyone))
    return ax


class _Lines:
    """The curves of one axes: a colour, a dash and a label a method, and their legend."""

    def __init__(self, ax: "Axes | None"):
        self.beside = ax is None  # there is room for the legend at the right of an own figure
        self.ax = blank_axes(ax, WIDTH, 3.5)
        self.used: dict[str, int] = {}

    def style(
        self, method: evaluation.Method, metrics: pd.DataFrame, *, dots: bool = False
    ) -> dict[str, object]:
        """Return the options of ``plot``; methods of one colour differ by dash, or by marker."""
        shade = colour(method)
        before = self.used.get(shade, 0) % len(DASHES)
        self.used[shade] = before + 1
        line = {"linestyle": "", "marker": "os^D"[before]} if dots else {}
        value = with_interval(*metrics.loc[0, ["value", "low", "high"]])
        label = f"{display_name(method)}{chr(10) if self.beside else '  '}{value}"
        return {"color": shade, "linestyle": DASHES[before], "label": label} | line

    def legend(self, title: str) -> None:
        place = {"loc": "center left", "bbox_to_anchor": (1.03, 0.5), "labelspacing": 0.9}
        if not self.beside:
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.22), "fontsize": 7}
        title = f"{title} [95 % interval]"
        self.ax.legend(title=title, alignment="left", handlelength=1.8, **place)


def plot_confusion(
    predictions: pd.DataFrame, task: str, threshold: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw counts of truth against prediction, shaded by the share of each true class.

    Args:
        threshold: Of a binary task; without it the most probable class is the prediction.
    """
    known = evaluation.as_task(task)
    names, table = list(known.classes), predictions[predictions["label"].notna()]
    p = table[[f"p_{name}" for name in names]].to_numpy()
    guess = p.argmax(1)
    if threshold is not None and len(names) == 2:
        one = names.index(known.positive)
        guess = np.where(p[:, one] >= threshold, one, 1 - one)
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (known.encode(table["label"]), guess), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    many = len(names) > 4
    height = 1.1 + (0.47 if many else 0.62) * len(names)
    ax = blank_axes(ax, min(WIDTH, 1.6 + 0.75 * len(names)), height)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if share[row, column] > 0.55 else INK
        text = f"{count}\n{100 * share[row, column]:.0f} %" if count else "0"
        ax.text(column, row, text, ha="center", va="center", color=ink, size=7 if many else 8)
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if many else {}
    ax.set_xticks(range(len(names)), names, **turned)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="predicted", ylabel="true")
    rule = "" if threshold is None else f" · positive from {number(threshold)}"
    say(ax, f"n = {len(table):,} images{rule}")
    return ax
