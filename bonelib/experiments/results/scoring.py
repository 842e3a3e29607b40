"""The results chapter, as notebook 09 argues it: every number recomputed from stored predictions.

Finished runs of a profile come in; tables, figures and the sentences that read them go out. What
recipes of pretraining leave in their towers is compared here too.
"""

import glob
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from bonelib import adaptation, cohort, figures, reporting, runs
from bonelib.evaluation import METHOD, Method
from bonelib.experiments.context import AnyRun, Context, keep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("baselines", "finetuning", "zero_shot", "gradcam")
DRAWN = ("none", "probe", "selected", "full", "outlined", "prompt")  # strategies in the chart
ROWS, HEADS = "results.csv", "records.json"  # what the next run compares itself with
SYNTHETIC = "*Synthetic radiographs: for methods, not for clinical claims.*\n\n"


# -------------------------------------------------------------------- what does each method reach?
def start(context: Context, *, compare_to: str) -> AnyRun:
    """Open the run; it reads every record of the profile, so that a new one makes it stale.

    What the run before it found is kept in the new folder, to tell what changed.
    """
    inputs = [context.find(stage) for stage in STAGES]
    names = dict(profile=context.profile, data=context.data, root=context.root, task=context.task)
    path = runs.paths.run_path("results", **names, seed=context.seed, variant=context.variant)
    finished = (path / "record.json").exists()  # else what stands there is a run that broke off
    kept = [path / (name if finished else f"before-{name}") for name in (ROWS, HEADS)]
    before = [file.read_text(encoding="utf-8") if file.exists() else "" for file in kept]
    settings = dict(compare_to=compare_to)
    run = context.start("results", inputs=inputs, settings=settings, reads=read_of(context))
    for name, text in zip((ROWS, HEADS), before, strict=True):
        if text and not run.finished:
            run.save_text(f"before-{name}", text)
    return run


def read_of(context: Context) -> list[str]:
    """Return patterns of what is read: all runs of this data set, and every pretraining."""
    name = glob.escape(context.cohort_run.head["data_name"])
    return [f"{context.profile}/{name}/*/*/*", f"{context.profile}/*/*/pretraining/*"]


def scores(context: Context, run: AnyRun) -> pd.DataFrame:
    """Score every method of every finished run of this task; see `reporting.results`."""
    if run.finished:
        return run.table("results")
    asked = dict(profile=context.profile, data=context.data, root=context.root, task=context.task)
    return keep(run, "results", reporting.results(**asked))


def save(context: Context, run: AnyRun, scores: pd.DataFrame) -> str:
    """Write the results as Markdown, LaTeX and CSV, a table a part; return the Markdown."""
    parts = parts_of(scores)
    said = [f"**By {part}**\n\n{reporting.to_markdown(scores, of=part)}" for part in parts]
    written = (SYNTHETIC if context.synthetic else "") + "\n".join(said)
    if not run.finished:
        run.save_text("results.md", written, publish=True)
        tables = [reporting.to_latex(scores, of=part) for part in parts]
        run.save_text("results.tex", "\n".join(tables), publish=True)
        run.save_text(ROWS, scores.to_csv(index=False))
    return written


def parts_of(scores: pd.DataFrame) -> list[str]:
    """Name the tables that the scores fill, as one of all metrics is too wide for a page."""
    filled = scores.notna().any()
    return [part for part, names in reporting.PARTS.items() if filled.reindex(names).eq(True).any()]


def draw(scores: pd.DataFrame) -> "Figure | None":
    """Draw the methods that the argument rests on, by stage; the table has all of them."""
    scores = scores[scores["strategy"].isin(DRAWN)]
    heads = scores["stage"].map(runs.NOTEBOOKS) + " " + scores["stage"]
    return figures.plot_forest(scores.assign(stage=heads), group="stage").get_figure(root=True)


def read(context: Context, scores: pd.DataFrame) -> str:
    """Name the best method, the best of images alone, and what metadata alone reach at most."""
    ranked = context.ranked(scores)
    alone = ranked["sees"] == "image"
    plain = ~ranked["strategy"].isin(adaptation.WITH_OUTLINES)
    parts = {"Best": ranked.head(1)}
    if len(ranked) and not (alone & plain).iloc[0]:
        parts["of images alone, without outlines"] = ranked[alone & plain].head(1)
    parts["metadata alone"] = ranked[ranked["sees"] == "metadata"].head(1)
    told = [
        f"{what}: *{figures.display_name(Method(**row[[*METHOD]]))}* ({row['stage']}), "
        f"{context.metric} {context.primary(row)}"
        for what, part in parts.items()
        for _, row in part.iterrows()
    ]
    return f"**Reading.** {'; '.join(told) or 'Nothing is scored'}."


def metrics(context: Context, scores: pd.DataFrame) -> dict:
    """Return the best method with its score, and how many rows there are."""
    metric, best = context.metric, context.ranked(scores).iloc[0]
    return dict(best=best["method"], metric=metric, value=best[metric], rows=len(scores))


# ---------------------------------------------------------------------- which recipe is best?
def recipes(context: Context, run: AnyRun, name: str, *, judged: str) -> pd.DataFrame:
    """Score the recipes that were judged on ``val`` images, to choose one, or once by ``test``."""
    if run.finished:
        return run.table(name)
    return keep(run, name, reporting.recipes(profile=context.profile, judged=judged))


def choices(tried: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield, where several recipes were tried alike, their ranking and rows in its order."""
    for name, part in by_set(tried):
        if part["recipe"].nunique() > 1:
            ranked = reporting.choice(part)
            yield name, ranked, part.set_index("recipe").loc[ranked.index].reset_index()


# ---------------------------------------------------------------------- does language help?
def by_set(recipes: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the recipes of each data set, folds and seed, by a name for files."""
    for (data, folds, seed), part in recipes.groupby(reporting.SAME) if len(recipes) else ():
        yield f"{data}-{f'folds{folds}-' if folds else ''}s{seed}", part


def chart(context: Context, run: AnyRun, name: str, part: pd.DataFrame) -> None:
    """Draw the gains of a data set's recipes, published where it is the set asked for."""
    own = re.search(rf"_{re.escape(context.cohort_run.head['data_name'])}-(folds|s)\d", name)
    context.figure(run, name, figures.plot_gains(part), publish=bool(own))


def contrasts(
    context: Context, run: AnyRun, judged: pd.DataFrame, *, compare_to: str
) -> pd.DataFrame:
    """Set one recipe beside each other one, on all images and on those that chose nothing."""
    if run.finished:
        return run.table("contrasts")
    found = []
    for name, fresh in (("all images", False), ("images that chose nothing", True)):
        asked = dict(profile=context.profile, beside=compare_to, fresh=fresh)
        table = reporting.recipes(**asked) if len(judged) else judged
        found.append(reporting.contrasts(table, of=compare_to).assign(images=name))
    return keep(run, "contrasts", pd.concat(found, ignore_index=True))


def over_seeds(context: Context, run: AnyRun, judged: pd.DataFrame) -> pd.DataFrame:
    """Return what recipes gain over their start, with intervals over patients and over seeds."""
    if run.finished:
        return run.table("seeds")
    found = reporting.over_seeds(profile=context.profile) if len(judged) else judged
    return keep(run, "seeds", found)


def read_contrasts(contrasts: pd.DataFrame, *, compare_to: str) -> str:
    """Say, for each task, what one recipe has over each other one, at all training labels."""
    lines = []
    whole = contrasts[contrasts["share"] == contrasts["share"].max()]
    for (data, folds, seed, images, task), part in whole.groupby(
        [*reporting.SAME, "images", "task"]
    ):
        told = [
            f"{row.control} {row.better:+.3f} [{row.low:+.3f}, {row.high:+.3f}] ({row.verdict})"
            for row in part.itertuples()
        ]
        metric = part["metric"].iloc[0]
        unit = f"{cohort.task(task).unit} less" if metric == "MAE" else metric
        where = f"{data}, folds of seed {folds}, training seed {seed}, {task} ({unit}), {images}"
        lines.append(f"- {where}: {'; '.join(told)}.")
    if not lines:
        return "**Reading.** No recipes were judged beside each other on test sets."
    return f"**Reading.** What *{compare_to}* has over each other recipe:\n\n" + "\n".join(lines)


# ---------------------------------------------------------------------- how were they made?
def records(context: Context) -> pd.DataFrame:
    """List every run of this data set with its cost, its openings and what changed since."""
    found = runs.collect(profile=context.profile, data=context.data, root=context.root)
    shown = ["stage", "task", "variant", "seed", "openings", "stale", "other_code", "seconds"]
    return found[[*shown, "commit"]]
