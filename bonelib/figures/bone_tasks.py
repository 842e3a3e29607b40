"""Charts of several tasks: encoders, readers beside each other, limits of agreement."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

from bonelib import evaluation
from bonelib.evaluation import METHOD, Method
from bonelib.figures.names import colour, display_name
from bonelib.figures.predicted import plot_confusion
from bonelib.figures.scores import (
    interval_kind,
    of_images,
    plot_forest,
    sample,
    spelt_metric,
    spelt_task,
)
from bonelib.figures.style import FAINT, INK, WIDTH, note, panels, with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_tasks(scores: pd.DataFrame) -> "Figure | None":
    """Draw a panel a task and a row a method: its score with 95 % interval, at all labels.

    Args:
        scores: ``task, share``, the columns of methods, metric, value, low, high, n, groups,
            group_kind; other shares than 1 are left out.
    """
    if scores.empty:
        return None
    parts = of_images(scores[scores["share"] == 1])
    rows = [len(part) + 4.4 for part in parts.values()]
    shape = dict(figsize=(WIDTH, 0.4 + 0.24 * sum(rows)), height_ratios=rows, layout="constrained")
    figure, axes = plt.subplots(len(parts), 1, squeeze=False, **shape)
    for ax, (task, part) in zip(axes[:, 0], parts.items(), strict=True):
        plot_forest(part, unit=evaluation.as_task(task).unit, ax=ax)
        ax.set_title(f"{spelt_task(task)}: {spelt_metric(task)}", loc="left", size=8.5)
    figure.supxlabel("")  # in which each panel's n stood without the task
    note(figure, *(f"{spelt_task(task)}: {sample(part)}" for task, part in parts.items()))
    note(figure, interval_kind(scores), "all labels", "dashed: chance")
    return figure


def plot_bland_altman(
    predictions: Mapping[Method, pd.DataFrame], limits: pd.DataFrame, *, task: str
) -> "Figure":
    """Draw predicted minus true against their mean, a panel a method, with bias and limits.

    Args:
        predictions: Of a task with values, labelled, by method.
        limits: Rows of ``evaluation.bland_altman`` with the columns of methods.
    """
    known = evaluation.as_task(task)
    figure, axes = panels(len(predictions), len(predictions), 3.1, sharex=True, sharey=True)
    for ax, (method, table) in zip(axes, predictions.items(), strict=True):
        truth, value = (table[c].to_numpy(float) for c in ("label", "value"))
        mean, off = (truth + value) / 2, value - truth
        ax.plot(mean, off, "o", color=colour(method), ms=2.6, mew=0, alpha=0.5)
        own = limits[(limits[list(METHOD)] == [*method.columns().values()][:4]).all(axis=1)]
        for row in own.itertuples():
            dash = "-" if row.metric == evaluation.LIMITS[0] else (0, (4, 2))
            ax.axhline(row.value, color=INK, lw=1, ls=dash)
            ax.axhspan(row.low, row.high, color=INK, alpha=0.12, lw=0)
            said = f"{row.metric} {row.value:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
            place = dict(xytext=(-2, 3), textcoords="offset points", ha="right", size=7)
            place |= dict(bbox=dict(fc="white", alpha=0.75, lw=0, pad=0.8))  # over the dots
            ax.annotate(said, (1, row.value), xycoords=("axes fraction", "data"), **place)
        ax.axhline(0, color=FAINT, lw=0.6, ls=(0, (1, 2)))
        ax.set_title(display_name(method), loc="left", size=8.5)
        ax.set_xlabel(f"mean of predicted and true, {known.unit}")
    axes[0].set_ylabel(f"{known.name.replace('_', ' ')}: predicted − true, {known.unit}")
    note(figure, f"shaded: {interval_kind(own)}", "limits: bias ± 1.96 SD", sample(own))
    return figure


def plot_readers(
    own: pd.DataFrame, other: pd.DataFrame, *, task: str, readers: Sequence[str]
) -> "Figure":
    """Draw the grades of a method and of a second reader against the first, with kappa.

    Args:
        own: Predictions of one method, labelled by the first reader.
        other: ``evaluation.of_reader`` of the second.
        readers: What the two are called.
    """
    figure, axes = panels(2, 2, 3.5)
    metric = evaluation.primary(task).metric
    for ax, table in zip(axes, (own, other), strict=True):
        plot_confusion(table, task, ax=ax)
        found = evaluation.metrics(table, task=task, only=(metric,)).iloc[0]
        method = next(iter(evaluation.by_method(table)))
        kappa = with_interval(*found[["value", "low", "high"]])
        ax.set_title(f"{display_name(method)}\n{metric} {kappa}", loc="left", size=8)
        ax.set(xlabel=f"grade by {display_name(method)}", ylabel=f"grade by {readers[0]}")
    told = found.to_frame().T
    note(figure, f"share of each grade of {readers[0]}", sample(told), interval_kind(told))
    return figure
