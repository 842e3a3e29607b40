"""Tables of a thesis, recomputed from the predictions that runs have stored.

Records and predictions come in; frames, Markdown and LaTeX go out, nothing is written. No number is
copied from a record: a metric that can't be recomputed is not printed. The score that age, sex and
site reach alone stands in the same table as every score of an image model, or the table says that
it is missing. Only the best row is bold, and only where the second best is beaten beyond chance.
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
def recipes(*, profile: str, judged: str = "test", beside: str = "published") -> pd.DataFrame:
    """Compare the pretraining recipes of a profile on frozen probes, folds pooled.

    Runs of one recipe, data set and seed count together: each image was held out by the run of its
    fold. A gain is over the starting tower, probed by the same code in the same folds.

    Args:
        judged: ``test``: runs judged once on their test sets; ``val``: runs to choose a recipe by.
        beside: The recipe that every other is compared with, on the images both have.

    Returns:
        data, seed, recipe, task, share (of the training labels), in_captions (the captions named
        the label), folds, minutes (CPU time of a pretraining), metric, value, low, high; ``gain``
        and ``over <beside>``, each with ``_low``, ``_high`` and ``_p``; n, groups, group_kind.
        Empty where no such run is finished.
    """
    pooled, minutes = _judged(profile, judged)
    rows = []
    for (data, seed, recipe), whole in pooled.items():
        rival = pooled.get((data, seed, beside)) if recipe != beside else None
        for (task, share), some in whole.groupby(["task", "share"], sort=False):
            metric = "MAE" if evaluation.as_task(task).kind == "regression" else "AUROC"
            two = dict(tuple(_valued(some, metric).groupby("method")))
            found = evaluation.metrics(two[recipe], task=task, only=(metric,)).iloc[0]
            row = {"data": data, "seed": seed, "recipe": recipe, "task": task, "share": share}
            row |= {"in_captions": bool(some["in_captions"].iloc[0])}
            row |= {"folds": some["test"].nunique(), "minutes": minutes[data, seed, recipe]}
            row |= found[["metric", "value", "low", "high"]].to_dict()
            row |= _lead("gain", two[recipe], two["start"], task)
            if rival is not None:
                other = rival[(rival["task"] == task) & (rival["share"] == share)]
                other = _valued(other[other["method"] == beside], metric)
                row |= _lead(f"over {beside}", two[recipe], other, task)
            rows.append(row | found[["n", "groups", "group_kind"]].to_dict())
    return pd.DataFrame(rows)


def choice(recipes: pd.DataFrame, *, beside: str = "published") -> pd.DataFrame:
    """Rank recipes by what they take off another's error, the mean over tasks at all labels.

    The error is 1 - AUROC, or the MAE. Tasks count alike, however many images they have.

    Args:
        recipes: What `recipes` returned, of one data set and seed.

    Returns:
        Index: recipe, the best first. Columns: ``error removed`` (the mean of the tasks; 0.1 is a
        tenth of the other's error; NaN where the other was not tried), one column a task with its
        value, ``minutes``.
    """
    full = recipes[recipes["share"] == recipes["share"].max()]
    values = full.pivot_table(index="recipe", columns="task", values="value", sort=False)
    metric = full.drop_duplicates("task").set_index("task")["metric"]
    errors = values.apply(lambda c: c if metric[c.name] == "MAE" else 1 - c)
    removed = (1 - errors / errors.reindex([beside]).iloc[0]).mean(axis=1)
    out = values.assign(minutes=full.groupby("recipe")["minutes"].first())
    out.insert(0, "error removed", removed)
    return out.sort_values("error removed", ascending=False)


def contrasts(recipes: pd.DataFrame, *, of: str = "ours") -> pd.DataFrame:
    """Say by how much one recipe is better than each other, and whether chance can be excluded.

    Args:
        recipes: What `recipes` returned with ``beside`` set to this recipe.

    Returns:
        data, seed, task, share, in_captions, control, metric; ``better`` with ``low, high``
        (AUROC more, or months less), ``p``, ``p_holm`` (over all rows of a data set, seed and
        share), ``verdict`` (better, worse, no difference shown), n.
    """
    column = f"over {of}"
    if column not in recipes:
        return pd.DataFrame()
    rows = recipes.dropna(subset=[column])
    sign = np.where(rows["metric"] == "MAE", 1.0, -1.0)
    ends = np.sort(rows[[f"{column}_low", f"{column}_high"]].to_numpy() * sign[:, None], axis=1)
    out = rows[["data", "seed", "task", "share", "in_captions", "recipe", "metric"]]
    out = out.rename(columns={"recipe": "control"}).assign(
        better=rows[column] * sign, low=ends[:, 0], high=ends[:, 1], p=rows[f"{column}_p"]
    )
    family = out.groupby(["data", "seed", "share"])["p"]
    out["p_holm"] = family.transform(lambda p: evaluation.holm(p.to_numpy()))
    words = np.select([out["low"] > 0, out["high"] < 0], ["better", "worse"], "no difference shown")
    return out.assign(verdict=words, n=rows["n"])


def _judged(profile: str, judged: str) -> tuple[dict[tuple, pd.DataFrame], dict[tuple, float]]:
    """Return probe predictions and mean CPU minutes by (data, seed, recipe), folds together."""
    pooled: dict[tuple, list[pd.DataFrame]] = {}
    spent: dict[tuple, list[float]] = {}
    made = runs.collect(profile=profile)
    if len(made):
        probe = made.get("settings.probe", pd.Series(index=made.index, dtype=object))
        mine = (made["stage"] == "pretraining") & (probe == judged) & ~made["stale"].astype(bool)
        made = made[mine]
    for row in made.to_dict("records"):
        place = dict(data=row["data"], seed=row["seed"], variant=row["variant"])
        run = runs.find("pretraining", profile=profile, **place)
        key = (row["data"], row["seed"], run.settings["recipe_name"])
        pooled.setdefault(key, []).append(run.table("probes").assign(test=run.settings["test"]))
        history = run.table("history")
        spent.setdefault(key, []).append(history.get("cpu_seconds", pd.Series(dtype=float)).sum())
    same = ["test", "task", "share", "method", "image_id"]
    return (
        {key: pd.concat(parts).drop_duplicates(same) for key, parts in pooled.items()},
        {key: float(np.mean(seconds)) / 60 for key, seconds in spent.items()},
    )


def _valued(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Keep the labelled rows; labels of all tasks are stored as text."""
    return table.dropna(subset=["label"]).astype({"label": float if metric == "MAE" else str})


def _lead(name: str, first: pd.DataFrame, second: pd.DataFrame, task: str) -> dict[str, float]:
    """Compare on the images both have; nothing where they share none."""
    both = set(first["image_id"]) & set(second["image_id"])
    if not both:
        return {}
    first, second = (t[t["image_id"].isin(both)] for t in (first, second))
    found = evaluation.compare(first, second, task=task)
    return {name: found["value"]} | {f"{name}_{k}": found[k] for k in ("low", "high", "p")}


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
