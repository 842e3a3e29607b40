"""What has been reported: scores of papers, and which of them may be set beside ours.

``literature.csv`` (a row a score), ``methods.csv`` (a row a method) and ``references.bib`` come in;
checked tables, a chart beside a run's own scores and sentences go out. The files lie beside the
notebooks, since they grow with the reading; an installed package carries a copy of them.
``docs/literature.md`` explains their columns.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pandas as pd

from bonelib import cohort, datasets, evaluation, figures, runs, tables
from bonelib.evaluation import methods as known_methods
from bonelib.experiments import settings
from bonelib.experiments.context import Context
from bonelib.experiments.settings.checking import Shaped, faults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES, METHODS, REFERENCES = "literature.csv", "methods.csv", "references.bib"
COLUMNS = ("key", "paper", "year", "method", "sees", "task", "data", "cohort", "n", "unit", "split")
COLUMNS += ("test", "grouped", "metric", "value", "low", "high", "source", "verified")
COLUMNS += ("comparable", "why")
METHOD_COLUMNS = ("name", "key", "idea", "loss", "data", "runs", "kind", "here", "where", "why")
HEADLINE = "malignancy"
ABOUT_TUMORS = ("tumor", "entity", HEADLINE)  # whose chart shows the headline task too
# What papers score besides the tasks of this project.
OTHER_TASKS = ("site", "view", "localisation", "segmentation", "grade", "retrieval", "few-shot")
OTHER_TASKS += ("deidentification", "chest", "breast", "histology", "natural images")
# The range of each metric; macro, micro, mean or the name of a class may stand beside it.
RANGES = dict.fromkeys(("accuracy gain", "AUROC gain", "Cohen's kappa", "quadratic kappa"), (-1, 1))
RANGES |= dict.fromkeys(("AUROC", "AUPRC", "balanced accuracy", "accuracy", "F1"), (0, 1))
RANGES |= dict.fromkeys(("sensitivity", "specificity", "precision", "recall@10"), (0, 1))
RANGES |= dict.fromkeys(("recall", "mAP", "Dice", "IoU"), (0, 1)) | {"MAE": (0, float("inf"))}
# What a cell may hold; the other columns are free.
NUMBER = Annotated[str, Shaped(r"(-?\d*\.?\d+)?", "a number, .917 and no 91.7 %, or nothing")]
SEEN = "|".join(known_methods.SEEN)
CELLS = {
    "task": Literal[*cohort.TASKS, *OTHER_TASKS],  # pyrefly: ignore[invalid-literal] read when run
    "data": Literal["", *datasets.NAMES],  # pyrefly: ignore[invalid-literal] as above
    "grouped": Literal["yes", "no", "unknown"],
    "verified": Literal["verified", "third party", "recalled"],
    "comparable": Literal["yes", "no"],
    "sees": Annotated[str, Shaped(rf"({SEEN})(\+({SEEN}))*", f"some of {SEEN}, joined by +")],
    "year": Annotated[str, Shaped(r"((1[89]|20)\d\d)?", "a year, or nothing if it is not known")],
    "n": Annotated[str, Shaped(r"([1-9]\d*)?", "a whole number, or nothing")],
} | dict.fromkeys(("value", "low", "high"), NUMBER)
NEEDED = ("key", "paper", "method", "cohort", "metric", "value", "source")
ONE_SCORE = ("key", "method", "sees", "task", "cohort", "split", "metric")
FOLDS = "folds"  # the test of out-of-fold predictions, in the column `test`
# Papers that run by name, as the parameter PROTOCOL.
SHOWN = ("task", "paper", "method", "sees", "cohort", "n", "unit", "split", "metric", "score")


# ---------------------------------------------------------------------- the files
def file(name: str) -> Path | None:
    """Return where a file of the literature lies: beside the notebooks, else in the package.

    Returns:
        None where a package was installed without it.
    """
    places = [runs.ROOT / "notebooks" / name]
    with contextlib.suppress(metadata.PackageNotFoundError):
        installed = metadata.files("bonelib") or ()
        places += [Path(entry.locate()) for entry in installed if entry.name == name]
    return next(filter(Path.exists, places), None)


def keys(path: Path) -> set[str]:
    """Return the keys of the entries of a biblatex file."""
    return set(re.findall(r"^@\w+\{([^,\s]+),", path.read_text(encoding="utf-8"), re.MULTILINE))


def listed() -> pd.DataFrame:
    """Return every reported score; no rows where the file is not there.

    Raises:
        ValueError: Rows are wrong; the message names file, line and what to write instead.
    """
    found = _read(SCORES, COLUMNS, _faults)
    for name in ("year", "n"):
        found[name] = pd.to_numeric(found[name]).astype("Int64")
    for name in ("value", "low", "high"):
        found[name] = pd.to_numeric(found[name]).astype(float)
    return found


def methods() -> pd.DataFrame:
    """Return the methods of the literature: what each does, and where it runs here or why not.

    Raises:
        ValueError: As for `listed`.
    """
    return _read(METHODS, METHOD_COLUMNS, _faults_of_method)


def _read(
    name: str, columns: tuple[str, ...], wrong: Callable[[dict[str, str]], Iterator[str]]
) -> pd.DataFrame:
    path, bibliography = file(name), file(REFERENCES)
    if path is None:
        return pd.DataFrame(columns=list(columns), dtype="str")
    table = tables.read(path, []).fillna("")
    lacking, odd = sorted({*columns} - {*table}), sorted({*table} - {*columns})
    if lacking or odd:
        raise ValueError(
            f"{path} lacks the columns {', '.join(lacking) or '(none)'} and has "
            f"{', '.join(odd) or 'none'} too many. Its columns are {', '.join(columns)}."
        )
    cited = keys(bibliography) if bibliography else set()
    same = list(ONE_SCORE) if name == SCORES else ["name"]
    again = set(table.index[table.duplicated(same)])
    found = []
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        told = [*wrong(row)]
        if bibliography and row["key"] and row["key"] not in cited:
            told.append(f"no entry {row['key']!r} in {REFERENCES}.")
        if line in again:
            told.append(f"a row above has the same {', '.join(same)}.")
        found += [f"{path}, line {line}: {fault}" for fault in told]
    if found:
        raise ValueError("\n".join(found))
    return table.reset_index(drop=True)


def _faults(row: dict[str, str]) -> Iterator[str]:
    """Say what is wrong with a row of `listed`."""
    yield from faults(CELLS, row)
    if empty := [name for name in NEEDED if not row[name]]:
        yield f"{', '.join(empty)} must not be empty."
    if row["comparable"] == "no" and not row["why"]:
        yield "comparable is no: say why."
    if (row["comparable"] == "yes") != bool(row["test"] and row["data"]):
        yield "comparable is yes where data and test name images and a split that are made here."
    if bool(row["n"]) != bool(row["unit"]):
        yield f"n is {row['n']!r} of {row['unit']!r}. Write a number and what is counted, or none."
    bounds = next((RANGES[m] for m in RANGES if re.search(rf"\b{m}(?!\w)", row["metric"])), None)
    try:
        ends = [float(row[name]) for name in ("low", "value", "high") if row[name]]
    except ValueError:  # told above
        return
    if bounds is None:
        yield f"metric is {row['metric']!r}, which holds none of {', '.join(RANGES)}."
    elif len(ends) == 2:
        yield "an interval has two ends. Leave both empty if it is not known."
    elif not all(bounds[0] <= end <= bounds[1] for end in ends):
        yield f"{ends} leaves the range of {row['metric']}, {bounds[0]} to {bounds[1]}."
    elif ends != sorted(ends):
        yield f"{row['value']} does not lie in its interval, {row['low']} to {row['high']}."


def _faults_of_method(row: dict[str, str]) -> Iterator[str]:
    """Say what is wrong with a row of `methods`."""
    names = {"strategy": known_methods.STRATEGIES, "recipe": settings.recipe_names()}
    names |= {"protocol": settings.protocol_names()}
    yield from faults({"runs": Literal["yes", "no"]}, row)
    if row["runs"] == "no" and (row["here"] or not row["why"]):
        yield "it does not run here: leave here empty and say why it is not built."
    if row["runs"] == "yes" and not (row["here"] in names.get(row["kind"], ()) and row["where"]):
        yield (
            f"it runs here as the {row['kind'] or '(empty)'} {row['here']!r} in "
            f"{row['where']!r}. Name a strategy, a recipe or a protocol that there is, and the "
            "notebook."
        )


# ---------------------------------------------------------------------- what has been reported?
def reported(task: str, metric: str = "AUROC") -> pd.DataFrame:
    """Return what papers report on a task in one metric: the anchors of our own scores.

    The score of all classes counts, as it is or as their macro or micro mean; where a paper gives
    none of these for a split, that of the positive class does.
    """
    table = listed()
    table = table[table["task"] == task]
    whole = table["metric"].isin([metric, f"macro {metric}", f"micro {metric}"])
    positive = cohort.task(task).positive if task in cohort.TASKS else ""
    split = [table[name] for name in ("key", "cohort", "split")]
    alone = table["metric"].eq(f"{metric} {positive}") & ~whole.groupby(split).transform("any")
    return table[whole | alone].reset_index(drop=True)


def of_task(context: Context, *, test: str = FOLDS) -> pd.DataFrame:
    """Return what is reported on the task of a run, and on the headline task.

    Args:
        test: The split of the run: ``folds`` for out-of-fold predictions, else its test set as the
            parameter TEST names it.

    Returns:
        The columns of the file, and bool: ``same``, the score is of the images and the split of the
        run; ``fair``, it is of images and a split that can be made here. The former come first.
    """
    names = dict.fromkeys((context.task, HEADLINE))
    table = pd.concat([reported(name, context.metric) for name in names], ignore_index=True)
    table = table.assign(same=_same(context, table, test), fair=table["comparable"].eq("yes"))
    lower, own = evaluation.lower_is_better(context.metric), table["task"].eq(context.task)
    by = ["same", "own", "fair", "value"]
    ordered = table.assign(own=own).sort_values(by, ascending=[False] * 3 + [lower], kind="stable")
    return ordered.drop(columns="own").reset_index(drop=True)


def _same(context: Context, table: pd.DataFrame, test: str) -> pd.Series:
    """Tell which scores are of the task, the images and the split of a run."""
    run = {"task": context.task, "data": context.data, "test": test, "comparable": "yes"}
    return (table[[*run]] == pd.Series(run)).all(axis=1)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of `of_task` for readers, a score with its interval in one cell."""
    ends = table[["value", "low", "high"]].to_numpy(float)
    written = table.assign(score=[figures.with_interval(*row) for row in ends])
    return written[[*SHOWN, "verified", "comparable", "why"]]


def read_reported(context: Context, table: pd.DataFrame) -> str:
    """Say how many reported scores there are, and how many are of the run's images and split."""
    counts = [
        f"{len(rows)} for {name} (papers: {rows['key'].nunique()})"
        for name, rows in table.groupby("task", sort=False)
    ]
    if not counts:
        return f"**Reading.** No {context.metric} is listed for {context.task} or {HEADLINE}."
    return (
        f"**Reading.** Listed values of {context.metric}: {', '.join(counts)}. Of the images and "
        f"the split of this run: {int(table['same'].sum())}; of a split that can be made here: "
        f"{int(table['fair'].sum())}; read at their source: "
        f"{int(table['verified'].eq('verified').sum())}."
    )


def systems() -> pd.DataFrame:
    """Return the methods that are no single strategy: what each does, and where it runs here."""
    table = methods()
    table = table[table["kind"] != "strategy"]
    runs_as = table["kind"] + " " + table["here"] + ", notebook " + table["where"]
    table = table.assign(here=runs_as.where(table["runs"].eq("yes"), "not built"))
    return table[["name", "idea", "loss", "here", "why"]]


# ---------------------------------------------------------------------- how do ours compare?
def representative(context: Context, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the best row of a run's scores for each kind of input, the best of all first."""
    return context.ranked(scores).drop_duplicates("sees")


def draw(context: Context, table: pd.DataFrame, scores: pd.DataFrame) -> "Figure | None":
    """Draw reported and own scores in the same axes; None where nothing is reported.

    Args:
        table: Of `of_task`.
        scores: Of ``reporting.scores``.
    """
    if context.task not in ABOUT_TUMORS:
        table = table[table["task"].eq(context.task)]
    if table.empty:
        return None
    own = representative(context, scores)
    return figures.plot_reported(
        own, table, metric=context.metric, unit=context.asked.unit, own_name=context.data
    ).get_figure(root=True)


def same_split(context: Context, scores: pd.DataFrame, *, test: str = FOLDS) -> pd.DataFrame:
    """Return what is reported on the images and the split of a run, in every metric it has.

    Args:
        scores: Of ``reporting.scores``.
        test: As for `of_task`.

    Returns:
        paper, method, metric, value, low, high; ``ours`` is what the run's best method reaches.
    """
    table, best = listed(), context.ranked(scores).iloc[0]
    table = table[_same(context, table, test)]
    ours = table["metric"].str.removeprefix("macro ").map(best.to_dict())
    columns = ["paper", "method", "metric", "value", "low", "high"]
    return table[columns].assign(ours=ours.astype(float)).dropna(subset="ours")


def read_beside(
    context: Context, table: pd.DataFrame, scores: pd.DataFrame, *, test: str = FOLDS
) -> str:
    """Set the best own score beside what is reported on the same images, or say that none is."""
    best = context.ranked(scores).iloc[0]
    said = f"**Reading.** The best score of this run is that of *{best['method']}*, "
    said += f"{context.metric} {context.primary(best)}."
    same = [
        f"{row.paper}, {row.method}, {row.metric} "
        f"{figures.with_interval(row.value, row.low, row.high)} (ours {figures.number(row.ours)})"
        for row in same_split(context, scores, test=test).itertuples()
    ]
    if same:
        return f"{said} Reported on the same images and split: {'; '.join(same)}."
    own = table[table["task"].eq(context.task)]
    if own.empty:
        return f"{said} No {context.metric} is listed for {context.task}."
    ends = sorted({figures.number(end) for end in (own["value"].min(), own["value"].max())})
    return (
        f"{said} Papers report {' to '.join(ends)} for {context.task}, none on the images and the "
        "split of this run, so that a difference ranks nothing."
    )
