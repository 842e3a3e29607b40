"""What notebook 08 concludes: encoders on the same patients, readers, values, few labels."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bonelib import cohort, evaluation, figures, reporting
from bonelib.evaluation import METHOD, Method
from bonelib.experiments.bone_tasks.setup import HEADS, IMAGENET, WITH_SEX, Setup
from bonelib.experiments.context import AnyRun, keep, opened

REFERENCE = Path(__file__).parents[1] / "reference.csv"
KEY = ["task", "share", *METHOD]
DRAWS_A_ROW = 100  # Holm's correction multiplies p, which is never below 2 / (1 + draws)
READERS = ("reader I", "reader II")
ENDS = ["value", "low", "high"]


# ---------------------------------------------------------------------- how good is each encoder?
def _typed(predictions: pd.DataFrame, task: str) -> pd.DataFrame:
    """Give the labels of one task their own type: all tasks share a column of texts."""
    valued = cohort.task(task).kind == "regression"
    return predictions.astype({"label": float if valued else str})


def _all_labels(predictions: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return what was predicted of one task with all labels."""
    own = (predictions["task"] == task) & (predictions["share"] == 1)
    return _typed(predictions[own], task)


def _parts(predictions: pd.DataFrame) -> dict[tuple, list[pd.DataFrame]]:
    """Part predictions by task, share and method; each part has a table a draw of labels."""
    table = predictions.fillna(dict.fromkeys(METHOD, ""))
    return {
        key: [draw for _, draw in _typed(part, key[0]).groupby("seed")]
        for key, part in table.groupby(KEY, sort=False)
    }


def _metrics(task: str) -> tuple[str, ...]:
    """Name the primary metric of a task, and AUROC or MAE, which need no decision."""
    both = evaluation.threshold_free(task), evaluation.primary(task).metric
    return tuple(dict.fromkeys(both))


def scores(run: AnyRun, predictions: pd.DataFrame, *, draws: int) -> pd.DataFrame:
    """Score each method at each share of the labels, the mean over draws of labels.

    Returns:
        A row a task, share, method and metric (grades have kappa and AUROC): ``KEY``, ``images``
        (learnt from), metric, value, low, high (of patients and draws together), n, groups, ….
    """
    if run.finished:
        return run.table("scores")
    rows = []
    for key, parts in _parts(predictions).items():
        named = dict(zip(KEY, key, strict=True)) | {"images": parts[0]["images"].mean()}
        for metric in _metrics(key[0]):
            found = evaluation.repeated(parts, task=key[0], metric=metric, draws=draws)
            rows.append(named | found.to_dict())
    return keep(run, "scores", pd.DataFrame(rows, columns=None if rows else [*KEY, "metric"]))


def differences(
    run: AnyRun, setup: Setup, predictions: pd.DataFrame, *, draws: int
) -> pd.DataFrame:
    """Set ours beside each other encoder, metadata, and itself with the sex: the same patients.

    Ours is the first pretraining, else the ImageNet start. The metric needs no decision (AUROC, or
    MAE). Holm's correction counts every row: all tasks, shares, strategies and rivals.

    Returns:
        ``KEY`` of the rival, ``ours`` and ``rival`` (names for readers), metric, value (ours minus
        rival), low, high, p, ``p_holm``, n, groups, group_kind.
    """
    if run.finished:
        return run.table("differences")
    parts, rows = _parts(predictions), []
    every = max(draws, DRAWS_A_ROW * len(parts))
    for key, own in parts.items():
        task, share, method = key[0], key[1], Method(*key[2:])
        lead = (task, share, setup.lead.start, method.strategy, "image", setup.lead.detail)
        ours = (method.start, method.detail) == (setup.lead.start, setup.lead.detail)
        if key == lead or lead not in parts or (method.sees == WITH_SEX and not ours):
            continue
        told = dict(task=task, metric=evaluation.threshold_free(task), draws=every)
        found = evaluation.repeated(parts[lead], against=own, **told)
        names = map(figures.display_name, (Method(*lead[2:]), method))
        named = zip([*KEY, "ours", "rival"], [*key, *names], strict=True)
        rows.append(dict(named) | found.to_dict())
    table = pd.DataFrame(rows, columns=None if rows else [*KEY, "ours", "rival", "value"])
    if len(table):
        table["p_holm"] = evaluation.holm(table["p"].to_numpy())
    return keep(run, "differences", table)


def shown(scores: pd.DataFrame, differences: pd.DataFrame, *, share: float = 1.0) -> pd.DataFrame:
    """Return the scores at one share for readers, with what ours has over each, paired."""
    if scores.empty:
        return scores
    table, beside = scores[scores["share"] == share], [*KEY, "metric"]
    gains = differences.reindex(columns=[*beside, *ENDS, "p_holm"])
    table = table.merge(gains, on=beside, how="left", suffixes=("", "_gain"))
    gained = table[[f"{end}_gain" for end in ENDS]].to_numpy(float)
    out = table[["task"]].assign(method=figures.display_names(table), metric=table["metric"])
    out["score"] = [figures.with_interval(*row) for row in table[ENDS].to_numpy(float)]
    out["ours minus it"] = [
        "" if np.isnan(row[0]) else figures.with_interval(*row) for row in gained
    ]
    out["p (Holm)"] = ["" if np.isnan(p) else figures.number(p) for p in table["p_holm"]]
    return out.assign(n=table["n"].astype(int), groups=table["group_kind"])


def read_differences(setup: Setup, differences: pd.DataFrame) -> str:
    """Say what ours has over the ImageNet start, or that over a random one, by all labels."""
    start = "imagenet" if setup.lead.start == "captions" else "scratch"
    table = differences[(differences["share"] == 1) & (differences["start"] == start)]
    if table.empty:
        return "**Reading.** Nothing is compared."
    said = []
    for row in table.itertuples():
        gain = figures.with_interval(row.value, row.low, row.high)
        sure = "" if row.p_holm < 0.05 else ", no difference shown"
        unit = cohort.task(row.task).unit
        metric = f"{row.metric}{f' in {unit}' if unit else ''}"
        said.append(f"{row.task}, {metric}: *{row.ours}* minus *{row.rival}* {gain}{sure}")
    held = f"{(differences['p_holm'] < 0.05).sum()} of {len(differences)}"
    return (
        f"**Reading.** Comparisons that hold after Holm's correction: {held}. "
        f"{'; '.join(said)}. Of an error less is better."
    )


def reference(setup: Setup) -> pd.DataFrame:
    """Return scores that were computed before by other code on these sets, over all folds."""
    known = pd.read_csv(REFERENCE, keep_default_na=False)
    names = [task.name for task in setup.tasks]
    sets = setup.context.data.split("+")
    known = known[known["data"].isin(sets) & known["task"].isin(names)].reset_index(drop=True)
    return known.assign(method=figures.display_names(known)) if len(known) else known


def pooled(setup: Setup, predictions: pd.DataFrame) -> str:
    """Score binary tasks pooled by study, else by patient, at all labels: a Markdown table each."""
    said = []
    for task in (task for task in setup.tasks if task.kind == "binary"):
        own = _all_labels(predictions, task.name)
        table, told = reporting.pooled_scores(own, setup.view, task=task)
        said += [reporting.to_markdown(table)] if len(table) else []
        said.append(f"**Reading.** {task.name}: {told}")
    return "\n\n".join(said) or "**Reading.** No task has two classes."


def evidence(
    run: AnyRun, setup: Setup, predictions: pd.DataFrame, *, draws: int
) -> list[reporting.evidence.Evidence]:
    """Judge ours, by all labels, on each task."""
    found = []
    for task in setup.tasks:
        ours = replace(setup.lead, strategy=HEADS.get(task.kind, "probe"))
        told = dict(task=task, method=ours, opened=opened(run), draws=draws)
        own = _all_labels(predictions, task.name)
        found.append(reporting.evidence.judge(own, setup.view, **told))
    return found


# ---------------------------------------------------------------------- how many labels?
def read_labels(scores: pd.DataFrame) -> str:
    """Say for each task which encoder is best with the fewest and with all labels."""
    said = []
    image = scores[scores["sees"] == "image"]
    for task, part in image.groupby("task", sort=False):
        metric = evaluation.threshold_free(task)
        order = dict(ascending=evaluation.lower_is_better(metric), kind="stable")
        part = part[part["metric"] == metric].sort_values("value", **order)
        for share in sorted({part["share"].min(), part["share"].max()}):
            best = part[part["share"] == share].iloc[0]
            score = figures.with_interval(*best[ENDS])
            name = figures.display_names(best.to_frame().T).iloc[0]
            said.append(f"{task}, {share:.0%} ({best['images']:.0f} images): *{name}* {score}")
    return f"**Reading.** Best, {'; '.join(said)}." if said else "**Reading.** Nothing was learnt."


# ---------------------------------------------------------------------- do readers agree?
def readers(run: AnyRun, predictions: pd.DataFrame) -> pd.DataFrame:
    """Score grades against each reader, and one reader against the other: the ceiling.

    Returns:
        ``task, method, against, metric, value, low, high, n, groups, group_kind``; empty where no
        image has a second reader.
    """
    if run.finished:
        return run.table("readers")
    rows = []
    for task, own in run.table("second").groupby("task"):
        grades, metrics = own.set_index("image_id")["label"], _metrics(task)[::-1]
        table = _all_labels(predictions, task)
        table = table[table["image_id"].isin(grades.index)]
        relabelled = table.assign(label=table["image_id"].map(grades))
        asked = [
            (method, name, part, metrics)
            for name, labelled in zip(READERS, (table, relabelled), strict=True)
            for method, part in evaluation.by_method(labelled).items()
        ]
        other = evaluation.of_reader(asked[0][2], grades, task=task, name=READERS[1])
        reader = next(iter(evaluation.by_method(other)))
        for method, against, part, only in [*asked, (reader, READERS[0], other, metrics[:1])]:
            told = dict(task=task, method=figures.display_name(method), against=against)
            rows.append(evaluation.metrics(part, task=task, only=only).assign(**told))
    front = ["task", "method", "against", "metric", *ENDS, "n", "group_kind"]
    return keep(run, "readers", pd.concat(rows)[front] if rows else pd.DataFrame(columns=front))


def draw_readers(
    setup: Setup, run: AnyRun, predictions: pd.DataFrame, readers: pd.DataFrame
) -> plt.Figure | None:
    """Draw the grades of ours beside those of the second reader, both against the first."""
    if readers.empty:
        return None
    task, second = readers["task"].iloc[0], run.table("second")
    grades = second[second["task"] == task].set_index("image_id")["label"]
    own = evaluation.by_method(_all_labels(predictions, task))
    own = own[replace(setup.lead, strategy=HEADS["ordinal"])]
    own = own[own["image_id"].isin(grades.index)]
    other = evaluation.of_reader(own, grades, task=task, name=READERS[1])
    return figures.plot_readers(own, other, task=task, readers=READERS)


def read_readers(readers: pd.DataFrame) -> str:
    """Say how well the readers agree, and how well the best method agrees with the first."""
    if readers.empty:
        return "**Reading.** No image has the grades of two readers."
    kappa = readers[(readers["metric"] != "AUROC") & (readers["against"] == READERS[0])]
    kappa = kappa[kappa["task"] == kappa["task"].iloc[0]]
    between = kappa[kappa["method"] == READERS[1]].iloc[0]
    best = kappa[kappa["method"] != READERS[1]].sort_values("value").iloc[-1]
    return (
        f"**Reading.** {between['metric'].capitalize()} of the two readers: "
        f"{figures.with_interval(*between[ENDS])} on {int(between['n'])} images, the ceiling. The "
        f"best method, *{best['method']}*, reaches {figures.with_interval(*best[ENDS])} against "
        f"{READERS[0]}."
    )


# ---------------------------------------------------------------------- how far off are values?
def bland_altman(run: AnyRun, setup: Setup, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return bias and limits of agreement of every method that predicts values, by all labels."""
    if run.finished:
        return run.table("bland_altman")
    rows = [
        evaluation.bland_altman(part, task=task).assign(task=task.name, **method.columns())
        for task in setup.tasks
        if task.kind == "regression"
        for method, part in evaluation.by_method(_all_labels(predictions, task.name)).items()
    ]
    none = pd.DataFrame(columns=["task", *METHOD, "metric", *ENDS])
    return keep(run, "bland_altman", pd.concat(rows) if rows else none)


def draw_values(setup: Setup, predictions: pd.DataFrame, limits: pd.DataFrame) -> plt.Figure | None:
    """Draw differences against means for the ImageNet start and for ours, side by side."""
    if limits.empty:
        return None
    task = limits["task"].iloc[0]
    by_method = evaluation.by_method(_all_labels(predictions, task))
    methods = {method: by_method[method] for method in (IMAGENET, setup.lead)}
    return figures.plot_bland_altman(methods, limits[limits["task"] == task], task=task)


def read_values(limits: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Say how wide the limits of agreement are, and what the sex adds to ours by all labels."""
    if limits.empty:
        return "**Reading.** No task has values."
    limits = limits[limits["task"] == limits["task"].iloc[0]]
    wide = limits.pivot_table(index=[*METHOD], columns="metric", values="value", sort=False)
    width = (wide["upper limit"] - wide["lower limit"]).sort_values()
    best = Method(*width.index[0])
    unit = cohort.task(limits["task"].iloc[0]).unit
    said = (
        f"**Reading.** The narrowest limits of agreement are those of "
        f"*{figures.display_name(best)}*: {width.iloc[0]:.1f} {unit} apart."
    )
    beside = differences[(differences["sees"] == WITH_SEX) & (differences["share"] == 1)]
    for row in beside.itertuples():
        gain = figures.with_interval(row.value, row.low, row.high)
        said += f" {row.task}: *{row.ours}* minus *{row.rival}*, {row.metric} {gain}."
    return said
