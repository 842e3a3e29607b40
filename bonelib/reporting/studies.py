"""What studies found, as a small table that is kept in git and printed in the documentation.

The gains of recipes come in, see `recipes`; rows that name the command which made their runs go
out, and Markdown tables made of such rows. Runs are large and stay where they were made; these rows
are what a reader without them can check. Nothing is written here.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bonelib import evaluation, figures
from bonelib.reporting.printing import Printed

START = "start"  # the pretrained tower as it came
COLUMNS = (
    *("recipe", "compared_to", "split_seed", "seed", "task", "in_captions", "metric"),
    *("gain", "low", "high", "n", "command"),
)


def study_rows(
    recipes: pd.DataFrame, *, command: str, compared_to: Sequence[str] = (START,)
) -> pd.DataFrame:
    """Return what each recipe gains, at all training labels.

    Args:
        recipes: What `recipes` returned.
        command: The command that made their runs.
        compared_to: ``start``, or the recipe that ``recipes`` was asked to compare with.

    Returns:
        A row a recipe, comparison and task with the columns ``COLUMNS``. ``gain`` is AUROC more or
        MAE less: a positive one is better for any metric.
    """
    whole = recipes[recipes["share"] == recipes["share"].max()] if len(recipes) else recipes
    parts = []
    for name in compared_to:
        column = "gain" if name == START else f"over {name}"
        if column not in whole:
            continue
        rows = whole.dropna(subset=[column])
        sign = np.where(rows["metric"].map(evaluation.lower_is_better), -1.0, 1.0)
        ends = rows[[f"{column}_low", f"{column}_high"]].to_numpy() * sign[:, None]
        low, high = np.sort(ends, axis=1).T
        made = dict(compared_to=name, gain=rows[column] * sign, low=low, high=high)
        parts.append(rows.assign(**made, command=command)[list(COLUMNS)])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def study_table(rows: pd.DataFrame) -> str:
    """Write rows of `study_rows` as Markdown: a line a recipe, comparison, folds and seed.

    Lines stand in the order of the rows, and tasks that no caption names come first. A comparison
    that is the same everywhere is left out.
    """
    keys = ["recipe", "compared_to", "split_seed", "seed"]
    names = {"recipe": "recipe", "compared_to": "compared with"}
    names |= {"split_seed": "folds' seed", "seed": "training seed"}
    shown = [k for k in keys if k != "compared_to" or rows[k].nunique() > 1]
    said = rows.groupby("task")["in_captions"].transform("any")  # by any of the recipes
    tasks = rows.assign(in_captions=said).drop_duplicates("task")
    tasks = tasks.sort_values(["in_captions", "task"])
    heads = {row.task: _head(row) for row in tasks.itertuples()}
    lines = []
    for key, part in rows.groupby(keys, sort=False):
        cells = {row.task: _cell(row) for row in part.itertuples()}
        front = dict(zip(keys, [f"`{name}`" for name in key[:2]] + [*key[2:]], strict=True))
        line = {names[k]: front[k] for k in shown}
        lines.append(line | {head: cells.get(task, "–") for task, head in heads.items()})
    words = [names[k] for k in shown if "seed" not in k]
    columns = [*(names[k] for k in shown), *heads.values()]
    return Printed(pd.DataFrame(lines, columns=columns), words=words).markdown().rstrip()


def with_table(text: str, name: str, table: str) -> str:
    """Return a page with a table between its two markers, ``<!-- results: name -->`` and ``end``.

    Raises:
        ValueError: The markers are not there, or there more than once.
    """
    begin, end = f"<!-- results: {name} -->", f"<!-- end of results: {name} -->"
    if (text.count(begin), text.count(end)) != (1, 1):
        raise ValueError(f"The page needs the lines {begin} and {end} once each.")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", text)


def _head(row: tuple) -> str:
    task = evaluation.as_task(row.task)
    unit = f"{task.unit} less" if evaluation.lower_is_better(row.metric) else f"{row.metric} more"
    return f"{task.name}, {'in' if row.in_captions else 'not in'} the captions ({unit})"


def _cell(row: tuple) -> str:
    """Write ``+.021 [-.002, .046]``; of months one decimal."""
    three = (row.gain, row.low, row.high)
    if evaluation.lower_is_better(row.metric):
        gain, low, high = (f"{value:.1f}" for value in three)
        text = f"{gain} [{low}, {high}]"
    else:
        text = figures.with_interval(*three)
    return text if text.startswith("-") or not round(row.gain, 3) else f"+{text}"
