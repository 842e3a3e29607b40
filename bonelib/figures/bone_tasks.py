"""Charts of several tasks: encoders, few labels, readers beside each other, limits of agreement."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import NullLocator

from bonelib import evaluation
from bonelib.evaluation import METHOD, Method
from bonelib.figures.names import colour, display_name
from bonelib.figures.predicted import plot_confusion
from bonelib.figures.scores import interval_kind, plot_forest, sample
from bonelib.figures.style import DASHES, FAINT, INK, WIDTH, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _metric(task: str) -> str:
    """Name the metric of a task with its unit and, of an error, which way is better."""
    metric, known = evaluation.threshold_free(task), evaluation.as_task(task)
    if evaluation.lower_is_better(metric):
        return f"{metric}{f', {known.unit}' if known.unit else ''} (lower is better)"
    return f"{metric}, mean over classes" if len(known.classes) > 2 else metric


def _named(task: str) -> str:
    """Name a task for readers: ``KL grade``, ``bone age``."""
    return task.replace("_", " ").replace("kl ", "KL ")


def _of_images(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Part scores by task: those by the metric without a decision."""
    chosen = [evaluation.threshold_free(task) for task in scores["task"]]
    kept = scores[scores["metric"] == chosen]
    return dict([*kept.groupby("task", sort=False)])


def plot_tasks(scores: pd.DataFrame) -> "Figure | None":
    """Draw a panel a task and a row a method: its score with 95 % interval, at all labels.

    Args:
        scores: ``task, share``, the columns of methods, metric, value, low, high, n, groups,
            group_kind; other shares than 1 are left out.
    """
    if scores.empty:
        return None
    parts = _of_images(scores[scores["share"] == 1])
    rows = [len(part) + 3.4 for part in parts.values()]
    shape = dict(figsize=(WIDTH, 0.24 * sum(rows)), height_ratios=rows, layout="constrained")
    figure, axes = plt.subplots(len(parts), 1, squeeze=False, **shape)
    for ax, (task, part) in zip(axes[:, 0], parts.items(), strict=True):
        plot_forest(part, unit=evaluation.as_task(task).unit, ax=ax)
        ax.set_title(f"{_named(task)}: {_metric(task)}; all labels", loc="left", size=8.5)
    return figure


def plot_label_shares(scores: pd.DataFrame, *, strategies: Sequence[str]) -> "Figure | None":
    """Draw a panel a task and a line an encoder: the score over the number of labelled images.

    Args:
        scores: As in `plot_tasks`, with ``images``.
        strategies: Of the methods that are drawn: heads on frozen features, say.
    """
    kept = scores[scores["sees"].eq("image") & scores["strategy"].isin(strategies)]
    parts = _of_images(kept) if len(kept) else {}
    if not parts:
        return None
    columns = min(2, len(parts))
    lines = -(-len(parts) // columns)
    size = (WIDTH, 0.9 + 2.3 * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
    handles: dict[str, object] = {}
    for ax, (task, part) in zip(axes.flat, parts.items(), strict=False):
        used: dict[str, int] = {}
        for method, rows in evaluation.by_method(part).items():
            rows, shade = rows.sort_values("images"), colour(method)
            dash = DASHES[used.get(shade, 0) % len(DASHES)]
            used[shade] = used.get(shade, 0) + 1
            look = dict(color=shade, linestyle=dash, marker="o", ms=3)
            x, low, high = (rows[name] for name in ("images", "low", "high"))
            line = ax.plot(x, rows["value"], **look)[0]
            ax.fill_between(x, low, high, color=shade, alpha=0.12, lw=0)
            handles[display_name(Method(method.start, "none", "image", method.detail))] = line
        _label_axis(ax, part)
        ax.set_title(f"{_named(task)}, n = {part['n'].iloc[0]:,} test images", loc="left", size=8.5)
        ax.set_ylabel(_metric(task), size=7.5)
        level = evaluation.chance(evaluation.threshold_free(task))
        if level is not None:
            ax.axhline(level, color=FAINT, lw=0.8, ls=(0, (4, 3)))
    for ax in axes.flat[len(parts) :]:
        ax.set_visible(False)
    whole = pd.concat(parts.values())
    draws = int(whole["repeats"].max())
    told = f"mean of {draws} draws of labels" if draws > 1 else "one draw of labels"
    places = dict(loc="outside lower center", ncols=2, handlelength=2.2)
    told += f"; shaded: {interval_kind(whole)}\ndashed: chance, where the metric has one"
    figure.legend(handles.values(), handles, title=told, **places)
    return figure


def _label_axis(ax: "Axes", part: pd.DataFrame) -> None:
    """Mark the shares of the labels below the numbers of images that they are."""
    at = part.groupby("share")["images"].mean()
    ax.set(xscale="log", xlabel="labelled images")
    ax.set_xticks(at, [f"{n:,.0f}\n{share:.0%}" for share, n in at.items()])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="y")


def plot_bland_altman(
    predictions: Mapping[Method, pd.DataFrame], limits: pd.DataFrame, *, task: str
) -> "Figure":
    """Draw predicted minus true against their mean, a panel a method, with bias and limits.

    Args:
        predictions: Of a task with values, labelled, by method.
        limits: Rows of ``evaluation.bland_altman`` with the columns of methods.
    """
    known = evaluation.as_task(task)
    figure, axes = plt.subplots(
        1, len(predictions), figsize=(WIDTH, 3.1), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, (method, table) in zip(axes[0], predictions.items(), strict=True):
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
    axes[0, 0].set_ylabel(f"{known.name.replace('_', ' ')}: predicted − true, {known.unit}")
    note = f"shaded: {interval_kind(own)}; limits: bias ± 1.96 SD; {sample(own)}"
    figure.supxlabel(note, size=7.5, color=FAINT)
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
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.5), layout="constrained")
    metric = evaluation.primary(task).metric
    for ax, table in zip(axes, (own, other), strict=True):
        plot_confusion(table, task, ax=ax)
        found = evaluation.metrics(table, task=task, only=(metric,)).iloc[0]
        method = next(iter(evaluation.by_method(table)))
        kappa = with_interval(*found[["value", "low", "high"]])
        ax.set_title(f"{display_name(method)}\n{metric} {kappa}", loc="left", size=8)
        ax.set(xlabel=f"grade by {display_name(method)}", ylabel=f"grade by {readers[0]}")
    told = found.to_frame().T
    note = f"share of each grade of {readers[0]}; {sample(told)}; {interval_kind(told)}"
    figure.supxlabel(note, size=7.5, color=FAINT)
    return figure
