"""The chart of what papers report beside what a run reached: one axes, parted by comparability."""

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.names import colours, display_names
from bonelib.figures.scores import interval_kind, mark_chance, sample
from bonelib.figures.style import (
    GREY,
    INK,
    WIDTH,
    blank_axes,
    number,
    rows_named,
    with_interval,
    write_right,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Scores of one paper that differ in nothing else than the model share a row.
_ONE_ROW = ["task", "key", "cohort", "split", "sees", "metric"]
_LETTERS = 44  # of a row's name


class _Row(NamedTuple):
    """A row of the chart; a heading has no values.

    Attributes:
        ends: ``(K, 3)``: value, low, high of each model.
    """

    name: str
    ends: np.ndarray
    text: str = ""
    shade: str = GREY
    filled: bool = False


def plot_reported(
    own: pd.DataFrame,
    reported: pd.DataFrame,
    *,
    metric: str,
    unit: str = "",
    own_name: str = "",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a run's scores, then those of papers: same images and split, same split, all others.

    What is of the same images and split is filled and dark, what is of a split that can be made
    here is hollow and dark, all other scores are grey. Several models of one paper share a row.

    Args:
        own: Rows of ``reporting.scores``: the columns of methods, ``<metric>`` with ``_low`` and
            ``_high``, n, groups, group_kind.
        reported: key, paper, method, sees, task, cohort, n, unit, split, metric, value, low, high,
            and bool ``same`` and ``fair``.
        own_name: The data set of the run.
    """
    rows = [_heading(f"this run: {own_name}"), *_own_rows(own, metric)]
    lower = evaluation.lower_is_better(metric)
    reported = reported.assign(row=_row_of(reported))
    for (same, task, fair), part in reported.groupby(["same", "task", "fair"], sort=False):
        of_task = reported[reported["task"].eq(task)].drop_duplicates("row")
        found = _paper_rows(part, of_task, INK if fair else GREY, filled=same)
        found.sort(key=lambda row: row.ends[:, 0].min() if lower else -row.ends[:, 0].max())
        rows += [_heading(_group(task, same, fair)), *found]
    ax = blank_axes(ax, WIDTH, 0.75 + 0.165 * len(rows))
    for place, row in enumerate(rows):
        if not len(row.ends):
            _write_heading(ax, place, row.name)
        for value, low, high in row.ends:
            ax.plot([low, high], [place, place], color=row.shade, linewidth=1.6, zorder=2)
            ax.plot(value, place, "o", color=row.shade, ms=4, mew=1, zorder=3,
                    mfc=row.shade if row.filled else "white")  # fmt: skip
    rows_named(ax, [row.name if len(row.ends) else "" for row in rows], top=-0.8)
    ax.tick_params(axis="y", labelsize=6.8)
    write_right(ax, [row.text for row in rows], size=6.8)
    mark_chance(ax, metric)
    dashed = "; dashed: chance" if evaluation.chance(metric) is not None else ""
    note = f"this run: {interval_kind(own)}; {sample(own)}\nmodels of one paper may share a row"
    label = f"{metric}{f', {unit}' if unit else ''}\n{note}{dashed}"
    ax.set_xlabel(label, linespacing=1.4, size=7.5)
    return ax


def _heading(text: str) -> _Row:
    return _Row(text, np.empty((0, 3)))


def _write_heading(ax: "Axes", place: int, text: str) -> None:
    ax.axhspan(place - 0.5, place + 0.5, color="#F3F3F3", linewidth=0, zorder=0.5)
    ax.annotate(
        text, (0, place), xycoords=("axes fraction", "data"), xytext=(3, 0), va="center", size=7,
        textcoords="offset points", weight="bold", color=INK,
    )  # fmt: skip


def _group(task: str, same: bool, fair: bool) -> str:
    told = "same images and split" if same else "not comparable"
    return f"{task.replace('_', ' ')}: {'a split that is made here' if fair > same else told}"


def _own_rows(own: pd.DataFrame, metric: str) -> list[_Row]:
    ends = own[[metric, f"{metric}_low", f"{metric}_high"]].to_numpy(float)
    told = zip(display_names(own), ends, colours(own), strict=True)
    return [_Row(name, row[None], with_interval(*row), shade, True) for name, row, shade in told]


def _row_of(reported: pd.DataFrame) -> pd.Series:
    """Number the rows of the chart; a score with an interval has its own."""
    keys = [reported[name].fillna("") for name in _ONE_ROW]
    keys.append(reported["method"].where(reported["low"].notna(), ""))
    return reported.groupby(keys, sort=False).ngroup()


def _paper_rows(
    part: pd.DataFrame, of_task: pd.DataFrame, shade: str, *, filled: bool
) -> list[_Row]:
    """Return the rows of a group.

    Args:
        of_task: One score of each row of the task, of all groups, so that names differ.
    """
    made = []
    for _, scores in part.groupby("row", sort=False):
        ends = scores[["value", "low", "high"]].to_numpy(float)
        name = _name(scores, of_task[of_task["key"].eq(scores["key"].iloc[0])])
        made.append(_Row(name, ends, _text(scores, ends), shade, filled))
    return made


def _name(scores: pd.DataFrame, of_paper: pd.DataFrame) -> str:
    """Name a row by its paper, and by the fewest columns that part it from others of that paper."""
    first = scores.iloc[0]
    who, *beside = [re.split(r",| \(", first["paper"])[0], *first["sees"].split("+")]
    beside = [f"+ {seen}" if "image" in beside else seen for seen in beside if seen != "image"]
    alone = re.fullmatch(r"AUROC (\w+)", first["metric"])
    told = [f"{alone[1]} or not"] if alone else []
    choices = [[], ["split"], ["cohort"], ["cohort", "split"], ["method"], ["method", "split"]]
    parting = [c for c in choices if len(of_paper[["sees", *c]].drop_duplicates()) == len(of_paper)]
    if len(of_paper) > 1:
        told += [first[name] for name in (parting or choices[::-1])[0]]
    elif len(scores) == 1:
        told.append(first["method"])
    text = " ".join([who, *beside]) + (f": {', '.join(told)}" if told else "")
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1].rstrip(" ,:") + "…"


def _text(scores: pd.DataFrame, ends: np.ndarray) -> str:
    n, unit = scores["n"].iloc[0], scores["unit"].iloc[0]
    counted = f"; {n:,} {unit}" if pd.notna(n) else ""
    if len(ends) == 1:
        return with_interval(*ends[0]) + counted
    low, high = ends[:, 0].min(), ends[:, 0].max()
    return f"{number(low)} to {number(high)}{counted}"
