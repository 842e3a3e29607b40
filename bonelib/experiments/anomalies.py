"""What is unlike normal bone, as a section of notebook 08 asks it.

A task with a normal class and a tower come in; scores learnt from normal images alone, adapters
learnt from some outlines (MVFA), and a probe with Grad-CAM of the same tower go out, on the same
test images. Where nothing can be asked, no test label is opened and every table is empty.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from bonelib import (
    adaptation,
    anomaly,
    captions,
    cohort,
    encoders,
    evaluation,
    explain,
    figures,
    images,
    models,
    runs,
    splits,
    zero_shot,
)
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context, opened

ASKED = ("anomaly", "fracture", "tumor")  # the first of which both classes are known
TOWER, READER = "packaged:efficientnet_lite0", "packaged:minilm"  # without a pretraining
# ``shots`` a class with the epochs they get, 0 for all images; ``validation``: images a class that
# choose the epoch and calibrate; ``bank``: patches of normal images.
SETTINGS = pd.DataFrame(
    {
        "tiny": dict(size=64, shots=((4, 1),), validation=8, bank=20, draws=100),
        "demo": dict(size=128, shots=((16, 10), (150, 4)), validation=40, bank=300, draws=1000),
        "full": dict(size=224, shots=((4, 20), (16, 20), (0, 20)), validation=200, bank=1000)
        | dict(draws=2000),
    },
    dtype=object,
)
CENTRE = Method(sees="none", detail="centre prior")
BANKED = 400  # normal images whose patches may enter the bank of ``patch_knn``
CASES = 4  # on the sheet
_SCORED = ("metric", "value", "low", "high", "n", "groups", "group_kind")
Judged = tuple[Method, np.ndarray, np.ndarray | None]  # logits and maps of test images


@dataclass
class Setup:
    """What is asked of which images; of a setup with a ``reason`` nothing can be asked.

    Attributes:
        view: Images of the task, labels and outlines of test images hidden.
        labels: ``(N,)`` 1 abnormal, 0 normal, -1 hidden.
        masks: ``(N, S, S)``, empty where there is no outline or it is hidden.
        texts: ``(2, D)`` unit features of the words for normal and for abnormal.
        start: Where the tower comes from, ``imagenet`` or ``captions``.
    """

    context: Context
    plan: dict[str, Any]
    reason: str = ""
    task: cohort.Task = field(init=False)
    view: pd.DataFrame = field(init=False)
    labels: np.ndarray = field(init=False)
    masks: np.ndarray = field(init=False)
    tower: encoders.ImageEncoder = field(init=False)
    cache: images.Cache = field(init=False)
    texts: np.ndarray = field(init=False)
    start: str = "imagenet"

    def rows(self, part: str, label: int | None = None) -> np.ndarray:
        """Return the places of the rows of a part, of one class alone where that is given."""
        chosen = (self.view[cohort.SPLIT] == part).to_numpy()
        return np.flatnonzero(chosen if label is None else chosen & (self.labels == label))

    def loader(self, rows: np.ndarray, **more: Any) -> images.Loader:
        """Return batches of rows, in order unless more is said."""
        given: dict[str, Any] = {"batch_size": 16} | self.tower.preprocessing.pixels() | more
        return images.loader(self.cache, self.view[cohort.IMAGE_ID].iloc[rows], **given)

    def outlines(self, table: pd.DataFrame) -> np.ndarray:
        """Draw the outlines of abnormal images; one on an image called normal is left out."""
        places = self.cache.geometry.set_index(cohort.IMAGE_ID, drop=False)
        out = np.zeros((len(table), *[self.cache.size] * 2), bool)
        finding = self.task.findings(self.task.encode(table[self.task.column]))
        for i in np.flatnonzero(finding & table[cohort.MASK].notna()):
            cell, place = table[cohort.MASK].iloc[i], places.loc[table[cohort.IMAGE_ID].iloc[i]]
            out[i] = images.mask(cell, place, size=self.cache.size)
        return out


def prepare(context: Context, pretraining: runs.Record | None = None) -> Setup:
    """Choose the task, load the tower and what reads words for it, and draw the outlines.

    Args:
        pretraining: Whose image tower is taken, with its text tower if it has one; without, a
            tower with ImageNet weights beside a sentence encoder.
    """
    setup, view = Setup(context, SETTINGS[context.profile].to_dict()), context.view()
    asked = [cohort.task(name) for name in (context.task, *ASKED)]
    asked = [t for t in asked if t.classes[:1] == (t.normal,) and t.outputs == 1]
    known = view[view[cohort.SPLIT] != "test"].groupby(cohort.SPLIT)
    asked = [t for t in asked if t.column in view and min(known[t.column].nunique()) == 2]
    if not asked:
        setup.reason = (
            f"No task of {context.data} with a normal class ({', '.join(ASKED)}) has both classes "
            "among training and validation images: there is no normal to be unlike."
        )
        return setup
    setup.task, labelled = asked[0], view[asked[0].column].notna()
    sets = view.loc[labelled, cohort.SOURCE].unique()
    tested = (view[cohort.SPLIT] == "test") & view[cohort.SOURCE].isin(sets)
    setup.view = view[labelled | tested].reset_index(drop=True)
    setup.labels = setup.task.encode(setup.view[setup.task.column])
    reader = model = models.load_bundle(pretraining.bundle) if pretraining else None
    if not isinstance(model, models.DualEncoder):
        text = encoders.text(READER)
        reader = SimpleNamespace(
            tokenize=text.tokenize, encode_text=lambda t: F.normalize(text(t), dim=-1)
        )
    setup.start = "captions" if model else "imagenet"
    setup.tower = model.image if model else encoders.image(TOWER, size=setup.plan["size"])
    if not getattr(setup.tower.trunk, "feature_info", None):
        setup.reason = f"{setup.tower.name} names no stages or blocks whose patches could be read."
        return setup
    setup.cache = context.cache(setup.tower.preprocessing.size)
    setup.texts = zero_shot.class_features(reader, captions.prompts(setup.task, style="label"))
    setup.masks = setup.outlines(setup.view)
    return setup


# ---------------------------------------------------------------------- what is unlike normal?
def judge(run: AnyRun, setup: Setup) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every test image and measure maps against outlines; labels are opened after that.

    Returns:
        Predictions of each method; the measures of its maps (`anomaly.measured`), empty without
        outlines. Both are empty where nothing can be asked.
    """
    if setup.reason:
        return pd.DataFrame(), pd.DataFrame()
    if not run.finished:
        made, named = [*_judged(setup)], dict(task=setup.task, seed=setup.context.seed)
        asked = setup.view.iloc[setup.rows("test")]
        frames = [evaluation.predictions(asked, x, method=m, **named) for m, x, _ in made]
        sealed = setup.context.here(opened(run)).set_index(cohort.IMAGE_ID)
        sealed = sealed.reindex(asked[cohort.IMAGE_ID]).reset_index()
        told = evaluation.with_labels(pd.concat(frames), sealed)
        run.save_table("anomaly_predictions", told[told["label"].notna()])
        maps = {method: heat for method, _, heat in made if heat is not None}
        run.save_table("anomaly_maps", _measured(run, setup, sealed, maps))
    return run.table("anomaly_predictions"), run.table("anomaly_maps")


def _judged(setup: Setup) -> Iterator[Judged]:
    """Yield what each method says, from what learns from normal images to what sees outlines."""
    draw, outlined = np.random.default_rng(setup.context.seed), np.any(setup.masks, axis=(1, 2))
    kept = []
    for label in (0, 1):  # those with an outline first
        rows = draw.permutation(setup.rows("val", label))
        kept.append(rows[np.argsort(~outlined[rows], kind="stable")][: setup.plan["validation"]])
    val, test, train = np.concatenate(kept), setup.rows("test"), setup.rows("train")
    x = setup.context.features(setup.tower, setup.cache, setup.view[cohort.IMAGE_ID])
    yield from _normal_only(setup, x, val, test)
    groups = setup.view[cohort.GROUP].to_numpy()
    fitted = adaptation.probe(x[train], setup.labels[train], groups[train], classes=2)
    model = models.LinearProbe(setup.tower, outputs=1, fitted=vars(fitted))
    heat = explain.grad_cam(model, setup.loader(test))
    yield Method(setup.start, "probe"), fitted.logits(x[test]), heat
    for shots, epochs in setup.plan["shots"]:
        yield _adapted(setup, shots, epochs, val, test)


def _normal_only(
    setup: Setup, x: np.ndarray, val: np.ndarray, test: np.ndarray
) -> Iterator[Judged]:
    """Yield what learns from normal training images alone; validation puts it on a scale."""
    normal, both, size = setup.rows("train", 0), np.concatenate([val, test]), setup.plan["bank"]
    some = np.random.default_rng(setup.context.seed).permutation(normal)[:BANKED]
    seen, new = (anomaly.patch_features(setup.tower, setup.loader(r)) for r in (some, both))
    bank = anomaly.coreset(np.concatenate([*seen]), size=size)
    near = np.concatenate([anomaly.distances(bank, patches) for patches in new])
    scores = {  # of validation, then of test images
        "normal_knn": anomaly.knn_distances(x[normal], x[both]),
        "mahalanobis": anomaly.mahalanobis_distances(x[normal], x[both]),
        "patch_knn": near.max(axis=(1, 2)),
    }
    heat = torch.from_numpy(anomaly.standardised(*np.split(near, [len(val)])))[:, None]
    heat = F.interpolate(heat, [setup.cache.size] * 2, mode="bilinear")[:, 0].numpy()
    for name, score in scores.items():
        known, asked = np.split(score, [len(val)])
        logits = anomaly.calibrated([known], setup.labels[val], [asked])
        yield Method(setup.start, name), logits, heat if name == "patch_knn" else None


def _adapted(setup: Setup, shots: int, epochs: int, val: np.ndarray, test: np.ndarray) -> Judged:
    """Train adapters on some images; score by words and by a bank, calibrated on validation."""
    seed, train, outlined = setup.context.seed, setup.rows("train"), setup.masks.any(axis=(1, 2))
    shown = outlined | (setup.labels == 0)  # of a normal image an empty mask says all
    if shots:
        table = setup.view.iloc[train[shown[train]] if outlined[train].any() else train]
        least = table.groupby(setup.task.column)[cohort.GROUP].nunique().min()
        shots = min(shots, int(least))
        few = splits.subset(table, shots=shots, seed=seed, by=setup.task.column)
        train = np.flatnonzero(setup.view[cohort.IMAGE_ID].isin(few[cohort.IMAGE_ID]))
    model = anomaly.MVFA(setup.tower, setup.texts, seed=seed)
    loader = setup.loader(
        train, batch_size=8, shuffle=True, seed=seed, labels=setup.labels[train],
        more={"mask": setup.masks[train], "outlined": shown[train]},
        augment=dict(rotate=0, translate=0, scale=0),  # greys alone: masks stay where they are
    )  # fmt: skip
    known = setup.loader(val), setup.labels[val], setup.masks[val]
    for _ in anomaly.train(model, loader, *known, epochs=epochs):
        pass
    normal = setup.loader(train[setup.labels[train] == 0])
    bank = anomaly.normal_bank(model, normal, size=setup.plan["bank"], seed=seed)
    seen = [anomaly.look(model, setup.loader(r), setup.cache.size, bank=bank) for r in (val, test)]
    known, new = ([s["label"], s["unlike"]] for s in seen)
    logits = anomaly.calibrated(known, setup.labels[val], new)
    known, new = ([s["words"], s["patches"]] for s in seen)
    heat = anomaly.mixed(known, setup.masks[val], new)
    method = Method(setup.start, "mvfa", detail=f"{shots} shots" if shots else "all images")
    return method, logits, heat


def _measured(
    run: runs.Run, setup: Setup, sealed: pd.DataFrame, maps: dict[Method, np.ndarray]
) -> pd.DataFrame:
    """Measure maps of outlined test images, and keep those of some cases for the sheet."""
    masks = setup.outlines(sealed)
    shown = np.flatnonzero(masks.any(axis=(1, 2)))
    if not len(shown):
        return pd.DataFrame(columns=[*evaluation.METHOD, "measure"])
    probe = Method(setup.start, "probe")
    heat = {
        replace(m, detail="Grad-CAM") if m == probe else m: maps[m][shown] for m in [*maps][::-1]
    }
    heat[CENTRE] = np.broadcast_to(explain.center_prior(setup.cache.size), masks[shown].shape)
    cases = np.linspace(0, len(shown) - 1, min(CASES, len(shown))).astype(int)
    run.save_array("anomaly_cases", np.stack([h[cases] for h in heat.values()]).astype("float16"))
    run.save_array("anomaly_masks", masks[shown][cases])
    asked = setup.view.iloc[setup.rows("test")[shown]]
    run.save_table("anomaly_shown", asked.iloc[cases][[cohort.IMAGE_ID]])
    lead, draws = next(iter(heat)), setup.plan["draws"]
    return anomaly.measured(heat, masks[shown], asked, beside=lead, draws=draws)


# ---------------------------------------------------------------------- what is shown
def score(setup: Setup, predictions: pd.DataFrame) -> pd.DataFrame:
    """Score each method by the AUROC of "abnormal", with intervals over patients."""
    if predictions.empty:
        return predictions
    options = dict(task=setup.task, only=("AUROC",), draws=setup.plan["draws"])
    tables = evaluation.by_method(predictions).items()
    found = [evaluation.metrics(t, **options).assign(**m.columns()) for m, t in tables]
    return pd.concat(found, ignore_index=True)[[*evaluation.METHOD, *_SCORED]]


def draw(
    run: AnyRun, setup: Setup, scores: pd.DataFrame, maps: pd.DataFrame
) -> dict[str, Figure | None]:
    """Draw by name scores of images, measures of maps, and cases; None where there is nothing."""
    return {
        "08_anomaly": None if scores.empty else _forest(setup, scores),
        "08_anomaly_measures": None if maps.empty else figures.plot_localisation(maps),
        "08_anomaly_maps": None if maps.empty else _sheet(run, setup, maps),
    }


def _forest(setup: Setup, scores: pd.DataFrame) -> Figure | None:
    ax = figures.plot_forest(scores)
    ax.set_title(f"abnormal: {setup.task.positive}", loc="left", size=8.5)
    return ax.get_figure(root=True)


def _sheet(run: AnyRun, setup: Setup, maps: pd.DataFrame) -> Figure:
    """Lay out cases at equal steps of the table: the radiograph, and the map of each method."""
    ids = run.table("anomaly_shown")[cohort.IMAGE_ID]
    names = [figures.display_name(method) for method in evaluation.by_method(maps)]
    heat = dict(zip(names, run.array("anomaly_cases").astype(np.float32), strict=True))
    pixels = setup.cache.images[setup.cache.rows(ids)]
    return figures.map_sheet([*pixels], heat, run.array("anomaly_masks"))


def read(setup: Setup, scores: pd.DataFrame, maps: pd.DataFrame) -> str:
    """Say which score tells abnormal images best, and whether MVFA finds lesions by its maps."""
    if setup.reason:
        return f"**Reading.** {setup.reason}"
    named = scores.assign(name=figures.display_names(scores)).sort_values("value")
    best, probe = (
        f"*{row['name']}* {figures.with_interval(*row[['value', 'low', 'high']])}"
        for row in (named.iloc[-1], named[named["strategy"] == "probe"].iloc[0])
    )
    said = (
        f"**Reading.** Abnormal means *{setup.task.positive}*. Image AUROC: best {best}; {probe}."
    )
    if maps.empty:
        return f"{said} No test image has an outline: maps are not measured."
    pixel = maps[maps["measure"] == "pixel AUROC"].set_index("strategy")
    lead, cam = pixel.iloc[0], pixel.loc["probe"]
    gain = figures.with_interval(-cam["gain"], -cam["gain_high"], -cam["gain_low"])
    centre = pixel["value"].iloc[-1]
    return (
        f"{said} Over the pixels of {lead['n']} outlined images MVFA ({lead['detail']}) reaches "
        f"AUROC {figures.number(lead['value'])}, {gain} more than Grad-CAM of a probe on the same "
        f"tower; the centre prior reaches {figures.number(centre)} without looking. MVFA learnt "
        "from outlines, Grad-CAM from labels alone."
    )
