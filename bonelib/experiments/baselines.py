"""Baselines, step by step as notebook 02 scores them: what a model must beat that sees no bone.

The run of notebook 01 comes in; out-of-fold predictions of metadata, file properties, a thumbnail
and frozen encoders go out. All share one protocol: a head, a linear probe first, whose settings are
chosen inside the training folds, scored on the images that each fold holds out.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bonelib import adaptation, cohort, encoders, evaluation, figures, reporting
from bonelib.evaluation import Method
from bonelib.experiments import settings
from bonelib.experiments.context import METADATA, AnyRun, Context, keep, metadata, opened
from bonelib.experiments.progress import bar, each
from bonelib.experiments.settings.towers import rung_method, rung_tower

LITE0 = "lite0"
FIRST = ("lite0_random", LITE0, "resnet50", "dinov2_small", "clip")
# ``size`` is the largest side of the input; 0 leaves each encoder its own.
SETTINGS = pd.DataFrame(
    {
        "tiny": dict(size=64, strengths=(0.01,), encoders=FIRST, heads=("probe",)),
        "demo": dict(
            size=224, strengths=adaptation.STRENGTHS, encoders=FIRST, heads=("probe", "rbf_svm")
        ),
        "full": dict(
            size=0,
            strengths=adaptation.STRENGTHS,
            encoders=tuple(encoders.rungs()),
            heads=settings.LADDER_HEADS,
        ),
    },
    dtype=object,
)
SELECTED = Method(strategy="selected")
FILE = Method(strategy="probe", sees="file")
THUMBNAIL = Method(strategy="probe", sees="thumbnail")
THUMBNAIL_SIZE, FILES_SIZE = 32, 224  # pixels
REFERENCE = Path(__file__).parent / "reference.csv"


@dataclass(frozen=True)
class Folds:
    """All images, and what each fold shows of their labels.

    Attributes:
        table: The view of the first fold.
        labels: ``(folds, N)``, -1 or NaN where held out or unknown.
        held: ``(folds, N)`` bool.
        pictured: Every row has its image.
    """

    table: pd.DataFrame
    labels: np.ndarray
    held: np.ndarray
    pictured: bool


@dataclass(frozen=True)
class Fit:
    """A head that was fitted to the other folds.

    Attributes:
        test: ``(N,)`` bool, the images held out.
        inner: Its best score on inner folds.
        logits: What it says of the images held out.
        made: Strategy, support and fitted head, from which it can be calibrated.
    """

    test: np.ndarray
    inner: float
    logits: np.ndarray
    made: tuple[adaptation.Strategy, adaptation.Support, adaptation.Fitted]


@dataclass(frozen=True)
class Seen:
    """What each baseline sees of each image.

    Attributes:
        features: ``(N, D)`` of each method.
        unavailable: The methods whose weights can't be had, each with how to get them.
        commands: What fetches them.
        notes: What was assumed of the encoders.
    """

    features: dict[Method, np.ndarray]
    unavailable: dict[Method, str]
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The baselines that are unavailable, as the record names them."""
        return [{"method": m.columns(), "reason": why} for m, why in self.unavailable.items()]

    @property
    def described(self) -> pd.DataFrame:
        """A row a baseline: its name, how many numbers it sees of an image, its status and cure."""
        name = figures.display_name
        rows = [(name(m), x.shape[1], "", "") for m, x in self.features.items()]
        cures = zip(self.unavailable, self.commands, strict=True)
        rows += [(name(m), pd.NA, figures.UNAVAILABLE, command) for m, command in cures]
        table = pd.DataFrame(rows, columns=["baseline", "numbers", "status", "fetched by"])
        return table.astype({"numbers": "Int64"})


def plan(context: Context, *, encoders: str = "", heads: str = "") -> dict[str, Any]:
    """Return the settings of this profile as the record keeps them.

    ``squash`` resizes the whole image to a square, as the recipe of the reference scores does.

    Args:
        encoders: Rungs of the ladder by name, or towers (``onnx:FILE``, ``bundle:FOLDER``), by
            commas, in place of the profile's.
        heads: What is fitted to the features of each, by commas, in place of the profile's.

    Raises:
        ValueError: An unknown name.
    """
    chosen = SETTINGS[context.profile].to_dict() | dict(test="folds", fit="squash")
    if encoders:
        chosen["encoders"] = settings.encoder_names(encoders)
    if heads:
        chosen["heads"] = settings.head_names(heads)
    return chosen


def folds(context: Context) -> Folds:
    """Return all images with the labels that each fold shows; no label of a held-out image is."""
    data, task = context.cohort_run, context.asked
    views = [context.view(f"fold{k}") for k in range(data.settings["folds"])]
    return Folds(
        table=views[0],
        labels=np.stack([task.encode(view[task.column]) for view in views]),
        held=np.stack([(view["split"] == "test").to_numpy() for view in views]),
        pictured=data.notes["pictured"] == len(views[0]),
    )


# ---------------------------------------------------------------------- what does each one see?
def see(context: Context, folds: Folds, plan: Mapping[str, Any]) -> Seen:
    """Return what each baseline sees: metadata, file properties, a thumbnail, frozen features.

    Where images are missing only metadata are seen.
    """
    table, features = folds.table, metadata(folds.table)
    if not folds.pictured:
        return Seen(features, {})
    sizes = (plan["size"] or FILES_SIZE, THUMBNAIL_SIZE)
    cache, small = (context.cache(size, fit=plan["fit"]) for size in sizes)
    rows = cache.rows(table[cohort.IMAGE_ID])
    facts = pd.get_dummies(cache.files.drop(columns=["image_id", "sha256"]), dtype=float)
    features[FILE] = facts.iloc[rows].to_numpy(float)
    features[THUMBNAIL] = small.images[rows].reshape(len(rows), -1)
    unavailable, commands, notes = {}, [], []
    for rung in map(encoders.rung, plan["encoders"]):
        method = rung_method(rung)
        try:
            tower = rung_tower(context, rung, largest=plan["size"])
        except encoders.WeightsNotAvailable as error:
            unavailable[method] = str(error)
            commands.append(f"bonelib weights {rung.rung}")
            continue
        cache = context.cache(tower.preprocessing.size, fit=plan["fit"])
        features[method] = context.features(tower, cache, table[cohort.IMAGE_ID])
        notes += tower.notes
    own = rung_method(encoders.rung(LITE0))
    if own in features:
        beside = Method(own.start, own.strategy, "image+metadata")
        features[beside] = np.hstack([features[own], features[METADATA]])
    return Seen(features, unavailable, tuple(notes), tuple(commands))


def read_seen(seen: Seen, folds: Folds) -> str:
    """Say how many baselines there are, and what is missing."""
    said = f"**Reading.** {len(seen.features)} baselines see {len(folds.table):,} rows."
    if not folds.pictured:
        return said + " Not every row has its image, so that nothing is asked of pictures."
    said += f" The weights of {len(seen.unavailable)} encoders can't be had here."
    return " ".join([said, *seen.notes])


# ---------------------------------------------------------------------- how far does each one go?
def predict(
    context: Context, run: AnyRun, seen: Seen, folds: Folds, plan: Mapping[str, Any]
) -> pd.DataFrame:
    """Predict each image by heads fitted to the other folds; the labels are opened after that.

    Returns:
        A predictions table with the columns of the methods.
    """
    if run.finished:
        return run.table("predictions")
    table, frames, tried = folds.table, [], []
    both = [*itertools.product(seen.features.items(), plan["heads"])]
    with bar("cross-validation", "methods") as show:
        for (method, x), head in each(both, show):
            own = replace(method, strategy=head)
            fits = [*_fits(context, head, x, folds)] if _may_be_best(own, plan) else []
            tried += [(own, fits)] if fits else []
            if head == "probe":
                logits = _probes(context, x, folds, plan)
            else:
                own_fits = fits or _fits(context, head, x, folds)
                logits = _joined(((fit.test, fit.logits) for fit in own_fits), len(x))
            frames.append(_frame(context, table, logits, own))
    if tried:
        chosen, logits = _selected(tried, len(table))
        run.save_table("chosen", chosen)
        frames.append(_frame(context, table, logits, SELECTED))
    return keep(run, "predictions", evaluation.with_labels(pd.concat(frames), opened(run)))


def _frame(
    context: Context, table: pd.DataFrame, logits: np.ndarray, method: Method
) -> pd.DataFrame:
    told = dict(task=context.asked, seed=context.seed, method=method)
    return evaluation.predictions(table, logits, **told).assign(split="test", label=pd.NA)


def _probes(context: Context, x: np.ndarray, folds: Folds, plan: Mapping[str, Any]) -> np.ndarray:
    """Return what the linear probe of the other folds says of each image."""
    groups = folds.table[cohort.GROUP].to_numpy()
    options = dict(classes=len(context.asked.classes), strengths=tuple(plan["strengths"]))
    return adaptation.cross_fit(x, folds.labels, folds.held, groups, **options)


def _fits(context: Context, head: str, x: np.ndarray, folds: Folds) -> Iterator[Fit]:
    """Fit a head fold by fold."""
    task, groups = context.asked, folds.table[cohort.GROUP].to_numpy()
    adaptation.probes.check_folds(folds.labels, folds.held, groups)
    strategy, points = adaptation.strategy(head), adaptation.points(head, task.kind)
    for visible, test in zip(folds.labels, folds.held, strict=True):
        labelled = np.isfinite(visible) if task.kind == "regression" else visible >= 0
        rows = ~test & labelled
        support = adaptation.Support(
            features=np.asarray(x[rows], dtype=np.float32),
            labels=visible[rows],
            groups=groups[rows],
            classes=len(task.classes),
            ordinal=task.kind == "ordinal",
            seed=context.seed,
        )
        fitted = adaptation.fit(strategy, support, points)
        logits = fitted.logits(np.asarray(x[test], dtype=np.float32))
        yield Fit(test, fitted.inner.max(initial=-np.inf), logits, (strategy, support, fitted))


def _joined(parts: Iterable[tuple[np.ndarray, np.ndarray]], n: int) -> np.ndarray:
    out = np.empty(0)
    for test, logits in parts:
        out = out if len(out) else np.empty((n, *logits.shape[1:]))
        out[test] = logits
    return out


# ---------------------------------------------------------------------- which one is best?
def _may_be_best(method: Method, plan: Mapping[str, Any]) -> bool:
    """Whether inner folds choose it too: heads of images by towers with weights, if several."""
    return method.sees == "image" and method.start != "scratch" and len(plan["heads"]) > 1


def _selected(tried: Sequence[tuple[Method, list[Fit]]], n: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Let the inner folds of each fold choose encoder and head.

    Folds may choose different heads, whose logits are calibrated before they are pooled.

    Returns:
        A row a fold: the method that was chosen and its ``inner`` score; and the logits ``(N, …)``
        that each image got from the choice of the fold that holds it out.
    """
    rows, parts = [], []
    for k in range(len(tried[0][1])):
        inner = [fits[k].inner for _, fits in tried]
        method, fits = tried[int(np.argmax(inner))]
        rows.append({"held out": k} | method.columns() | {"inner": max(inner)})
        parts.append((fits[k].test, adaptation.calibrated(*fits[k].made)(fits[k].logits)))
    return pd.DataFrame(rows), _joined(parts, n)


def beside_probe(context: Context, predictions: pd.DataFrame) -> pd.DataFrame:
    """Set the choice of inner folds beside the linear probe on ImageNet features, paired.

    Returns:
        One row as of ``evaluation.compare``, the choice minus the probe; none where nothing chose.
    """
    by_method, probe = evaluation.by_method(predictions), rung_method(encoders.rung(LITE0))
    if not {SELECTED, probe} <= by_method.keys():
        return pd.DataFrame()
    found = evaluation.compare(by_method[SELECTED], by_method[probe], task=context.asked)
    return found.to_frame().T


def read_choice(run: AnyRun, beside: pd.DataFrame) -> str:
    """Say what inner folds chose, and what that adds to the probe."""
    if beside.empty:
        return "**Reading.** One head was fitted to each encoder, so that nothing was chosen."
    chosen = figures.display_names(run.table("chosen"))
    counted = ", ".join(f"*{name}* in {n}" for name, n in chosen.value_counts().items())
    gain = figures.with_interval(*beside.iloc[0][["value", "low", "high"]])
    return (
        f"**Reading.** Of {len(chosen)} folds inner folds chose {counted}. The choice minus the "
        f"linear probe on ImageNet features: {beside['metric'].iloc[0]} {gain}."
    )


# ---------------------------------------------------------------------- what would it call?
def evidence(
    context: Context, run: AnyRun, predictions: pd.DataFrame, folds: Folds
) -> list[reporting.evidence.Evidence]:
    """Judge the choice of inner folds; else the probe on ImageNet features; else metadata."""
    made = evaluation.by_method(predictions)
    named = (SELECTED, rung_method(encoders.rung(LITE0)), METADATA)
    told = dict(task=context.asked, method=next(m for m in named if m in made))
    return [reporting.evidence.judge(predictions, folds.table, opened=opened(run), **told)]


def read_scores(context: Context, scores: pd.DataFrame) -> str:
    """Say what metadata and file properties reach alone, and which baseline is best."""
    known = context.ranked(scores)
    best, by_method = known.iloc[0], evaluation.by_method(known)
    said = [
        f"{row['method']} {context.primary(row)}"
        for method in (METADATA, FILE)
        for _, row in by_method.get(method, known.head(0)).iterrows()
    ]
    return (
        f"**Reading.** {context.metric}: {'; '.join(said)}. The best baseline is "
        f"*{best['method']}* with {context.primary(best)} ({int(best['n'])} images, "
        f"{best['group_kind']})."
    )


# ---------------------------------------------------------------------- does a shortcut explain it?
def without_hardware(context: Context, predictions: pd.DataFrame, folds: Folds) -> pd.DataFrame:
    """Score the same predictions without the images that show hardware; empty where none does."""
    table = folds.table
    if cohort.HARDWARE not in table or not table[cohort.HARDWARE].eq(1).any():
        return pd.DataFrame()
    clean = table.loc[table[cohort.HARDWARE].ne(1).fillna(True), cohort.IMAGE_ID]
    return reporting.scores(predictions[predictions["image_id"].isin(clean)], task=context.asked)


def read_hardware(context: Context, scores: pd.DataFrame, clean: pd.DataFrame) -> str:
    """Say which baseline loses most when images with hardware are left out."""
    if clean.empty:
        return "**Reading.** No image of this set is marked as showing hardware."
    metric = context.metric
    both = scores.merge(clean, on=list(evaluation.METHOD), suffixes=("", " clean"))
    change = (both[f"{metric} clean"] - both[metric]).dropna()
    most = change.abs().idxmax()
    return (
        f"**Reading.** Without hardware {int(clean['n'].max())} images are left. The score that "
        f"moves most is that of *{both['method'][most]}*: {metric} {change[most]:+.3f}."
    )


def beside_reference(context: Context, scores: pd.DataFrame) -> pd.DataFrame:
    """Set the scores beside those that were computed before on this very set, where there are any.

    Returns:
        ``method, reference, low, high, here, within``.
    """
    known = pd.read_csv(REFERENCE, keep_default_na=False)
    known = known[(known["data"] == context.data) & (known["task"] == context.task)]
    if known.empty:
        return pd.DataFrame()
    own = scores[["method", *evaluation.METHOD, context.metric]]
    own = own.rename(columns={context.metric: "here"})
    both = known.merge(own, on=list(evaluation.METHOD))
    both["within"] = both["here"].between(both["low"], both["high"])
    return both[["method", "reference", "low", "high", "here", "within"]]


def read_reference(beside: pd.DataFrame) -> str:
    """Say how many scores lie in the interval of the reference."""
    if beside.empty:
        return "**Reading.** There are no reference scores for this set and task."
    return (
        f"**Reading.** {int(beside['within'].sum())} of {len(beside)} scores lie within the "
        "interval of their reference."
    )
