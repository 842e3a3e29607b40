"""Charts of scores: a table of metrics comes in, axes go out.

Each says below the figure how many images of how many patients it stands on, and where its
intervals come from.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bonelib import evaluation
from bonelib.figures.names import colours, display_names, origins
from bonelib.figures.rows import Row, draw_rows, mark_line
from bonelib.figures.style import (
    BLUE,
    UNAVAILABLE,
    WIDTH,
    blank_axes,
    note,
    p_value,
    with_interval,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes


CROWDED = 12  # rows of methods that get headings unasked
PITCH = 0.24  # inches from row to row
# Columns of `evaluation.subgroups` and `evaluation.gap` that name no subgroup.
_MEASURED = {"metric", "value", "low", "high", "n", "positives", "groups", "group_kind", "note"}
_MEASURED |= {"fewest"}


def sample(table: pd.DataFrame) -> str:
    """Say what a table of metrics stands on: ``n = 240 images of 160 patients``."""

    def span(column: str) -> str:
        values = pd.to_numeric(table[column]).dropna().astype(int)
        low, high = values.min(), values.max()
        return f"{low:,}" if low == high else f"{low:,}–{high:,}"

    if "n" not in table or table["n"].isna().all():
        return ""
    pooled = {"study": "studies", "patient": "patients"}  # rows of `reporting.pooled_scores`
    per = pooled.get(table["per"].iloc[0], "images") if "per" in table else "images"
    text = f"n = {span('n')} {per}"
    if "groups" not in table or table["groups"].isna().all():
        return text
    kinds = table["group_kind"].dropna().unique()
    plural = {"patient": "of {} patients", "study": "of {} studies"}
    kind = kinds[0] if len(kinds) == 1 else "groups"
    return f"{text} {plural.get(kind, 'in {} ' + kind).format(span('groups'))}"


def spelt_metric(task: str) -> str:
    """Name the metric of a task with its unit and, of an error, which way is better."""
    metric, known = evaluation.threshold_free(task), evaluation.as_task(task)
    if evaluation.lower_is_better(metric):
        return f"{metric}{f', {known.unit}' if known.unit else ''} (lower is better)"
    return f"{metric}, mean over classes" if len(known.classes) > 2 else metric


def spelt_task(task: str) -> str:
    """Name a task for readers: ``KL grade``, ``bone age``."""
    return task.replace("_", " ").replace("kl ", "KL ")


def of_images(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Part scores by task: those by the metric without a decision."""
    chosen = [evaluation.threshold_free(task) for task in scores["task"]]
    kept = scores[scores["metric"] == chosen]
    return dict([*kept.groupby("task", sort=False)])


def interval_kind(table: pd.DataFrame) -> str:
    """Say where the intervals of a table come from."""
    kinds = list(table["group_kind"].dropna().unique()) if "group_kind" in table else []
    kind = kinds[0] if len(kinds) == 1 else "groups"
    plural = {"patient": "patients", "study": "studies"}.get(kind, kind)
    return f"95 % intervals: bootstrap over {plural}"


def mark_chance(ax: "Axes", metric: str, *, word: str = "") -> None:
    """Draw a dashed line where guessing lies on the axis of this metric, if that is known."""
    level = evaluation.chance(metric)
    if level is not None:
        mark_line(ax, level, word)


def plot_forest(
    table: pd.DataFrame, *, unit: str = "", group: str = "", ax: "Axes | None" = None
) -> "Axes":
    """Draw one row per model: primary metric, 95 % interval, and both in figures at the right.

    Rows of one group stand together below its heading; each heading makes the figure taller.

    Args:
        table: Its methods are named by their columns, or its rows by ``name``. Either ``value, low,
            high`` (rows of `evaluation.metrics`; another ``metric`` is left out) or ``<metric>,
            <metric>_low, <metric>_high`` (`reporting.results`); n, groups, group_kind. A ``status``
            that says so prints "weights not available".
        unit: Of an error: months.
        group: A column whose values are the headings. Without it, methods of 12 rows or more stand
            below where their weights come from, which is also what their colours say.
    """
    long = "metric" in table and "value" in table
    metric = evaluation.primary_among(table["metric"] if long else table)
    if not metric:
        raise ValueError(f"No metric to draw. The table has: {', '.join(map(str, table))}.")
    if long:
        table = table[(table["metric"] == metric) | table["value"].isna()]
    names, shades = _named(table)
    ends = ("value", "low", "high") if long else (metric, f"{metric}_low", f"{metric}_high")
    table = table.assign(_name=names, _shade=shades, _heading="")
    if group:
        table["_heading"] = table[group].astype(str)
    elif len(table) >= CROWDED and "name" not in table and set(evaluation.METHOD) <= set(table):
        table["_heading"] = origins(table)
    rows = []
    for heading, part in table.groupby("_heading", sort=False):
        if heading:
            own = "" if sample(part) in ("", sample(table)) else f" ({sample(part)})"
            rows.append(Row(f"{heading.replace('_', ' ')}{own}"))
        status = part["status"] if "status" in part else [""] * len(part)
        three = part[list(ends)].to_numpy(dtype=float)
        for name, shade, word, row in zip(
            part["_name"], part["_shade"], status, three, strict=True
        ):
            text = UNAVAILABLE if word == UNAVAILABLE else None
            rows.append(Row(name, row[None], text, shade))
    if ax is not None:  # of a figure that was made for the rows alone
        figure = ax.figure
        figure.set_figheight(figure.get_figheight() + PITCH * (len(rows) - len(table)))
    ax = blank_axes(ax, WIDTH, 0.85 + PITCH * len(rows))
    draw_rows(ax, rows, top=-0.75)
    mark_chance(ax, metric, word="" if rows and not len(rows[0].ends) else "chance")
    ax.set_xlabel(f"{metric}{f', {unit}' if unit else ''}")
    note(ax.figure, interval_kind(table), sample(table))
    if evaluation.chance(metric) is not None:
        note(ax.figure, "dashed: chance")
    return ax


def _named(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return what each row is called and its colour; rows that are no methods are blue."""
    named = set(evaluation.METHOD) <= set(table)
    if "name" in table:
        names = table["name"].astype(str).tolist()
    else:
        names = display_names(table).tolist() if named else table.index.astype(str).tolist()
    return names, colours(table) if named else [BLUE] * len(table)


def plot_subgroups(
    table: pd.DataFrame, *, gaps: Mapping[str, float] | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw the metric within each subgroup, below a heading for each column that makes groups.

    Args:
        table: Rows of `evaluation.subgroups` of one method, those of several columns one after the
            other (``pd.concat``). Those without a value are counted together, by why.
        gaps: By column, p of the test that its groups differ (`evaluation.gap`).
    """
    metric, rows = table["metric"].dropna().iloc[0], []
    for column in (c for c in table if c not in _MEASURED | set(evaluation.METHOD)):
        p = (gaps or {}).get(column, np.nan)
        told = f": test that groups differ, {p_value(p)}" if np.isfinite(p) else ""
        rows.append(Row(f"{column.replace('_', ' ')}{told}"))
        part = table[table[column].notna()]
        for row in part[part["value"].notna()].to_dict("records"):
            ends = np.array([[row["value"], row["low"], row["high"]]], dtype=float)
            positive = row.get("positives", pd.NA)
            counted = f"{row['n']:,}" + ("" if pd.isna(positive) else f", {positive:,} positive")
            rows.append(Row(str(row[column]), ends, f"{with_interval(*ends[0])}; n = {counted}"))
        for why, others in part[part["value"].isna()].groupby("note"):
            nothing = np.full((1, 3), np.nan)
            rows.append(
                Row(f"{len(others)} not scored", nothing, f"{why}; n = {others['n'].sum():,}")
            )
    ax = blank_axes(ax, WIDTH, 0.85 + PITCH * len(rows))
    draw_rows(ax, rows)
    mark_chance(ax, metric)
    ax.set_xlabel(metric)
    note(ax.figure, interval_kind(table), "n: images")
    return ax
