"""What pretraining leaves in the image tower: linear probes on frozen features, before and after.

A finished training comes in; predictions, scores and paired differences go out. Every task that the
training images know is asked, with all training labels and with few.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from bonelib import adaptation, captions, cohort, encoders, evaluation, figures, models, splits
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context, keep
from bonelib.experiments.settings import Pretraining

# Columns of a comparison that notebook 04 shows, there also where nothing could be asked.
GAINS = ("task", "share", "in captions", "metric", "value", "low", "high")
GAINS += ("p", "n", "group_kind")


def probe(context: Context, run: AnyRun, plan: Pretraining, model: models.Model) -> pd.DataFrame:
    """Judge the image tower before and after by linear probes on frozen features.

    Every task that the training images know is asked, with all training labels and with few. Judged
    are validation images, or once the test set (``plan.evaluate_on``).

    Returns:
        A predictions table (``detail`` is the recipe, empty for the start) with the ``share`` of
        the labels, ``in_captions`` (captions named the label: supervision, not transfer) and the
        number of ``rows`` learnt from.
    """
    if run.finished:
        return run.table("probes")
    view, cache = context.view(), context.cache(plan.size, fit=plan.resize)
    recipe, drawn = plan.recipe, plan.recipe.weights == "random"
    # As the training started: with its weights, and where they are drawn with its seed.
    options = dict(size=plan.size, weights=recipe.weights, seed=context.seed)
    before = encoders.image(recipe.image, **options)
    towers = {
        Method(start="scratch" if drawn else "imagenet", strategy="probe"): before,
        Method(start="captions", strategy="probe", detail=plan.recipe.name): model.image.eval(),
    }
    frozen = {m: context.features(t, cache, view["image_id"]) for m, t in towers.items()}
    asked = itertools.product(_asked(view), plan.shares)
    frames = [frame for one in asked for frame in _probed(context, plan, view, frozen, *one)]
    # Captions alone: nothing can be asked of the towers.
    made = pd.DataFrame(columns=["task", "share", "detail", "label", "in_captions"])
    if frames:
        made = pd.concat(frames, ignore_index=True)
        if plan.evaluate_on == "test":
            made = evaluation.with_labels(made, splits.open_test(run))
        # classes and values share the column
        made = made.assign(label=made["label"].map(str, na_action="ignore"))
    return keep(run, "probes", made)


def _probed(
    context: Context,
    plan: Pretraining,
    view: pd.DataFrame,
    frozen: dict[Method, np.ndarray],
    task: cohort.Task,
    share: float,
) -> Iterator[pd.DataFrame]:
    """Yield what probes of each tower say that learnt one task from a share of its labels."""
    judged, labels = (view["split"] == plan.evaluate_on).to_numpy(), task.encode(view[task.column])
    known = view[(view["split"] != "train") | view[task.column].notna()]
    few = splits.subset(known, share=share, seed=context.seed, by=task.column)
    rows = view.index[view["image_id"].isin(few.loc[few["split"] == "train", "image_id"])]
    fields = plan.caption_fields if plan.recipe.learns_from_captions else ()
    in_captions, group = captions.gives_away(task.name, fields=fields), view["group"].to_numpy()
    for method, x in frozen.items():
        options = dict(classes=len(task.classes), strengths=plan.strengths)
        fitted = adaptation.probe(x[rows], labels[rows], group[rows], **options)
        named = dict(task=task, seed=context.seed, method=method)
        out = evaluation.predictions(view[judged], fitted.logits(x[judged]), **named)
        yield out.assign(share=share, in_captions=in_captions, rows=len(rows))


def _asked(view: pd.DataFrame) -> list[cohort.Task]:
    """List the tasks of which the training images know every class."""
    known = view[view["split"] == "train"]
    return [
        task
        for task in cohort.labelled(known)
        if task.kind == "regression" or set(known[task.column].dropna()) == set(task.classes)
    ]


def compare(run: AnyRun, probes: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the probes, and set the trained tower beside its start on the same images.

    Returns:
        A row a task, share and tower with its interval; and a row a task and share with the paired
        difference. The metric is AUROC, or MAE for values.
    """
    if run.finished:
        return run.table("probe_scores"), run.table("probe_differences")
    scores, gains = [], []
    for (task, share), part in probes.groupby(["task", "share"], sort=False):
        valued, metric = cohort.task(task).kind == "regression", evaluation.threshold_free(task)
        part = part.dropna(subset=["label"]).astype({"label": float if valued else str})
        of = {"task": task, "share": share, "in captions": bool(part["in_captions"].iloc[0])}
        start, trained = part[part["detail"] == ""], part[part["detail"] != ""]
        towers = {"start": start, trained["detail"].iloc[0]: trained}
        for name in sorted(towers):
            found = evaluation.metrics(towers[name], task=task, only=(metric,))
            scores.append(found.assign(tower=name, **of))
        gains.append(of | evaluation.compare(trained, start, task=task, metric=metric).to_dict())
    scored = pd.concat(scores) if scores else pd.DataFrame(columns=["tower", *GAINS])
    gained = pd.DataFrame(gains) if gains else pd.DataFrame(columns=[*GAINS])
    return keep(run, "probe_scores", scored), keep(run, "probe_differences", gained)


def read_gains(gains: pd.DataFrame) -> str:
    """Say for each task what the trained tower has over its start, at all training labels."""
    said = []
    for row in gains[gains["share"] == gains["share"].max()].to_dict("records"):
        kind = " (named in captions)" if row["in captions"] else ""
        score = figures.with_interval(row["value"], row["low"], row["high"])
        hollow = row["low"] <= 0 <= row["high"]
        sure = "no difference shown" if hollow else "the interval excludes 0"
        said.append(f"{row['task']}{kind}: {row['metric']} {score}, {sure}")
    if not said:
        return "**Reading.** This set has no labels that a probe could learn."
    return f"**Reading.** The trained tower minus its start. {'; '.join(said)}."
