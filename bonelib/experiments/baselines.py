"""Baselines, step by step as notebook 02 scores them: what a model must beat that sees no bone.

The run of notebook 01 comes in; out-of-fold predictions of metadata, file properties, a thumbnail
and frozen encoders go out. All share one protocol: a linear probe whose strength is chosen inside
the training folds, scored on the images that each fold holds out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bonelib import adaptation, cohort, encoders, evaluation, figures, reporting, runs, splits
from bonelib.evaluation import Method
from bonelib.experiments.context import METADATA, AnyRun, Context, keep, metadata

# ``squash`` resizes the whole image to a square, as the recipe of the reference scores does.
SETTINGS = pd.DataFrame(
    {
        "tiny": dict(size=64, strengths=(0.01,)),
        "demo": dict(size=224, strengths=adaptation.STRENGTHS),
        "full": dict(size=224, strengths=adaptation.STRENGTHS),
    },
    dtype=object,
)
LITE0 = "packaged:efficientnet_lite0"
FROZEN = (  # encoders with their weights; what must be downloaded may not be there
    (LITE0, "random"),
    (LITE0, "pretrained"),
    ("timm:resnet50.a1_in1k", "pretrained"),
    ("timm:vit_small_patch14_dinov2.lvd142m", "pretrained"),
    ("timm:vit_base_patch32_clip_224.openai", "pretrained"),
)
FILE = Method(strategy="probe", sees="file")
THUMBNAIL = Method(strategy="probe", sees="thumbnail")
THUMBNAIL_SIZE = 32  # pixels
LITERATURE = "notebooks/literature.csv"  # grows with the reading, so it is no package data
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
class Seen:
    """What each baseline sees of each image.

    Attributes:
        features: ``(N, D)`` of each method.
        unavailable: The methods whose weights can't be had, each with how to get them.
        notes: What was assumed of the encoders.
    """

    features: dict[Method, np.ndarray]
    unavailable: dict[Method, str]
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The baselines that are unavailable, as the record names them."""
        return [{"method": m.columns(), "reason": why} for m, why in self.unavailable.items()]

    @property
    def described(self) -> pd.DataFrame:
        """A row a baseline: its name, how many numbers it sees of an image, and its status."""
        name = figures.display_name
        rows = [(name(m), x.shape[1], "") for m, x in self.features.items()]
        rows += [(name(m), pd.NA, figures.UNAVAILABLE) for m in self.unavailable]
        table = pd.DataFrame(rows, columns=["baseline", "numbers", "status"])
        return table.astype({"numbers": "Int64"})


def plan(context: Context) -> dict[str, Any]:
    """Return the settings of this profile as the record keeps them."""
    common = dict(test="folds", fit="squash", frozen=FROZEN)
    return SETTINGS[context.profile].to_dict() | common


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


# ---------------------------------------------------------------------- what has been reported?
def literature(context: Context) -> pd.DataFrame:
    """Return what papers report on this task; empty outside of a checkout."""
    file = runs.ROOT / LITERATURE
    if not file.exists():
        return pd.DataFrame(columns=["paper", "task"])
    table = pd.read_csv(file)
    return table[table["task"].isin([context.task, "malignancy"])]


def read_literature(context: Context, table: pd.DataFrame) -> str:
    """Say how many reported figures may be set beside ours."""
    fair = int(table["comparable"].eq("yes").sum()) if len(table) else 0
    return (
        f"**Reading.** {len(table)} figures are listed for {context.task} or malignancy; {fair} of "
        "them come from a split that is also made here."
    )


# ---------------------------------------------------------------------- what does each one see?
def see(context: Context, folds: Folds, plan: Mapping[str, Any]) -> Seen:
    """Return what each baseline sees: metadata, file properties, a thumbnail, frozen features.

    Where images are missing only metadata are seen.
    """
    table, features = folds.table, metadata(folds.table)
    if not folds.pictured:
        return Seen(features, {})
    cache, small = (context.cache(size, fit=plan["fit"]) for size in (plan["size"], THUMBNAIL_SIZE))
    rows = cache.rows(table[cohort.IMAGE_ID])
    facts = pd.get_dummies(cache.files.drop(columns=["image_id", "sha256"]), dtype=float)
    features[FILE] = facts.iloc[rows].to_numpy(float)
    features[THUMBNAIL] = small.images[rows].reshape(len(rows), -1)
    unavailable, notes = {}, []
    for name, weights in plan["frozen"]:
        method = _encoder(name, weights)
        try:
            tower = encoders.image(name, weights=weights, size=plan["size"], seed=context.seed)
        except encoders.WeightsNotAvailable as error:
            unavailable[method] = str(error)
            continue
        features[method] = context.features(tower, cache, table[cohort.IMAGE_ID])
        notes += tower.notes
    own = _encoder(LITE0, "pretrained")
    if own in features:
        beside = Method(own.start, own.strategy, "image+metadata")
        features[beside] = np.hstack([features[own], features[METADATA]])
    return Seen(features, unavailable, tuple(notes))


def _encoder(name: str, weights: str) -> Method:
    tower = name.partition(":")[2]
    if weights == "random":
        return Method("scratch", "probe", "image", detail=tower)
    return Method(tower, "probe", "image")


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
    """Predict each image by probes fitted to the other folds; the labels are opened after that.

    Returns:
        A predictions table with the columns of the methods.
    """
    if run.finished:
        return run.table("predictions")
    table, task, frames = folds.table, context.asked, []
    groups, strengths = table[cohort.GROUP].to_numpy(), tuple(plan["strengths"])
    for method, x in seen.features.items():
        options = dict(classes=len(task.classes), strengths=strengths)
        logits = adaptation.cross_fit(x, folds.labels, folds.held, groups, **options)
        told = dict(task=task, seed=context.seed, method=method)
        frame = evaluation.predictions(table, logits, **told)
        frames.append(frame.assign(split="test", label=pd.NA))
    opened = evaluation.with_labels(pd.concat(frames), splits.open_test(run))
    return keep(run, "predictions", opened)


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
