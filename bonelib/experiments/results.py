"""The results chapter, as notebook 09 argues it: every number recomputed from stored predictions.

Finished runs of a profile come in; tables, figures and the sentences that read them go out. What
recipes of pretraining leave in their towers is compared here too.
"""

import glob
import re
from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd

from bonelib import cohort, figures, reporting, runs
from bonelib.experiments.context import AnyRun, Context, keep

STAGES = ("baselines", "finetuning", "zero_shot", "gradcam")
DRAWN = ("none", "probe", "selected", "full", "prompt")  # strategies in the chart
SYNTHETIC = "*Synthetic radiographs: for methods, not for clinical claims.*\n\n"


# -------------------------------------------------------------------- what does each method reach?
def start(context: Context, *, compare_to: str) -> AnyRun:
    """Open the run; it reads every record of the profile, so that a new one makes it stale."""
    inputs = [context.find(stage) for stage in STAGES]
    settings = dict(compare_to=compare_to)
    return context.start("results", inputs=inputs, settings=settings, reads=read_of(context))


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
    """Write the results table as Markdown and LaTeX, and return the former."""
    written = (SYNTHETIC if context.synthetic else "") + reporting.to_markdown(scores)
    if not run.finished:
        run.save_text("results.md", written, publish=True)
        run.save_text("results.tex", reporting.to_latex(scores), publish=True)
    return written


def draw(scores: pd.DataFrame) -> plt.Figure:
    """Draw the methods that the argument rests on, by stage; the table has all of them."""
    scores = scores[scores["strategy"].isin(DRAWN)]
    shape = dict(figsize=(figures.WIDTH, 0.24 * len(scores) + 1.2), layout="constrained")
    figure, axis = plt.subplots(**shape)
    numbers = scores["stage"].map(runs.NOTEBOOKS)
    named = scores.assign(name=numbers + " · " + figures.display_names(scores))
    figures.plot_forest(named, ax=axis)
    return figure


def read(context: Context, scores: pd.DataFrame) -> str:
    """Name the best method, and what metadata alone reach at most."""
    ranked, metric = context.ranked(scores), context.metric
    best, blind = ranked.iloc[0], ranked[ranked["sees"] == "metadata"]
    alone = f"; metadata alone at best {context.primary(blind.iloc[0])}" if len(blind) else ""
    name, score = figures.display_names(ranked.head(1)).iloc[0], context.primary(best)
    return f"**Reading.** Best: *{name}* ({best['stage']}), {metric} {score}{alone}."


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


def contrasts(context: Context, run: AnyRun, *, compare_to: str) -> pd.DataFrame:
    """Set one recipe beside each other one, on all images and on those that chose nothing."""
    if run.finished:
        return run.table("contrasts")
    found = []
    for name, fresh in (("all images", False), ("images that chose nothing", True)):
        table = reporting.recipes(profile=context.profile, beside=compare_to, fresh=fresh)
        found.append(reporting.contrasts(table, of=compare_to).assign(images=name))
    return keep(run, "contrasts", pd.concat(found, ignore_index=True))


def over_seeds(context: Context, run: AnyRun) -> pd.DataFrame:
    """Return what recipes gain over their start, with intervals over patients and over seeds."""
    if run.finished:
        return run.table("seeds")
    return keep(run, "seeds", reporting.over_seeds(profile=context.profile))


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
