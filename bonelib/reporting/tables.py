"""The results table: every method of every finished run, scored and printed.

The score that age, sex and site reach alone stands in the same table as every score of an image
model, or the table says that it is missing. Only the best row is bold, and only where the second
best is beaten beyond chance.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bonelib import evaluation, figures, runs

METRICS = ("AUROC", "AUPRC", "accuracy", "sensitivity", "specificity", "quadratic kappa", "MAE")
UNOPENED = "test labels not opened"
METADATA = "metadata"  # how the name of a baseline that sees no image begins
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "×": r"$\times$",
}


# ---------------------------------------------------------------------------- numbers
def scores(
    predictions: pd.DataFrame,
    *,
    task: Any,
    thresholds: Mapping[str, float] | float | None = None,
    draws: int = evaluation.DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Score every method of a predictions table, one row each in the order they are stored.

    Args:
        predictions: With a column ``method`` where it holds several.
        thresholds: Of each method (or of all), chosen on validation: adds sensitivity and
            specificity.

    Returns:
        method; ``AUROC, AUROC_low, AUROC_high`` and so on for AUPRC, accuracy and what else the
        task has; n, groups, group_kind, best (see the module), status.
    """
    task = evaluation.as_task(task)
    methods = _by_method(predictions)
    rows = []
    for name, table in methods.items():
        row: dict[str, Any] = {"method": name}
        if table["label"].isna().all():
            rows.append(row | {"n": len(table), "best": False, "status": UNOPENED})
            continue
        cut = thresholds.get(name) if isinstance(thresholds, Mapping) else thresholds
        found = evaluation.metrics(table, task=task, threshold=cut, draws=draws, seed=seed)
        for entry in found[found["metric"].isin(METRICS)].itertuples():
            metric = entry.metric
            row |= {metric: entry.value, f"{metric}_low": entry.low, f"{metric}_high": entry.high}
        row |= found.loc[0, ["n", "groups", "group_kind"]].to_dict()
        rows.append(row | {"best": False, "status": ""})
    out = pd.DataFrame(rows)
    winner = _clear_winner(out, methods, task=task, draws=draws, seed=seed)
    out.loc[out["method"] == winner, "best"] = True
    return out


def _by_method(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    if "method" not in predictions:
        return {"": predictions}
    return {str(name): t for name, t in predictions.groupby("method", sort=False)}


def _clear_winner(
    table: pd.DataFrame, methods: dict[str, pd.DataFrame], *, task: Any, draws: int, seed: int
) -> str | None:
    """Name the best method if the interval of its lead over the second best excludes zero."""
    lower = task.kind == "regression"  # an error is better when it is smaller
    metric = "MAE" if lower else "AUROC"
    if metric not in table or table[metric].notna().sum() < 2:
        return None
    ranked = table.dropna(subset=[metric]).sort_values(metric, ascending=lower, kind="stable")
    first, second = ranked["method"].iloc[:2]
    images = [set(methods[name].dropna(subset=["label"])["image_id"]) for name in (first, second)]
    if images[0] != images[1]:
        return None  # a lead on other images is no lead
    lead = evaluation.compare(methods[first], methods[second], task=task, draws=draws, seed=seed)
    return first if (lead["high"] < 0 if lower else lead["low"] > 0) else None


def results(
    *, profile: str, data: str, task: str, draws: int = evaluation.DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Recompute the scores of every finished run that is not stale, one row per method and run.

    Methods whose weights were not available stand as rows without numbers. Test sets differ
    between stages, so ``best`` is decided within a run.

    Returns:
        stage, method, label ("zero-shot", "label-supervised text" or empty), variant, seed, the
        columns of `scores`, openings (how often the run read test labels) and run.

    Raises:
        ValueError: There is no such run; the message says which notebooks make one.
    """
    records = runs.collect(profile=profile, data=data)
    if len(records):
        records = records[(records["task"] == task) & ~records["stale"].astype(bool)]
    frames = []
    for entry in records.itertuples():
        path = runs.folder() / entry.run
        if not (path / "predictions.parquet").exists():
            continue
        record = json.loads((path / "record.json").read_text())
        run, notes = runs.Run(path, record, finished=True), record["notes"]
        thresholds = notes.get("thresholds", notes.get("threshold"))
        frame = scores(
            run.table("predictions"), task=task, thresholds=thresholds, draws=draws, seed=seed
        )
        frame["method"] = frame["method"].replace("", record["variant"])
        missing = pd.DataFrame({"method": list(notes.get("unavailable") or ())}, dtype="str")
        frame = pd.concat([frame, missing.assign(status=figures.UNAVAILABLE, best=False)])
        blind = frame["method"].str.lower().str.startswith(METADATA)
        frame["label"] = np.where(blind, "", notes.get("zero_shot") or "")
        for column in ("stage", "variant", "seed"):
            frame[column] = record[column]
        frames.append(frame.assign(openings=entry.openings, run=entry.run))
    if not frames:
        raise ValueError(
            f"No finished run with predictions for PROFILE={profile!r}, DATA={data!r}, "
            f"TASK={task!r}. Run notebooks 02, 05 and 06 first: "
            f"bonelib run 02 05 06 --profile {profile} -p DATA {data} -p TASK {task}"
        )
    stages = list(runs.NOTEBOOKS)
    frames.sort(key=lambda f: (stages.index(f["stage"].iloc[0]), f["variant"].iloc[0]))
    out = pd.concat(frames, ignore_index=True)
    front = ["stage", "method", "label", "variant", "seed"]
    return out[[*front, *out.columns.drop([*front, "openings", "run"]), "openings", "run"]]


# ---------------------------------------------------------------------------- print
def _printed(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Format the cells as plain text, and the notes that stand below."""
    shown: dict[str, list[str]] = {}
    stage = table["stage"].str.replace("_", "-") if "stage" in table else None
    if stage is not None:
        shown["stage"] = stage.where(stage != stage.shift(), "").tolist()  # named once
    shown["method"] = [str(name) for name in table["method"]]
    for column in ("variant", "seed"):  # said only where they tell rows apart
        if column in table and table[column].nunique() > 1:
            shown[column] = table[column].astype(str).tolist()
    kind = next((c for c in ("label", "kind") if c in table), None)
    if kind and table[kind].fillna("").ne("").any():
        shown["kind"] = table[kind].fillna("").tolist()
    present = [m for m in METRICS if m in table]
    for metric in present:
        three = table[[metric, f"{metric}_low", f"{metric}_high"]].to_numpy(dtype=float)
        shown[metric] = [figures.with_interval(*row) for row in three]
    if "status" in table and present:
        status = table["status"].fillna("").tolist()
        for row, words in enumerate(status):
            if words:
                shown[present[0]][row] = words
    if "n" in table:
        number = pd.to_numeric(table["n"])
        shown["n"] = [f"{n:,.0f}" if pd.notna(n) else "–" for n in number]
    if "openings" in table:
        shown["openings"] = [f"{n:.0f}" for n in table["openings"]]
    return pd.DataFrame(shown), _notes(table)


def _notes(table: pd.DataFrame) -> list[str]:
    notes = []
    if "groups" in table and table["groups"].notna().any():
        for _, rows in table.dropna(subset=["groups"]).groupby("group_kind", sort=False):
            notes.append(f"{figures.interval_kind(rows)}; {figures.sample(rows)}.")
    headline = _headline(table)
    if headline and (table[headline].notna() & table[f"{headline}_low"].isna()).any():
        notes.append("Without brackets: no draw differed from the value, so there is no interval.")
    if "best" in table and table["best"].eq(True).any():
        notes.append("Bold: ahead of the second best on the same images, interval of the lead > 0.")
    named = table["method"].astype(str).str.lower()
    if not named.str.startswith(METADATA).any():
        notes.append("Missing: the score of age, sex and site alone; without it no gain is shown.")
    if "openings" in table:
        notes.append("Openings: how often the run has read test labels.")
    return notes


def _bold(table: pd.DataFrame) -> list[bool]:
    return table["best"].eq(True).tolist() if "best" in table else [False] * len(table)


def _headline(printed: pd.DataFrame) -> str | None:
    return next((m for m in ("AUROC", "MAE") if m in printed), None)


def to_markdown(table: pd.DataFrame) -> str:
    """Write a table of `scores` or `results` as Markdown, with notes on n and intervals below."""
    printed, notes = _printed(table)
    headline = _headline(printed)
    printed = printed.map(lambda text: str(text).replace("|", "\\|"))
    for row, best in enumerate(_bold(table)):
        if best and headline:
            value, _, rest = printed.loc[row, headline].partition(" ")
            printed.loc[row, headline] = f"**{value}** {rest}".strip()
    left = {"stage", "method", "variant", "kind"}
    rule = [":--" if c in left else "--:" for c in printed]
    lines = [list(printed.columns), rule, *printed.to_numpy().tolist()]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return text + "\n\n" + "  \n".join(notes) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    r"""Write the same table as a booktabs ``tabular``; needs ``\usepackage{booktabs}``."""
    printed, notes = _printed(table)
    headline = _headline(printed)
    escaped = printed.map(_escape)
    left = {"stage", "method", "variant", "kind"}
    body = []
    for row, best in enumerate(_bold(table)):
        cells = escaped.iloc[row].tolist()
        if best and headline:
            place = escaped.columns.get_loc(headline)
            value, _, rest = cells[place].partition(" ")
            cells[place] = f"\\textbf{{{value}}} {rest}".strip()
        if row and "stage" in escaped and escaped["stage"].iloc[row]:
            body.append(r"\addlinespace")
        body.append(" & ".join(cells) + r" \\")
    head = " & ".join(_escape(c) for c in printed) + r" \\"
    width = len(printed.columns)
    foot = [rf"\multicolumn{{{width}}}{{l}}{{\footnotesize {_escape(n)}}} \\" for n in notes]
    columns = "".join("l" if c in left else "r" for c in printed)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body]
    lines += [r"\bottomrule", *foot, r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _escape(text: Any) -> str:
    return "".join(_LATEX.get(c, c) for c in str(text)).replace(">", "$>$")
