"""Charts of the cohort and of training: how many images of what, and how a model learned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.names import colour, display_name
from bonelib.figures.rows import names_at_left
from bonelib.figures.style import BLUE, CLASSES, DASHES, FAINT, INK, RED, WIDTH, blank_axes, inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_history(
    history: pd.DataFrame,
    *,
    value: str = "loss",
    floor: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a value per epoch, one curve per method, with a ring around the epoch that was kept.

    Args:
        history: Rows of ``training.fit``; with the columns of methods, each has its curve. Without
            them, ``validation_<value>`` or ``val_<value>`` is drawn beside the training.
        floor: As a dashed line: the lowest loss there can be, or what chance reaches.
    """
    ax = blank_axes(ax, WIDTH * 0.62, 2.5)
    if set(evaluation.METHOD) <= set(history):
        methods = evaluation.by_method(history)
        curves = [(display_name(m), colour(m), rows, value) for m, rows in methods.items()]
    else:
        beside = [f"{word}_{value}" for word in ("validation", "val")]
        beside = [column for column in beside if column in history]
        curves = [("training" if beside else None, BLUE, history, value)]
        curves += [("validation", RED, history, column) for column in beside]
    used, ringed = [], None
    for name, shade, rows, column in curves:
        marker = "o" if len(rows) < 16 else None
        dash = DASHES[used.count(shade) % len(DASHES)]
        used.append(shade)
        look = dict(ls=dash, marker=marker, ms=3.5, color=shade, label=name or "_")
        ax.plot("epoch", column, data=rows, **look)
        kept = rows[rows["kept"].eq(True)] if "kept" in rows else rows.head(0)
        if len(kept):
            x, y = kept["epoch"].iloc[-1], kept[column].iloc[-1]
            (ringed,) = ax.plot(x, y, "o", ms=8, mfc="none", mec=INK)
    if ringed is not None:
        ringed.set_label("epoch kept")
    if floor is not None:
        words = "lowest possible" if "loss" in value else "chance"
        ax.axhline(floor, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), label=words)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="epoch", ylabel=_spelt(value))
    ax.grid(axis="y")
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="best", fontsize=7.5)
    return ax


def _spelt(column: str) -> str:
    """Spell a column of a training's history: ``val_auroc`` is the validation AUROC."""
    spelling = {"val": "validation", "auroc": "AUROC", "mae": "MAE"}
    return " ".join(spelling.get(word, word) for word in column.split("_"))


def words(values: pd.Series) -> pd.Series:
    """Spell the values of a column: a tuple of sites joined, what is missing as "unknown"."""
    text = [" + ".join(v) if isinstance(v, tuple) else v for v in values]
    text = pd.Series(text, index=values.index, dtype="object")
    return text.where(text.notna() & (text != ""), "unknown").astype(str)


def plot_counts(
    table: pd.DataFrame,
    column: str,
    by: str,
    ax: "Axes | None" = None,
    *,
    order: Sequence[str] = (),
    most: int = 14,
) -> "Axes":
    """Draw images per value of ``column`` (site, view, centre), stacked by the class ``by``.

    Args:
        order: The classes in order (``task.classes``); else as often as they occur.
        most: Values drawn; rarer ones are counted together as "other".
    """
    rows, classes = words(table[column]), words(table[by])
    often = rows.value_counts()
    if len(often) > most:
        rows = rows.where(rows.isin(often.index[: most - 1]), "other")
    counts = pd.crosstab(rows, classes)
    last = counts.index.isin(["other", "unknown"])
    counts = counts.iloc[np.lexsort((-counts.sum(axis=1), last))]
    names = [c for c in (order or classes.value_counts().index) if c in counts]
    names += [c for c in counts if c not in names]
    shades = CLASSES if len(names) != 2 else (CLASSES[0], CLASSES[2])
    ax = blank_axes(ax, WIDTH, 0.95 + 0.24 * len(counts))
    room = inches(ax) * 0.5 / counts.sum(axis=1).max()  # inches of bar for one image
    left, total = np.zeros(len(counts)), counts.sum(axis=1)
    for i, name in enumerate(names):
        shade = "#DDDDDD" if name == "unknown" else shades[i % len(shades)]
        bars = ax.barh(
            range(len(counts)), counts[name], left=left, height=0.72, color=shade, label=name
        )
        wide = counts[name] * room > 0.09 * counts[name].astype(str).str.len()
        ax.bar_label(bars, [f"{n}" if w else "" for n, w in zip(counts[name], wide, strict=True)],
                     label_type="center", size=7, color="white" if i == 2 else INK)  # fmt: skip
        left = left + counts[name].to_numpy()
    ax.bar_label(bars, [f"{n:,}" for n in total], padding=4, size=8)
    names_at_left(ax, list(counts.index))
    told = [f"images by {str(column).replace('_', ' ')}", f"(n = {len(table):,})"]
    ax.set_xlabel((" " if inches(ax) > 2.5 else "\n").join(told))
    ax.margins(x=min(0.3, 0.45 / inches(ax)))
    grid = ax.get_subplotspec()
    if grid is None or grid.is_first_col():  # one legend for a row of such charts
        handles, labels = ax.get_legend_handles_labels()
        ax.figure.legend(handles, labels, loc="outside upper center", ncols=6, handlelength=1)
    return ax
