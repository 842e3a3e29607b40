"""What is built on prompts: gates and calibration by validation patients, and windows of images."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bonelib import (
    adaptation,
    captions,
    cohort,
    evaluation,
    features,
    figures,
    images,
    runs,
    zero_shot,
)
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context, in_order, keep, opened
from bonelib.experiments.prompting.words import Seen, Words, asked_by
from bonelib.zero_shot import crops

Logits = Mapping[Method, np.ndarray]  # logits (N, C) of all that is seen
READER = 0.2  # share of the validation images, those of most doubt, that a reader is given
COVERAGES = (0.2, 0.4, 0.6, 0.8, 1.0)
TOP = 3  # windows of an image that stand for it
WINDOWS = asked_by("windows")
BLIND = {name: Method(sees="none", detail=f"{name} windows") for name in ("random", "central")}
MEASURES = ("best window on the lesion, share", f"best {TOP} windows on the lesion, share")
SHOWN = 4  # images whose windows are shown


# ---------------------------------------------------------------------- fitted on validation
def fit(
    run: runs.Run, words: Words, seen: Seen, asked: Logits, view: pd.DataFrame
) -> tuple[Logits, Logits]:
    """Choose gates and temperatures on validation patients; nothing for values or without labels.

    Returns:
        The probe and the cascades; calibrated logits: those of the first prompts by a temperature,
        of a pair with a bias by an offset too. Both of all that is seen.
    """
    task = seen.context.asked
    labels = task.encode(seen.table[task.column])
    val = seen.part("val") & (labels >= 0)
    if task.kind == "regression" or len(np.unique(labels[val])) < 2:
        return {}, {}
    first, *others = asked
    fitted = {}
    for method in (first, *(m for m in others if m.detail.endswith("sigmoid"))):
        logits = asked[method]
        moves = dict(offset=method is not first)
        heat, offset = zero_shot.calibrate(logits[val], labels[val], **moves)
        fitted[replace(method, strategy="calibrated")] = logits / heat + offset
    return dict(_gates(run, words, seen, asked, view, val)), fitted


def _gates(
    run: runs.Run, words: Words, seen: Seen, asked: Logits, view: pd.DataFrame, val: np.ndarray
) -> Iterator[tuple[Method, np.ndarray]]:
    """Yield the probe, and the first prompts with the other style or the probe as second stage.

    The thresholds are kept as ``gates``, that of a reader too.
    """
    context, first = seen.context, next(iter(asked))
    x = context.features(words.model.image, seen.cache, view["image_id"])
    places = pd.Index(view["image_id"]).get_indexer(seen.table["image_id"])
    probed = probe(context, run, view, x, places)
    if probed.ndim == 1:  # of two classes
        probed = np.column_stack([np.zeros(len(probed)), probed])
    yield Method("captions", "probe", "image"), probed

    def score(logits: np.ndarray) -> float:
        named = dict(task=context.asked, seed=context.seed)
        table = evaluation.predictions(seen.table[val], logits, **named)
        return evaluation.score(table, context.asked)

    doubt = evaluation.entropy(asked[first][val])
    cuts = {"reader": np.quantile(doubt, 1 - READER)}
    second = {m.detail: x for m, x in asked.items() if m.detail in list(words.prompts)[1:2]}
    for name, logits in (second | {"the probe": probed}).items():
        said = f"{first.detail}, then {name}"
        cuts[said] = zero_shot.choose_gate(asked[first][val], logits[val], score)
        method = Method("captions", "cascade", "image", detail=said)
        yield method, zero_shot.gated(asked[first], logits, cuts[said])
    run.save_table("gates", pd.DataFrame(cuts.items(), columns=["detail", "threshold"]))


def probe(
    context: Context, run: runs.Run, view: pd.DataFrame, x: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Fit a linear probe to the training rows of ``x`` ``(N, D)``; logits of ``rows``."""
    task, train = context.asked, (view["split"] == "train").to_numpy()
    labels, group = task.encode(view[task.column]), view["group"].to_numpy()
    fitting = dict(classes=len(task.classes), strengths=tuple(run.settings["strengths"]))
    fitted = adaptation.probe(x[train], labels[train], group[train], seed=context.seed, **fitting)
    return fitted.logits(x[rows])


# ---------------------------------------------------------------------- who is sure?
def risk(context: Context, run: AnyRun, predictions: pd.DataFrame) -> pd.DataFrame:
    """Score how much each gate errs among the images of least doubt, with intervals.

    Returns:
        A row a method and measure: ``AURC``, ``risk`` at each ``coverage``.
    """
    task, tables = context.asked, evaluation.by_method(predictions)
    asked = [m for m in tables if m.strategy in ("probe", "cascade") and m.start == "captions"]
    if not asked:
        return pd.DataFrame()
    found = []
    for method in (next(iter(tables)), *asked):
        table = tables[method].dropna(subset=["label"])
        errors, doubt = _errors(task, table)
        measures = {c: zero_shot.selective_risk(errors, doubt, c) for c in (0.0, *COVERAGES)}
        rows = evaluation.estimate(table, measures, draws=1000)
        found.append(rows.rename(columns={"measure": "coverage"}).assign(**method.columns()))
    return keep(run, "risk", pd.concat(found, ignore_index=True))


def _errors(task: cohort.Task, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the most probable class is wrong, and the entropy as a share of the most."""
    p = _probabilities(task, table)
    wrong = (p.argmax(axis=1) != task.encode(table["label"])).astype(float)
    with np.errstate(divide="ignore"):
        return wrong, evaluation.entropy(np.log(p))


def _probabilities(task: cohort.Task, table: pd.DataFrame) -> np.ndarray:
    return table[[f"p_{name}" for name in task.classes]].to_numpy(dtype=float)


def draw_risk(risk: pd.DataFrame) -> plt.Figure | None:
    """Draw the risk over the coverage; None where nothing is gated."""
    return None if risk.empty else figures.plot_risk(risk).get_figure(root=True)


def read_risk(context: Context, run: AnyRun, predictions: pd.DataFrame, risk: pd.DataFrame) -> str:
    """Say how much less the sure images err, and what a reader would be left with."""
    if risk.empty:
        return "**Reading.** Nothing is gated: a value has no classes to doubt, or none are known."
    table = next(iter(evaluation.by_method(predictions).values())).dropna(subset=["label"])
    wrong, doubt = _errors(context.asked, table)
    gates = run.table("gates").set_index("detail")["threshold"]
    kept = doubt < gates["reader"]
    left = table.assign(kept=kept.astype(float), wrong=np.where(kept, wrong, np.nan))
    shares = evaluation.means(left, ["kept", "wrong"], by="strategy", draws=1000)
    told = figures.intervals(shares, "measure")
    areas = risk[risk["coverage"] == 0].assign(name=figures.display_names)
    said = "; ".join(map(" ".join, figures.intervals(areas, "name").items()))
    return (
        f"**Reading.** Mean risk over all coverages (AURC): {said}. The threshold that gives a "
        f"reader {READER:.0%} of the validation images leaves {told['kept']} of the test images "
        f"to the first prompts, of which {told['wrong']} are wrong; of all test images "
        f"{figures.intervals(risk[risk['coverage'] == 1][:1], 'coverage')[1.0]} are."
    )


# ---------------------------------------------------------------------- are they calibrated?
def calibration(context: Context, run: AnyRun, predictions: pd.DataFrame) -> pd.DataFrame:
    """Score probabilities before and after calibration: NLL, its change, and ECE."""
    task, found = context.asked, []
    tables = evaluation.by_method(predictions)
    fitted = run.table("calibrated") if tables else predictions
    for method, after in evaluation.by_method(fitted).items():
        losses = []
        for when, table in {"before": tables[asked_by(method.detail)], "after": after}.items():
            table = table.dropna(subset=["label"])
            p, labels = _probabilities(task, table), task.encode(table["label"])
            losses.append(zero_shot.nll(np.log(p.clip(1e-300)), labels))
            measures = {"NLL": _mean(losses[-1]), "ECE": zero_shot.ece(p, labels)}
            if when == "after":
                measures["NLL, change"] = _mean(losses[1] - losses[0])
            rows = evaluation.estimate(table, measures, draws=1000)
            found.append(rows.assign(prompts=method.detail, when=when))
    if not found:
        return pd.DataFrame(columns=["prompts", "when", "measure", "value", "low", "high", "n"])
    shown = pd.concat(found, ignore_index=True).drop(columns="p")  # against 0 it says nothing
    return keep(run, "calibration", shown[["prompts", "when", *shown.columns[:-2]]])


def _mean(values: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda weights: weights @ values / weights.sum()


def draw_calibration(
    context: Context, run: AnyRun, predictions: pd.DataFrame, scores: pd.DataFrame
) -> plt.Figure | None:
    """Draw the reliability of the first prompts before and after; None without a positive class."""
    if scores.empty or not context.asked.positive:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.4), layout="constrained")
    tables = {"before": predictions, "after": run.table("calibrated")}
    for ax, (when, table) in zip(axes, tables.items(), strict=True):
        first = next(iter(evaluation.by_method(table).values()))
        figures.plot_calibration(first, context.task, ax, bins=5, draws=1000)
        ax.set_xlabel(f"{ax.get_xlabel()},\nprompts by {first['detail'].iloc[0]}, {when} scaling")
    return figure


def read_calibration(scores: pd.DataFrame) -> str:
    """Say what the temperature does to the loss and to the calibration error."""
    if scores.empty:
        return "**Reading.** Nothing is calibrated: a value, or validation images of one class."
    first = scores[scores["prompts"] == scores["prompts"].iloc[0]]
    told = figures.intervals(first, ["measure", "when"])
    return (
        f"**Reading.** By {scores['prompts'].iloc[0]}: NLL {told['NLL', 'before']} before and "
        f"{told['NLL', 'after']} after, a change of {told['NLL, change', 'after']} nats; ECE "
        f"{told['ECE', 'before']} and {told['ECE', 'after']}. Less is better. The calibrated "
        "rows are fitted on validation labels and are no zero-shot."
    )


# ---------------------------------------------------------------------- which part is it?
def windows(run: runs.Run, words: Words, seen: Seen) -> pd.DataFrame:
    """Score windows of the test images by prompts, and ask about the mean of the best of them.

    A window is scored by how much less it looks normal; where the task has no normal class, by the
    prompts for tumours.

    Returns:
        Predictions; the scores ``(N, B)`` are kept as ``windows``.
    """
    task, boxes = seen.context.asked, crops.grid(seen.cache.size)
    ids = seen.table.loc[seen.part("test"), "image_id"]
    batches = crops.cut(in_order(seen.cache, ids, words.model.image), boxes)
    unit = features.encode(words.model.encode_image, batches, rows=len(ids) * len(boxes))
    asked = task if task.normal else cohort.task("tumor")
    said = captions.prompts(asked, style="label", language=words.languages[0])
    classes = zero_shot.class_features(words.model, said)
    logits = zero_shot.logits(unit, classes, scale=words.scale)
    p = evaluation.probabilities(logits, task=asked)[:, asked.classes.index(asked.normal)]
    scores = 1 - p.reshape(len(ids), len(boxes))
    run.save_array("windows", scores.astype(np.float32))
    best = crops.best(scores, TOP)[..., None]
    mean = np.take_along_axis(unit.reshape(*scores.shape, -1), best, axis=1).mean(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    classes = zero_shot.class_features(words.model, words.first)
    method = asked_by(f"{next(iter(words.prompts))} on windows")
    return seen.predicted(method, zero_shot.logits(mean, classes, scale=words.scale))


def regions(
    context: Context, run: AnyRun, predictions: pd.DataFrame
) -> tuple[pd.DataFrame, plt.Figure | None]:
    """Compare the best windows with outlines, beside windows of their sizes that no prompt chose.

    Returns:
        Hit rates with intervals, and how much higher those by prompts are; a sheet of maps, at each
        pixel the mean score of its windows. Empty and None without an outlined test finding.
    """
    outlined = pd.Series() if predictions.empty else _outlined(context, run)
    test = context.view().query("split == 'test'").reset_index(drop=True)
    rows = test["image_id"].isin(outlined.index).to_numpy()
    if not rows.any():
        return pd.DataFrame(), None
    table, size = test[rows], run.settings["size"]
    cache = context.cache(size, fit=run.settings["resize"])
    places = cache.geometry.set_index("image_id", drop=False)
    outlines = [(outlined[i], places.loc[i]) for i in table["image_id"]]
    masks = np.array([images.mask(*outline, size=size) for outline in outlines])
    windows, boxes = run.array("windows")[rows], crops.grid(size)
    best = crops.best(windows, TOP)
    hits = {WINDOWS: np.take_along_axis(crops.hits(boxes, masks), best, axis=1).astype(float)}
    for name, values in crops.baselines(boxes, masks, best).items():
        hits[BLIND[name]] = values
        hits[replace(WINDOWS, detail=f"gain over {name}")] = hits[WINDOWS] - values
    scored = [
        table.assign(**{MEASURES[0]: x[:, 0], MEASURES[1]: x.mean(axis=1)}, **method.columns())
        for method, x in hits.items()
    ]
    heat = crops.heat(windows[:SHOWN], boxes, size)
    heat -= heat.min(axis=(1, 2), keepdims=True)
    titles = [f"best window {'hits' if x else 'misses'}" for x in hits[WINDOWS][:SHOWN, 0]]
    pixels = cache.images[cache.rows(table["image_id"].iloc[:SHOWN])]
    what = "score of windows above the lowest"
    sheet = figures.heatmap_sheet([*pixels], heat, [*masks[:SHOWN]], titles, what=what)
    return evaluation.means(pd.concat(scored), list(MEASURES)), sheet


def _outlined(context: Context, run: AnyRun) -> pd.Series:
    """Return the outlines of the test images whose label says that something is there, by image."""
    sealed, task = context.here(opened(run)).set_index("image_id"), context.asked
    outlines = sealed.reindex(columns=[cohort.MASK])[cohort.MASK]
    return outlines[task.findings(task.encode(sealed[task.column]))].dropna()


def draw_regions(scores: pd.DataFrame) -> plt.Figure | None:
    """Draw the hit rates by prompts and blind; None without outlines."""
    hit = scores if scores.empty else scores[~scores["detail"].str.startswith("gain")]
    return None if scores.empty else figures.plot_localisation(hit)


def read_regions(scores: pd.DataFrame) -> str:
    """Say how often the best window hits, and by how much more than one that sees nothing."""
    if scores.empty:
        return "**Reading.** No test image with a finding has an outline: nothing is compared."
    told = figures.intervals(scores[scores["measure"] == MEASURES[0]], "detail")
    return (
        f"**Reading.** In {scores['n'].iloc[0]:,} outlined images the best window hits the lesion "
        f"with {told[WINDOWS.detail]}; a random window of its size with "
        f"{told['random windows']} and the central one with {told['central windows']}. The gain is "
        f"{told['gain over random']} over random and {told['gain over central']} over the central."
    )
