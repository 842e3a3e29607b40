"""The chart of pretraining recipes: what each adds to a frozen probe, task by task."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.scores import interval_kind
from bonelib.figures.style import BLUE, FAINT, GREY, INK, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    import matplotlib.pyplot as plt

    table = table.dropna(subset=["gain"])
    recipes, tasks = table["recipe"].unique(), table["task"].unique()
    shares = sorted(table["share"].unique(), reverse=True)
    shares = [shares[0], shares[-1]][: len(shares)]
    figure, axes = plt.subplots(
        1, len(tasks), sharey=True, squeeze=False, layout="constrained",
        figsize=(WIDTH, 1.15 + 0.26 * len(recipes)),
    )  # fmt: skip
    for ax, task in zip(axes[0], tasks, strict=True):
        part = table[table["task"] == task].set_index(["recipe", "share"])
        supervised = bool(part["in_captions"].any())
        for row, recipe in enumerate(recipes):
            for share, marker, below in zip(shares, "oD", (-0.14, 0.2), strict=False):
                if (recipe, share) not in part.index:
                    continue
                found = part.loc[(recipe, share)]
                value, low, high = found[["gain", "gain_low", "gain_high"]].astype(float)
                shade, clear = BLUE if recipe == "ours" else INK, low > 0 or high < 0
                if supervised and not found["in_captions"]:
                    shade = GREY
                y = row + (below if len(shares) > 1 else 0)
                ax.plot([low, high], [y, y], color=shade, lw=1.3, solid_capstyle="butt", zorder=2)
                ax.plot(
                    value, y, marker, ms=4 if marker == "o" else 3.2, color=shade, mew=1, zorder=3,
                    mfc=shade if clear else "white",
                )  # fmt: skip
        ax.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
        metric = part["metric"].iloc[0]
        named = "named in captions" if supervised else "named in no caption"
        ax.set_title(f"{task.replace('_', ' ')}\n({named})", fontsize=8)
        unit = evaluation.as_task(task).unit if evaluation.lower_is_better(metric) else ""
        ax.set_xlabel(f"{metric}{f', {unit}' if unit else ''}\nover the start")
        if evaluation.lower_is_better(metric):
            ax.invert_xaxis()
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
    folds = table.groupby("recipe")["folds"].max()
    names = [str(r).replace("_", " ") for r in recipes]
    for row, recipe in enumerate(recipes):
        if folds[recipe] < folds.max():
            names[row] += f"\n({folds[recipe]} of {folds.max()} folds)"
    axes[0, 0].set_yticks(range(len(recipes)), names)
    axes[0, 0].set_ylim(len(recipes) - 0.4, -0.6)
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
    figure.supxlabel(f"{words}\n{interval_kind(table)}; images: {sizes}", size=7.5, color=FAINT)
    return figure
