"""What the chosen map is worth on test lesions, and where: beside plain Grad-CAM and blind maps."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from bonelib import cohort, evaluation, explain, features, runs
from bonelib.evaluation import METHOD, Method, ranking
from bonelib.experiments.context import AnyRun, Context, keep, opened
from bonelib.experiments.gradcam.cases import Cases, blind
from bonelib.experiments.gradcam.choosing import (
    MAP,
    MEASURES,
    PLAIN,
    candidates,
    load,
    measured,
)

COMPARED = ("pointing", "energy", "average_precision")
SIZES = ("small", "middle", "large")  # of lesions, by thirds of the training lesions
SUBGROUPS = ("class", "entity", "site", "lesion size", "center", "classifier")


# ---------------------------------------------------------------------- is the lesion found?
def judge(
    context: Context,
    run: AnyRun,
    tuned: runs.Record,
    chosen: tuple[Method, str],
    *,
    test: Cases,
    taught: Cases,
) -> pd.DataFrame:
    """Make the chosen map, plain Grad-CAM of each start, and blind maps; score them.

    Returns:
        A row an image and map: ``image_id, patient, …``, the columns of methods, ``map``, ``role``
        (chosen, plain or prior), measures, ``border`` and ``border_uniform``; what the image shows
        (``SUBGROUPS``). Empty without outlines. The maps are kept as ``maps`` and ``plain``.
    """
    if run.finished:
        return run.table("localisation")
    scored, choices = [], run.table("choices")
    thresholds = choices.groupby(MAP)["threshold"].first() if len(choices) else {}
    for role, method, name, heat in _maps(context, run, tuned, chosen, test, taught):
        if test.outlined:
            threshold = thresholds.get((*method.columns().values(), name), np.nan)
            table = measured(heat, test, method, name, threshold)
            border = explain.border_mass(heat)[["border", "border_uniform"]]
            scored.append(table.assign(role=role, **border))
    if not scored:
        empty = [*MAP, "image_id", "role", *MEASURES]
        return keep(run, "localisation", pd.DataFrame(columns=empty))
    facts = described(context, run, tuned, chosen[0], test, taught)
    return keep(run, "localisation", pd.concat(scored).merge(facts, on="image_id"))


def _maps(
    context: Context,
    run: runs.Run,
    tuned: runs.Record,
    chosen: tuple[Method, str],
    test: Cases,
    taught: Cases,
) -> Iterator[tuple[str, Method, str, np.ndarray]]:
    """Yield role, method, name and maps of all that is judged; keep those that are shown."""
    heat = load(context, tuned, chosen[0]).heat(chosen[1], test)
    run.save_array("maps", heat.astype(np.float16))
    yield "chosen", *chosen, heat
    shown = None
    for method in (m for m in candidates(tuned)[0] if m.strategy == "full"):
        if (method, PLAIN) == chosen:
            shown = heat
            continue
        try:
            heat = load(context, tuned, method).heat(PLAIN, test)
        except ValueError:  # named with the reason where the map was chosen
            continue
        if shown is None or method.start == chosen[0].start:
            shown = heat
        yield "plain", method, PLAIN, heat
    run.save_array("plain", (heat if shown is None else shown).astype(np.float16))
    for method, heat in blind(test, taught).items() if test.outlined else ():
        yield "prior", method, "", heat


def described(
    context: Context, run: AnyRun, tuned: runs.Record, method: Method, test: Cases, taught: Cases
) -> pd.DataFrame:
    """Return what each test lesion is: ``image_id`` and the columns ``SUBGROUPS`` but the centre.

    ``classifier`` says whether the explained model calls the image right.
    """
    table, task = test.table, context.asked
    facts = table[["image_id"]].assign(**{"class": table[task.column] if task.classes else pd.NA})
    if "entity" in table and task.column != "entity":
        facts["entity"] = table["entity"]
    facts["site"] = [" + ".join(site) or pd.NA for site in table["site"]]
    if taught.outlined:
        edges = np.quantile(taught.masks.mean(axis=(1, 2)), [1 / 3, 2 / 3])
        facts["lesion size"] = np.array(SIZES)[np.digitize(test.masks.mean(axis=(1, 2)), edges)]
    called = right(task, predicted(context, run, tuned, method))
    facts["classifier"] = facts["image_id"].map(called).map({True: "right", False: "wrong"})
    return facts


def scores(run: AnyRun, localisation: pd.DataFrame) -> pd.DataFrame:
    """Average the measures of each kind of map, with intervals over patients."""
    if localisation.empty:
        return pd.DataFrame(columns=[*MAP, "role", "measure", "value", "low", "high", "n"])
    measures = [*MEASURES, "iou_at_threshold", "border", "border_uniform"]
    draws = run.settings["draws"]
    table = evaluation.means(localisation, measures, by=[*MAP, "role"], draws=draws)
    return keep(run, "scores", table)


def differences(run: AnyRun, localisation: pd.DataFrame) -> pd.DataFrame:
    """Set the chosen map beside every other one, on the same images and draws of patients.

    Returns:
        A row another map and measure: its columns, value (chosen minus it), low, high, p, and
        ``p_holm`` over all rows.
    """
    if localisation.empty:
        return pd.DataFrame(columns=[*MAP, "measure", "value", "low", "high", "p", "p_holm"])
    chosen = localisation[localisation["role"] == "chosen"].reset_index(drop=True)
    rows = []
    for names, part in localisation.groupby([*MAP, "role"], sort=False):
        if names[-1] == "chosen":
            continue
        found = paired(chosen, part, COMPARED, draws=run.settings["draws"])
        rows.append(found.assign(**dict(zip([*MAP, "role"], names, strict=True))))
    table = pd.concat(rows, ignore_index=True)
    return keep(run, "differences", table.assign(p_holm=evaluation.holm(table["p"].to_numpy())))


def paired(
    first: pd.DataFrame, second: pd.DataFrame, measures: tuple[str, ...], *, draws: int
) -> pd.DataFrame:
    """Average the differences of two tables of the same images, with intervals over patients."""
    gap = first[[*measures]].to_numpy(float) - second[[*measures]].to_numpy(float)
    known = np.isfinite(gap)
    statistics = {
        name: ranking.share_statistic(np.nan_to_num(gap[:, k]), known[:, k])
        for k, name in enumerate(measures)
    }
    return evaluation.estimate(first, statistics, draws=draws).assign(n=known.sum(axis=0))


# ---------------------------------------------------------------------- at what cost?
def predicted(context: Context, run: AnyRun, tuned: runs.Record, method: Method) -> pd.DataFrame:
    """Return what a model says of the test images: stored by notebook 05, or asked in words now."""
    if method.strategy != "prompt":
        return evaluation.by_method(tuned.table("predictions"))[method]
    one, view = load(context, tuned, method), context.view()
    test = view[view["split"] == "test"].reset_index(drop=True)
    whole = Cases(context, test, np.array([]), np.array([]), 0, 0, run.settings["size"])
    logits = features.encode(one.model, whole.batches(one.tower))
    named = dict(task=context.asked, seed=context.seed, method=method)
    table = evaluation.predictions(test, logits, **named)
    return evaluation.with_labels(table, opened(run))


def right(task: cohort.Task, predictions: pd.DataFrame) -> pd.Series:
    """Tell by image whether it is called right, at the stored threshold; empty for values."""
    table = predictions.dropna(subset=["label"]).set_index("image_id")
    if not task.classes:
        return pd.Series(dtype=bool)
    labels, p = task.encode(table["label"]), table[[f"p_{name}" for name in task.classes]]
    if task.positive and table.get("threshold", pd.Series([np.nan])).notna().all():
        positive = task.classes.index(task.positive)
        called = p.iloc[:, positive] >= table["threshold"]
        return called == (labels == positive)
    return pd.Series(p.to_numpy().argmax(axis=1) == labels, table.index)


def cost(
    context: Context, run: AnyRun, tuned: runs.Record, chosen: tuple[Method, str]
) -> pd.DataFrame:
    """Compare the explained model with full fine-tuning of the same start, as classifiers.

    Returns:
        One row: ``first``, ``second`` (names of columns of methods), metric, value (first minus
        second), low, high, p; of each its own score. Empty where there is no such pair.
    """
    if run.finished:
        return run.table("cost")
    stored = evaluation.by_method(tuned.table("predictions"))
    second = replace(chosen[0], strategy="full", detail="")
    if second not in stored:
        return keep(run, "cost", pd.DataFrame(columns=[*METHOD, "metric", "value"]))
    own = predicted(context, run, tuned, chosen[0])
    found = evaluation.compare(own, stored[second], task=context.asked)
    each = [evaluation.score(t, context.asked) for t in (own, stored[second])]
    row = chosen[0].columns() | found.to_dict() | {"own": each[0], "full": each[1]}
    return keep(run, "cost", pd.DataFrame([row]))


# ---------------------------------------------------------------------- where is it found?
def where(run: AnyRun, localisation: pd.DataFrame) -> pd.DataFrame:
    """Average the chosen map within subgroups, beside its gain over the best blind map.

    Returns:
        ``by``, ``group``, measure (pointing, energy, ``gain`` in pointing over the bone prior),
        value, low, high, n, ``groups`` (patients), ``note``: "too few" patients for numbers.
    """
    chosen = localisation[localisation["role"] == "chosen"].reset_index(drop=True)
    names = [by for by in SUBGROUPS if by in chosen and chosen[by].nunique() > 1]
    if not names:
        columns = ["by", "group", "measure", "value", "low", "high", "n", "groups", "note"]
        return pd.DataFrame(columns=columns)
    priors = dict(list(localisation.groupby("detail")))
    prior = next(priors[name] for name in ("bone prior", "centre prior") if name in priors)
    chosen = chosen.assign(gain=chosen["pointing"] - prior["pointing"].to_numpy())
    chosen = chosen.sort_values("area", kind="stable")  # sizes stand from small to large
    given = dict(measures=["pointing", "energy", "gain"], draws=run.settings["draws"])
    tables = [
        evaluation.means(chosen.dropna(subset=[by]), by=by, **given).rename(columns={by: "group"})
        for by in names
    ]
    table = pd.concat(tables, keys=names, names=["by"]).reset_index("by").reset_index(drop=True)
    few = table["groups"] < run.settings["minimum"]
    table.loc[few, ["value", "low", "high"]] = np.nan
    return keep(run, "where", table.assign(note=np.where(few, "too few", "")))
