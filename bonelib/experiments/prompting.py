"""Classification by words alone, step by step as notebook 06 argues it.

A pretraining and a task go in; the predictions of sentences and of metadata for the test images
come out, how they scored, and what the score may be called. Each function is a section of the
notebook. Where there is nothing to ask with (a task without words, a model without a text tower),
no test label is opened and every table is empty.
"""

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bonelib import (
    adaptation,
    captions,
    evaluation,
    features,
    figures,
    models,
    runs,
    splits,
    zero_shot,
)
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context, in_order, metadata

# Regularisations among which the probe of metadata chooses.
SETTINGS = pd.DataFrame(
    {"tiny": [(0.01,)], "demo": [adaptation.STRENGTHS], "full": [adaptation.STRENGTHS]},
    index=["strengths"],
)
_BASIS = ["n", "groups", "group_kind"]  # what an interval stands on
_NOTHING = pd.DataFrame(columns=[*evaluation.METHOD, evaluation.WORDING, "label"])
ENDS = 4  # wordings shown at either end of the spread


@dataclass(frozen=True)
class Words:
    """A pretrained model, and what it can be asked in words.

    Attributes:
        prompts: Sentences by style and class; empty where there is nothing to ask with.
        fields: What the captions of the pretraining named.
        reason: Why there are no prompts; "" where there are.
    """

    model: models.Model
    prompts: dict[str, dict[str, list[str]]]
    fields: tuple[str, ...]
    reason: str = ""

    @property
    def claim(self) -> str:
        """What a score of prompts may be called after such a pretraining (contract 9)."""
        return captions.supervision(self.fields) if self.prompts else ""


def plan(context: Context, pretraining: runs.Record) -> dict[str, Any]:
    """Return the settings: the profile's, and the images as the pretraining saw them."""
    return dict(
        strengths=SETTINGS.loc["strengths", context.profile],
        test=context.test,
        styles=captions.styles(context.asked),
        size=pretraining.settings["size"],
        resize=pretraining.settings.get("resize") or context.cohort_run.settings["fit"],
    )


# ---------------------------------------------------------------------- what are the prompts?
def find_words(context: Context, pretraining: runs.Record) -> Words:
    """Load the pretrained model and write the prompts of the task, in the styles that it has."""
    task, model = context.asked, models.load_bundle(pretraining.bundle)
    prompts = {style: captions.prompts(task, style=style) for style in captions.styles(task)}
    reason = "" if prompts else f"There are no words for the classes of {task.name}."
    if not isinstance(model, models.DualEncoder):
        prompts, reason = {}, f"{pretraining.name} learnt without a text tower: it reads no words."
    return Words(model, prompts, tuple(pretraining.notes["caption_fields"]), reason)


def read_words(words: Words) -> str:
    """Say what a score by these prompts may be called, or why there is none."""
    if words.reason:
        return f"**{words.reason}** The sections below stay empty, and no test label is opened."
    named = ", ".join(words.fields)
    return f"Captions of the pretraining named: {named}. Prompts are therefore **{words.claim}**."


def show_prompts(words: Words) -> pd.DataFrame:
    """Show the first prompt of each class in each style, and how many there are."""
    rows = [
        (style, name, len(sentences), sentences[0])
        for style, by_class in words.prompts.items()
        for name, sentences in by_class.items()
    ]
    return pd.DataFrame(rows, columns=["style", "class", "prompts", "the first one"])


# ---------------------------------------------------------------------- what do they answer?
def judge(context: Context, run: AnyRun, words: Words) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the prompts, and metadata alone, about the test images; then open their labels.

    Returns:
        Predictions of the ensembles and of metadata; those of every single wording. A finished run
        gives what it kept.
    """
    if words.reason:
        return _NOTHING, _NOTHING
    if not run.finished:
        view = context.view()
        asked = view[view["split"] == "test"]
        ensembles, wordings = _prompted(context, run, words, asked)
        ensembles += _metadata(context, run, view)
        opened = splits.open_test(run)
        run.save_table("predictions", evaluation.with_labels(pd.concat(ensembles), opened))
        run.save_table("wordings", evaluation.with_labels(pd.concat(wordings), opened))
    return run.table("predictions"), run.table("wordings")


def _prompted(
    context: Context, run: runs.Run, words: Words, asked: pd.DataFrame
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Compare images with sentences: a table a style, and one for each single wording."""
    model, task = words.model, context.asked
    cache = context.cache(run.settings["size"], fit=run.settings["resize"])
    loader = in_order(cache, asked["image_id"], model.image)
    seen, scale = features.encode(model.encode_image, loader), model.logit_scale.exp().item()

    def answered(logits: np.ndarray, style: str, wording: str = "") -> pd.DataFrame:
        if values := captions.prompt_values(task):  # the stages of a value, weighed by their fit
            logits = zero_shot.expected(logits, values)
        method = Method("captions", "prompt", "image", detail=style, wording=wording)
        return evaluation.predictions(asked, logits, task=task, seed=context.seed, method=method)

    ensembles, wordings = [], []
    for style, by_class in words.prompts.items():
        classes = zero_shot.class_features(model, by_class)
        ensembles.append(answered(zero_shot.logits(seen, classes, scale=scale), style))
        for wording, cosines in zero_shot.wording_logits(model, seen, by_class).items():
            wordings.append(answered(scale * cosines, style, wording))
    return ensembles, wordings


def _metadata(context: Context, run: runs.Run, view: pd.DataFrame) -> list[pd.DataFrame]:
    """Predict from age, sex, view and place alone, with and without the sites."""
    task, frames = context.asked, []
    labels, group = task.encode(view[task.column]), view["group"].to_numpy()
    train, test = ((view["split"] == part).to_numpy() for part in ("train", "test"))
    strengths = tuple(run.settings["strengths"])
    fitting = dict(classes=len(task.classes), strengths=strengths, seed=context.seed)
    for method, x in metadata(view).items():
        logits = adaptation.probe(x[train], labels[train], group[train], **fitting).logits(x[test])
        told = dict(task=task, seed=context.seed, method=method)
        frames.append(evaluation.predictions(view[test], logits, **told))
    return frames


# ---------------------------------------------------------------------- which wording?
def spread(context: Context, wordings: pd.DataFrame) -> pd.DataFrame:
    """Score every single wording by the task's primary metric, from the lowest to the highest.

    Only those at the ends get an interval: each costs 2,000 draws, and the figure shows none.
    """
    task, metric = context.asked, context.metric
    tables = evaluation.by_method(wordings.dropna(subset=["label"]))
    values = {method: evaluation.score(table, task) for method, table in tables.items()}
    order = sorted(values, key=values.get)
    rows = {method: method.columns() | {metric: values[method]} for method in order}
    for method in {*order[:ENDS], *order[-ENDS:]}:
        found = evaluation.metrics(tables[method], task=task, only=(metric,)).iloc[0]
        rows[method] |= found[["low", "high", *_BASIS]].to_dict()
    columns = ["detail", "wording", metric, "low", "high", *_BASIS]
    found = pd.DataFrame(rows.values(), columns=columns)
    # All are asked of the same images.
    return found.fillna({name: found[name].max() for name in _BASIS if len(found)})


def draw(context: Context, scores: pd.DataFrame, spread: pd.DataFrame) -> plt.Figure | None:
    """Draw scores with their intervals beside the spread of the wordings; None without scores."""
    if context.metric not in scores:
        return None
    shape = dict(figsize=(figures.WIDTH, 2.8), layout="constrained", width_ratios=[1.6, 1])
    figure, axes = plt.subplots(1, 2, **shape)
    figures.plot_forest(scores, ax=axes[0], unit=context.asked.unit)
    figures.plot_spread(spread, ax=axes[1])
    return figure


def show_ends(spread: pd.DataFrame) -> pd.DataFrame:
    """Show the wordings at either end."""
    ends = spread if len(spread) <= 2 * ENDS else pd.concat([spread[:ENDS], spread[-ENDS:]])
    return ends.drop(columns=_BASIS)


def read_scores(context: Context, scores: pd.DataFrame, spread: pd.DataFrame, words: Words) -> str:
    """Say what prompts reach beside metadata, and how much hangs on the wording."""
    metric, unit = context.metric, context.asked.unit
    if metric not in scores:
        return f"**Reading.** Nothing is scored. {words.reason}"
    reached = [f"{row['method']} {context.primary(row)}" for _, row in scores.iterrows()]
    return (
        f"**Reading.** {metric}{f' in {unit}' if unit else ''} on "
        f"{scores['n'].iloc[0]:,} images: {'; '.join(reached)}. The prompts are {words.claim}. "
        f"Single wordings lie between {spread[metric].min():.3f} and {spread[metric].max():.3f}."
    )
