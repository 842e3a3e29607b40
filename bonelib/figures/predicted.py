"""Charts of predictions: what was predicted against what is true, and one page of a method.

A predictions table of one or several methods comes in, axes go out.
"""

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.evaluation import DRAWS
from bonelib.figures.curves import (
    GUIDE,
    Lines,
    banded,
    plot_calibration,
    plot_decision,
    plot_roc,
    scored,
)
from bonelib.figures.names import colour, display_name
from bonelib.figures.scores import interval_kind, sample
from bonelib.figures.style import INK, WIDTH, blank_axes, note, number, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_predictions(
    predictions: pd.DataFrame,
    *,
    task: str,
    draws: int = DRAWS,
    ax: "Axes | None" = None,
    kept: dict | None = None,
) -> "Axes":
    """Draw the predictions of all methods of a table by the chart that fits the kind of task.

    ROC curves for classes (`plot_roc`); for values and grades what was predicted against what is
    true (`plot_agreement`), where a single method's grades are counted (`plot_confusion`).

    Args:
        kept: Empty at first, it gains what a ROC curve is drawn from, by method; given again, it
            saves computing that. A method must have the same rows in every table.
    """
    kind = evaluation.as_task(task).kind
    if kind in ("binary", "multiclass"):
        return plot_roc(predictions, task=task, draws=draws, ax=ax, kept=kept)
    if kind == "ordinal" and len(evaluation.by_method(predictions)) == 1:
        return plot_confusion(predictions, task, ax=ax)
    return plot_agreement(predictions, task=task, draws=draws, ax=ax)


def plot_agreement(
    predictions: pd.DataFrame, *, task: str, draws: int = DRAWS, ax: "Axes | None" = None
) -> "Axes":
    """Draw what is predicted against what is true, beside the line where both are equal.

    A value is a dot an image. A grade is the mean, over the images of each true grade, of the grade
    that the probabilities expect: dots on the line are right on average, a flat curve has learnt
    nothing. The primary metric and its 95 % interval stand in the legend.
    """
    known, found, ends = evaluation.as_task(task), [], []
    lines, metric = Lines(ax), evaluation.primary(known).metric
    ax, graded = lines.ax, known.kind == "ordinal"
    for method, table, one, value in scored(predictions, task, metric, draws, {}):
        truth = known.encode(table["label"])
        if graded:
            p = table[[f"p_{name}" for name in known.classes]].to_numpy(dtype=float)
            expected = pd.Series(p @ np.arange(len(known.classes)))
            mean = expected.groupby(truth).mean()
            ax.plot(mean.index, mean, marker="o", ms=4, **lines.style(method, value))
        else:
            dots = lines.style(method, value, dots=True)
            ax.plot(truth, table["value"], ms=3, mew=0, alpha=0.5, **dots)
            ends += [truth.min(), truth.max(), table["value"].min(), table["value"].max()]
        found.append(one)
    ends = [0, len(known.classes) - 1] if graded else [min(ends), max(ends)]
    ax.plot(ends, ends, **GUIDE)
    if graded:
        ax.set_xticks(range(len(known.classes)), known.classes)
        ax.set_yticks(range(len(known.classes)), known.classes)
    ax.set_aspect("equal")
    words = f" {known.name.replace('_', ' ')}{f', {known.unit}' if known.unit else ''}"
    ax.set(xlabel=f"true{words}", ylabel=f"{'mean ' if graded else ''}predicted{words}")
    ax.grid()
    everyone = pd.concat(found)
    lines.legend(f"{metric}{f', {known.unit}' if known.unit else ''} [95 % interval]")
    note(ax.figure, sample(everyone), interval_kind(everyone))
    return ax


def plot_confusion(
    predictions: pd.DataFrame, task: str, threshold: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw counts of truth against prediction, shaded by the share of each true class.

    Args:
        threshold: Of a binary task; without it the most probable class is the prediction.
    """
    table = predictions[predictions["label"].notna()]
    counted = evaluation.confusion(table, task=task, threshold=threshold)
    names, counts = list(counted.columns), counted.to_numpy(int)
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
    note(ax.figure, sample(evaluation.metrics(table, task=task, draws=1, only=("accuracy",))))
    if threshold is not None:
        note(ax.figure, f"called positive from {number(threshold)}")
    return ax


def plot_evidence(
    predictions: pd.DataFrame, *, task: str, threshold: float | None = None, draws: int = DRAWS
) -> "Figure":
    """Draw one method on one page: confusion matrix, calibration, decision curve, risk.

    The risk is the share of wrong classes among the images of least entropy.

    Args:
        threshold: Of the confusion matrix of a binary task, chosen on validation patients.

    Raises:
        ValueError: There are several methods, or the task has no positive class.
    """
    known, methods = evaluation.as_task(task), list(evaluation.by_method(predictions))
    if len(methods) != 1 or not known.positive:
        raise ValueError(
            f"One page shows one method by its positive class; here are {len(methods)} methods and "
            f"{known.name} has {known.positive or 'no positive class'}. Draw plot_predictions."
        )
    figure, (counts, calibration, decision, risk) = panels(4, 2, 2.7)
    plot_confusion(predictions, task, threshold, ax=counts)
    plot_calibration(predictions, task, calibration, draws=draws)
    plot_decision(predictions, task=task, draws=draws, ax=decision)
    decision.get_legend().remove()
    curve = evaluation.risk_coverage(predictions, task=task, draws=draws)
    banded(risk, curve, color=colour(methods[0]))
    risk.set(xlim=(0, 1), xlabel="share of images, least doubt first", ylabel="share of them wrong")
    risk.set_ylim(bottom=0)
    risk.grid()
    figure.suptitle(textwrap.fill(display_name(methods[0]), 75), x=0.01, ha="left")
    return figure
