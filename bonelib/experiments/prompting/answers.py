"""What prompts answer, in every way of asking, beside metadata; how much hangs on the wording."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from bonelib import (
    captions,
    cohort,
    evaluation,
    features,
    figures,
    models,
    reporting,
    runs,
    zero_shot,
)
from bonelib.adaptation import descent, hierarchy
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context, in_order, metadata, opened
from bonelib.experiments.prompting import stages
from bonelib.experiments.prompting.words import Seen, Words, asked_by, detail

_BASIS = ["n", "groups", "group_kind"]  # what an interval stands on
_NOTHING = pd.DataFrame(columns=[*evaluation.METHOD, evaluation.WORDING, "label"])
ENDS = 4  # wordings shown at either end of the spread
COARSE = ("malignancy", "tumor")  # tasks whose classes are sums of entities
SIGNED = (*COARSE, "entity")  # tasks that the table of signs knows
Answers = Iterator[tuple[Method, np.ndarray]]  # logits (N, C) of all that is seen


def judge(context: Context, run: AnyRun, words: Words) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the prompts, and metadata alone, about the test images; then open their labels.

    What validation patients choose is chosen before: gates, temperatures, offsets.

    Returns:
        Predictions of the ensembles, of what is built on them and of metadata; those of every
        single wording. A finished run gives what it kept.
    """
    if words.reason:
        return _NOTHING, _NOTHING
    if not run.finished:
        view = context.view()
        seen = _see(context, run, words, view)
        asked = dict(_answers(run, words, view, seen))
        staged, fitted = stages.fit(run, words, seen, asked, view)
        answered = [seen.predicted(method, x) for method, x in asked.items()]
        answered += [stages.windows(run, words, seen)]
        answered += [seen.predicted(method, x) for method, x in staged.items()]
        answered += _metadata(context, run, view)
        tables = dict(predictions=answered, wordings=list(_singles(words, seen)))
        tables["calibrated"] = [seen.predicted(method, x) for method, x in fitted.items()]
        sealed = opened(run)
        for name, parts in tables.items():
            made = evaluation.with_labels(pd.concat(parts), sealed) if parts else _NOTHING
            run.save_table(name, made)
    return run.table("predictions"), run.table("wordings")


def _see(context: Context, run: runs.Run, words: Words, view: pd.DataFrame) -> Seen:
    """Encode the test and the validation images, and find the site of each."""
    cache = context.cache(run.settings["size"], fit=run.settings["resize"])
    parts = [part for name in ("test", "val") if len(part := view[view["split"] == name])]
    batches = (in_order(cache, part["image_id"], words.model.image) for part in parts)
    unit = np.concatenate([features.encode(words.model.encode_image, own) for own in batches])
    table = pd.concat(parts, ignore_index=True)
    sites = known = list(table[cohort.SITE])
    if run.settings["sites"] == "predicted":
        asked = captions.site_prompts(words.languages[0])
        named = zero_shot.class_features(words.model, asked)
        sites = [(list(asked)[k],) for k in (unit @ named.T).argmax(axis=1)]
    pairs = zip(sites, known, strict=True)
    met = [float(_same(one, own)) if own else np.nan for one, own in pairs]
    every = {site for one in sites for site in one}
    named = {site for site in every if _asked_at(context.asked, site)}
    sites = [tuple(site for site in one if site in named) for one in sites]
    ids = table.reindex(columns=["image_id", "patient", "group", "group_kind", "split"])
    run.save_table("sites", ids.assign(asked=[bool(one) for one in sites], met=met))
    return Seen(context, cache, table, unit, sites)


def _same(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Tell whether two sites share a bone or, where one is only a region, lie in the same."""
    coarse = {*one, *other} & {*cohort.REGIONS}
    return bool({*one} & {*other} or (coarse and cohort.region(one) == cohort.region(other)))


def _asked_at(task: cohort.Task, site: str) -> bool:
    """Tell whether the task has prompts at a site; grades of the knee have none at the hand."""
    try:
        return bool(captions.prompts(task, style="label", site=site))
    except ValueError:
        return False


def _answers(run: runs.Run, words: Words, view: pd.DataFrame, seen: Seen) -> Answers:
    """Yield what each way of asking answers."""
    task, model, scale = seen.context.asked, words.model, words.scale
    classes = {name: zero_shot.class_features(model, p) for name, p in words.prompts.items()}
    for name, rows in classes.items():
        yield asked_by(name), zero_shot.logits(seen.unit, rows, scale=scale)
    if model.logit_bias is not None and task.kind == "binary":
        biased = dict(scale=scale, bias=model.logit_bias.item())
        for name, rows in classes.items():  # the positive class alone, by the pair's own bias
            alone = zero_shot.logits(seen.unit, rows[1:], **biased)
            yield asked_by(f"{name}, sigmoid"), np.hstack([np.zeros_like(alone), alone])
    if task.name in COARSE:
        yield from _entities(words, view, seen)
    told = run.settings["sites"] == "table"  # by metadata, and not by the image
    where, sees = ("site", "image+metadata") if told else ("predicted site", "image")
    every = sorted({one for sites in seen.sites for one in sites})
    for language, style in itertools.product(words.languages, captions.styles(task)):
        name = detail(style, language)
        own = {"": classes[name]}
        for site in every:
            said = captions.prompts(task, style=style, language=language, site=site)
            own[site] = zero_shot.class_features(model, said)
        found = zero_shot.site_logits(seen.unit, own, seen.sites, scale=scale)
        yield replace(asked_by(f"{name} at the {where}"), sees=sees), found
    if task.name in SIGNED:
        weights = captions.attribute_weights(task)
        for language in words.languages:
            terms = _terms(model, language)
            found = zero_shot.attribute_logits(seen.unit, terms, weights, task.classes, scale=scale)
            yield asked_by(detail("attributes", language)), found


def _terms(model: models.DualEncoder, language: str) -> dict[str, dict[str, np.ndarray]]:
    """Return unit features of each term of each sign."""
    return {
        sign: dict(zip(terms, zero_shot.class_features(model, terms), strict=True))
        for sign, terms in captions.attribute_prompts(language).items()
    }


def _entities(words: Words, view: pd.DataFrame, seen: Seen) -> Answers:
    """Ask for entities; the probabilities of those of a class add up to it.

    Which entity is of which class is read off the training patients: what is known of the names,
    not fitted. A class without entities is asked by its own prompts.
    """
    task, fine = seen.context.asked, cohort.task("entity")
    known = view[(view["split"] == "train") & view[task.column].notna()]
    if fine.column not in view or not known[fine.column].notna().any():
        return
    code, labels = fine.encode(known[fine.column]), task.encode(known[task.column])
    members = hierarchy.entity_classes(code, labels, len(task.classes))
    count = code.max() + 1
    said = captions.prompts(fine, style="label", language=words.languages[0])
    said = dict(list(said.items())[:count])
    alone = members[:, count:].argmax(dim=0).tolist()
    said |= {task.classes[k]: words.first[task.classes[k]] for k in alone}
    rows = zero_shot.class_features(words.model, said)
    logits = torch.from_numpy(zero_shot.logits(seen.unit, rows, scale=words.scale))
    logits[:, members.sum(dim=0) == 0] = descent.NEVER  # no training patient has this entity
    yield asked_by("entities"), hierarchy.marginal(logits, members).numpy()


def _singles(words: Words, seen: Seen) -> Iterator[pd.DataFrame]:
    """Yield the predictions of every single wording."""
    for name, by_class in words.prompts.items():
        for wording, cosines in zero_shot.wording_logits(words.model, seen.unit, by_class).items():
            yield seen.predicted(asked_by(name, wording), words.scale * cosines)


def _metadata(context: Context, run: runs.Run, view: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield predictions from age, sex, view and place alone, with and without the sites."""
    test = (view["split"] == "test").to_numpy()
    for method, x in metadata(view).items():
        logits = stages.probe(context, run, view, x, test)
        told = dict(task=context.asked, seed=context.seed, method=method)
        yield evaluation.predictions(view[test], logits, **told)


def read_sites(run: AnyRun, predictions: pd.DataFrame) -> str:
    """Say of how many images the prompts knew the site, and how often a predicted one is right."""
    if predictions.empty:
        return ""
    table = run.table("sites").query("split == 'test'")
    lacking, met = int((~table["asked"]).sum()), table.dropna(subset=["met"])
    if run.settings["sites"] == "predicted":
        said = "Prompts predict the site first"
        if met.empty:
            return f"{said}; the table knows none to compare them with."
        share = evaluation.means(met, ["met"], by="split", draws=1000)
        told = figures.intervals(share, "split")["test"]
        return f"{said}: {told} of {len(met):,} known ones are right."
    return (
        f"Sites are those of the table; {lacking:,} of {len(table):,} test images have none that "
        "the task is asked at, and get the prompts without one."
    )


def evidence(
    context: Context, run: AnyRun, predictions: pd.DataFrame
) -> list[reporting.evidence.Evidence]:
    """Judge the first prompts; nothing where nothing is asked."""
    told = dict(task=context.asked, table=context.view())
    return [
        reporting.evidence.judge(predictions, method=method, opened=opened(run), **told)
        for method in list(evaluation.by_method(predictions))[:1]
    ]


# ---------------------------------------------------------------------- which wording?
def spread(context: Context, wordings: pd.DataFrame) -> pd.DataFrame:
    """Score every single wording by the task's primary metric, from the lowest to the highest.

    Only those at the ends get an interval: each costs 2,000 draws, and the figure shows none.
    """
    task, metric = context.asked, context.metric
    tables = evaluation.by_method(wordings.dropna(subset=["label"]))
    values = {method: evaluation.score(table, task) for method, table in tables.items()}
    order = sorted(values, key=values.__getitem__)
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
    tall = max(2.8, 1.1 + 0.24 * len(scores))
    shape = dict(figsize=(figures.WIDTH, tall), layout="constrained", width_ratios=[1.6, 1])
    figure, axes = plt.subplots(1, 2, **shape)
    figures.plot_forest(scores, ax=axes[0], unit=context.asked.unit)
    figures.plot_spread(spread.sort_values("detail", kind="stable"), ax=axes[1])
    for ax, title in zip(axes, ("all wordings together", "each alone"), strict=True):
        ax.set_title(title, loc="left", size=8.5)
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
    plain = scores["detail"].isin(words.prompts) | scores["sees"].eq("metadata")
    reached = [f"{row['method']} {context.primary(row)}" for _, row in scores[plain].iterrows()]
    others = scores.loc[~plain, metric]
    if len(others):
        ends = f"{figures.number(others.min())} and {figures.number(others.max())}"
        reached.append(f"{len(others)} other rows lie between {ends} (intervals above)")
    return (
        f"**Reading.** {metric}{f' in {unit}' if unit else ''} on "
        f"{scores['n'].iloc[0]:,} images: {'; '.join(reached)}. The prompts are {words.claim}. "
        f"{len(spread):,} single wordings lie between {figures.number(spread[metric].min())} and "
        f"{figures.number(spread[metric].max())}."
    )
