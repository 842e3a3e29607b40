"""The results table: every method of every finished run, scored and printed.

The score that age, sex and site reach alone stands in the same table as every score of an image
model, or the table says that it is missing. Only the best row is bold, and only where the second
best is beaten beyond chance.
"""

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from bonelib import captions, evaluation, figures, runs
from bonelib.evaluation import METHOD, Method
from bonelib.reporting.printing import Printed

METRICS = ("AUROC", "AUPRC", "accuracy", "sensitivity", "specificity", "quadratic kappa", "MAE")
# What stands in one table each, as one of all metrics is too wide for a page.
PARTS = {
    "ranking": ("AUROC", "AUPRC", "accuracy", "quadratic kappa", "MAE"),
    "operating point": (
        *("balanced accuracy", "sensitivity", "specificity", "F1", "MCC"),
        evaluation.AT_90,
    ),
    "calibration": ("Brier", "ECE", "calibration slope", "calibration intercept"),
}
SCORED = tuple(dict.fromkeys((*METRICS, *(metric for part in PARTS.values() for metric in part))))
WORDS = ("stage", "method", "variant", "kind")  # columns of a printed table that hold no number
UNOPENED = "test labels not opened"
THRESHOLD = "threshold"  # column of predictions: from which probability an image is positive


# ---------------------------------------------------------------------------- numbers
def scores(
    predictions: pd.DataFrame,
    *,
    task: Any,
    caption_fields: Sequence[str] | None = None,
    unavailable: Collection[Method] = (),
    draws: int = evaluation.DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Score every method of a predictions table, one row each in the order they are stored.

    Args:
        predictions: With the columns of methods. A column ``threshold``, chosen on validation, adds
            sensitivity and specificity for the methods that have one.
        caption_fields: What the captions of the pretraining named: says whether prompts may be
            called zero-shot (contract 9).
        unavailable: Methods whose weights were not there: rows without numbers at the end.

    Returns:
        start, strategy, sees, detail; ``method``, their name for readers; ``label`` with
        ``caption_fields``; ``AUROC, AUROC_low, AUROC_high`` and so on for AUPRC, accuracy and what
        else the task has; n, groups, group_kind, best (see the module), status.

    Raises:
        ValueError: A fusion without the score of its metadata beside it; see
            ``evaluation.refuse_unaccompanied``.
    """
    task = evaluation.as_task(task)
    evaluation.refuse_unaccompanied(predictions)
    methods = evaluation.by_method(predictions)
    rows = []
    for method, table in methods.items():
        row: dict[str, Any] = _heading(method, caption_fields)
        if table["label"].isna().all():
            rows.append(row | {"n": len(table), "best": False, "status": UNOPENED})
            continue
        cut = table[THRESHOLD].iloc[0] if THRESHOLD in table else None
        cut = None if pd.isna(cut) else float(cut)
        found = evaluation.metrics(table, task=task, threshold=cut, draws=draws, seed=seed)
        for entry in found[found["metric"].isin(SCORED)].itertuples():
            metric = entry.metric
            row |= {metric: entry.value, f"{metric}_low": entry.low, f"{metric}_high": entry.high}
        row |= found.loc[0, ["n", "groups", "group_kind"]].to_dict()
        rows.append(row | {"best": False, "status": ""})
    out = pd.DataFrame(rows)
    winner = _clear_winner(out, list(methods.values()), task=task, draws=draws, seed=seed)
    if winner is not None:
        out.loc[winner, "best"] = True
    missing = pd.DataFrame([_heading(method, caption_fields) for method in unavailable])
    missing = missing.assign(best=False, status=figures.UNAVAILABLE)
    return pd.concat([out, missing], ignore_index=True) if len(missing) else out


def pooled_scores(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    *,
    task: Any,
    validation: pd.DataFrame | None = None,
    how: str = "probabilities",
    **options: Any,
) -> tuple[pd.DataFrame, str]:
    """Score the same predictions pooled by study (else patient), to stand beside `scores`.

    A threshold for single images is none for means of several. It is chosen again on pooled
    ``validation``; without that, the pooled rows have none.

    Args:
        predictions: Opened, with the columns of methods, of one task.
        table: The cohort, which says whose each image is.
        validation: Predictions of validation images by the same methods.
        how: See ``evaluation.pool``.
        options: Of `scores`.

    Returns:
        The table of `scores` with ``per``, the unit that ``n`` counts, and a sentence on what was
        pooled; an empty table where there is nothing to pool.
    """
    units, said = evaluation.units(table, predictions)
    if units.empty:
        return pd.DataFrame(), said
    pooled = evaluation.pool(predictions, units, how=how).drop(columns=THRESHOLD, errors="ignore")
    if validation is not None and evaluation.as_task(task).positive:
        of, _ = evaluation.units(table, validation)
        own = evaluation.pool(validation, of, how=how) if len(of) else validation
        cuts = {
            method: evaluation.choose_threshold(rows, task=task)
            for method, rows in evaluation.by_method(own).items()
        }
        parts = evaluation.by_method(pooled).items()
        pooled = pd.concat(
            [rows.assign(**{THRESHOLD: cuts.get(method, pd.NA)}) for method, rows in parts]
        )
    return scores(pooled, task=task, **options).assign(per=units.name), said


def fusion_gains(
    predictions: pd.DataFrame, *, task: Any, draws: int = evaluation.DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Compare each fusion of images and metadata with either part alone, on the same images.

    The image alone is the method of the same start that sees the image, its probe where there is
    one; every method that sees metadata alone is compared.

    Returns:
        ``fusion, part`` (names for readers), ``alone`` (the part's score), metric, value (fusion
        minus part), low, high, p, n; empty where nothing is fused.

    Raises:
        ValueError: See ``evaluation.refuse_unaccompanied``.
    """
    evaluation.refuse_unaccompanied(predictions)
    tables, rows = evaluation.by_method(predictions), []
    for fusion, table in tables.items():
        if not {"metadata"} < set(fusion.sees.split("+")):
            continue
        beside = [m for m in tables if m.sees == "image" and m.start == fusion.start]
        beside = [m for m in beside if m.strategy == "probe"] or beside
        for part in (*beside, *(m for m in tables if m.sees == "metadata")):
            found = evaluation.compare(table, tables[part], task=task, draws=draws, seed=seed)
            named = {"fusion": figures.display_name(fusion), "part": figures.display_name(part)}
            alone = {"alone": evaluation.score(tables[part], evaluation.as_task(task))}
            rows.append(named | alone | found.to_dict())
    return pd.DataFrame(rows)


def _heading(method: Method, caption_fields: Sequence[str] | None) -> dict[str, Any]:
    heading = method.columns() | {"method": figures.display_name(method)}
    if caption_fields is None:
        return heading
    kind = captions.supervision(caption_fields) if method.strategy == "prompt" else ""
    return heading | {"label": kind}


def _clear_winner(
    table: pd.DataFrame, methods: list[pd.DataFrame], *, task: Any, draws: int, seed: int
) -> int | None:
    """Return the row of the best method if its lead over the second best excludes zero."""
    metric, lower, _ = evaluation.primary(task)
    if metric not in table or table[metric].notna().sum() < 2:
        return None
    ranked = table.dropna(subset=[metric]).sort_values(metric, ascending=lower, kind="stable")
    first, second = ranked.index[:2]
    images = [set(methods[row].dropna(subset=["label"])["image_id"]) for row in (first, second)]
    if images[0] != images[1]:
        return None  # a lead on other images is no lead
    lead = evaluation.compare(methods[first], methods[second], task=task, draws=draws, seed=seed)
    return first if (lead["high"] < 0 if lower else lead["low"] > 0) else None


def refuse_unnamed(table: pd.DataFrame, run: runs.Run, stage: str) -> None:
    """Refuse predictions that were stored before they said what their methods are.

    Raises:
        ValueError: Columns of a method are missing; the message names the notebook to run again.
    """
    if not set(METHOD) <= set(table):
        number = runs.NOTEBOOKS[stage]
        raise ValueError(
            f"The predictions of {run.name} don't say what their methods are: they lack the "
            f"columns {', '.join(METHOD)} and were made by an older version. Run notebook {number} "
            f"again: bonelib run {number}"
        )


def results(
    *,
    profile: str,
    data: str,
    task: str,
    root: str = "",
    draws: int = evaluation.DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Recompute the scores of every finished run that is not stale, one row per method and run.

    Methods whose weights were not available stand as rows without numbers. Test sets differ
    between stages, so ``best`` is decided within a run.

    Args:
        root: The folder of the data, where it is not in ``BONELIB_DATA``.

    Returns:
        stage, method, label ("zero-shot", "label-supervised text" or empty), variant, seed, the
        columns of `scores`, openings (how often the run read test labels) and run.

    Raises:
        ValueError: There is no such run, or one that does not say what its methods are; the message
            says which notebooks to run.
    """
    records = runs.collect(profile=profile, data=data, root=root)
    if len(records):
        records = records[(records["task"] == task) & ~records["stale"].astype(bool)]
    frames = []
    for entry in records.itertuples():
        path = runs.folder() / entry.run
        if not (path / "predictions.parquet").exists():
            continue
        run = runs.Record(path)
        record, notes = run.head, run.notes
        predictions = run.table("predictions")
        refuse_unnamed(predictions, run, record["stage"])
        # A prompt whose captions are not recorded may have been told the label.
        fields = notes.get("caption_fields", (captions.OWN,))
        missing = [Method(**entry["method"]) for entry in notes.get("unavailable") or ()]
        options = {"caption_fields": fields, "unavailable": missing}
        frame = scores(predictions, task=task, draws=draws, seed=seed, **options)
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
    front = ["stage", "method", "label", "variant", "seed", *METHOD]
    return out[[*front, *out.columns.drop([*front, "openings", "run"]), "openings", "run"]]


# ---------------------------------------------------------------------------- print
def _printed(table: pd.DataFrame, of: str) -> tuple[pd.DataFrame, list[str]]:
    """Format the cells as plain text, and the notes that stand below."""
    shown: dict[str, list[str]] = {}
    stage = table["stage"].str.replace("_", "-") if "stage" in table else None
    if stage is not None:
        shown["stage"] = stage.where(stage != stage.shift(), "").tolist()  # named once
    shown["method"] = figures.display_names(table).tolist()
    for column in ("variant", "seed"):  # said only where they tell rows apart
        if column in table and table[column].nunique() > 1:
            shown[column] = table[column].astype(str).tolist()
    kind = next((c for c in ("label", "kind") if c in table), None)
    if not of and kind and table[kind].fillna("").ne("").any():
        shown["kind"] = table[kind].fillna("").tolist()
    present = [m for m in PARTS.get(of, METRICS) if m in table and table[m].notna().any()]
    for metric in present:
        three = table[[metric, f"{metric}_low", f"{metric}_high"]].to_numpy(dtype=float)
        told = [figures.with_interval(*row) if row[0] == row[0] else "–" for row in three]
        shown[metric] = told
    if "status" in table and present:
        status = table["status"].fillna("").tolist()
        for row, words in enumerate(status):
            if words:
                shown[present[0]][row] = words
    counted = of in ("", "ranking")  # told once
    if "n" in table and counted:
        number = pd.to_numeric(table["n"])
        shown["n"] = [f"{n:,.0f}" if pd.notna(n) else "–" for n in number]
    if "openings" in table and counted:
        shown["openings"] = [f"{n:.0f}" for n in table["openings"]]
    return pd.DataFrame(shown), _notes(table, present)


def _notes(table: pd.DataFrame, present: Collection[str]) -> list[str]:
    notes = []
    if "groups" in table and table["groups"].notna().any():
        for _, rows in table.dropna(subset=["groups"]).groupby("group_kind", sort=False):
            notes.append(f"{figures.interval_kind(rows)}; {figures.sample(rows)}.")
    headline = evaluation.primary_among(table)
    if headline and (table[headline].notna() & table[f"{headline}_low"].isna()).any():
        notes.append("Without brackets: no draw differed from the value, so there is no interval.")
    if headline in present and "best" in table and table["best"].eq(True).any():
        notes.append("Bold: ahead of the second best on the same images, interval of the lead > 0.")
    if not table["sees"].eq("metadata").any():
        notes.append("Missing: the score of age, sex and site alone; without it no gain is shown.")
    if "openings" in table and headline in present:
        notes.append("Openings: how often the run has read test labels.")
    return notes


def _form(table: pd.DataFrame, of: str) -> Printed:
    if of:  # what has none of its numbers, no threshold say, is no row of it
        table = table[table.reindex(columns=PARTS[of]).notna().any(axis=1)]
    printed, notes = _printed(table, of)
    headline = evaluation.primary_among(printed)
    best = table["best"].eq(True).tolist() if "best" in table else []
    bold = [(row, headline) for row, first in enumerate(best) if first and headline]
    options = dict(part="stage" if "stage" in printed else "", widths={"method": 0.27})
    return Printed(printed, words=WORDS, notes=notes, bold=bold, **options)


def to_markdown(table: pd.DataFrame, *, of: str = "") -> str:
    """Write a table of `scores` or `results` as Markdown, with notes on n and intervals below.

    Args:
        of: One of ``PARTS``, where all metrics are too many for a page.
    """
    return _form(table, of).markdown()


def to_latex(table: pd.DataFrame, *, of: str = "", caption: str = "", label: str = "") -> str:
    r"""Write the same table as a booktabs ``tabular``; needs ``\usepackage{booktabs}``.

    Args:
        caption: With one, as a ``longtable``; see ``Printed.latex``.
    """
    return _form(table, of).latex(caption=caption, label=label)
