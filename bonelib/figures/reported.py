"""The chart of what papers report beside what a run reached: one axes, parted by comparability."""

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.names import colours, display_names
from bonelib.figures.rows import Row, draw_rows
from bonelib.figures.scores import interval_kind, mark_chance, sample
from bonelib.figures.style import GREY, INK, WIDTH, blank_axes, note, number, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Scores of one paper that differ in nothing else than the model share a row.
_ONE_ROW = ["task", "key", "cohort", "split", "sees", "metric"]
_LETTERS = 44  # of a row's name


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
    rows = [Row(f"this run: {own_name}"), *_own_rows(own, metric)]
    lower = evaluation.lower_is_better(metric)
    reported = reported.assign(row=_row_of(reported))
    for (same, task, fair), part in reported.groupby(["same", "task", "fair"], sort=False):
        of_task = reported[reported["task"].eq(task)].drop_duplicates("row")
        found = _paper_rows(part, of_task, INK if fair else GREY, hollow=not same)
        found.sort(key=lambda row: row.ends[:, 0].min() if lower else -row.ends[:, 0].max())
        rows += [Row(_group(task, same, fair)), *found]
    ax = blank_axes(ax, WIDTH, 0.75 + 0.165 * len(rows))
    draw_rows(ax, rows, top=-0.8, size=6.8)
    mark_chance(ax, metric)
    ax.set_xlabel(f"{metric}{f', {unit}' if unit else ''}")
    note(ax.figure, f"this run: {interval_kind(own)}", sample(own))
    note(ax.figure, "models of one paper may share a row")
    if evaluation.chance(metric) is not None:
        note(ax.figure, "dashed: chance")
    return ax


def _group(task: str, same: bool, fair: bool) -> str:
    told = "same images and split" if same else "not comparable"
    return f"{task.replace('_', ' ')}: {'a split that is made here' if fair > same else told}"


def _own_rows(own: pd.DataFrame, metric: str) -> list[Row]:
    ends = own[[metric, f"{metric}_low", f"{metric}_high"]].to_numpy(float)
    told = zip(display_names(own), ends, colours(own), strict=True)
    return [Row(name, row[None], shade=shade) for name, row, shade in told]


def _row_of(reported: pd.DataFrame) -> pd.Series:
    """Number the rows of the chart; a score with an interval has its own."""
    keys = [reported[name].fillna("") for name in _ONE_ROW]
    keys.append(reported["method"].where(reported["low"].notna(), ""))
    return reported.groupby(keys, sort=False).ngroup()


def _paper_rows(
    part: pd.DataFrame, of_task: pd.DataFrame, shade: str, *, hollow: bool
) -> list[Row]:
    """Return the rows of a group.

    Args:
        of_task: One score of each row of the task, of all groups, so that names differ.
    """
    made = []
    for _, scores in part.groupby("row", sort=False):
        ends = scores[["value", "low", "high"]].to_numpy(float)
        name = _name(scores, of_task[of_task["key"].eq(scores["key"].iloc[0])])
        made.append(Row(name, ends, _text(scores, ends), shade, hollow=hollow))
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
