"""Heads on frozen features and trained towers: what each says of every image, with all labels.

Hyper-parameters are chosen inside the training images, thresholds on validation patients; only then
are the labels of the test set opened, once. With few labels heads alone are fitted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from bonelib import (
    adaptation,
    captions,
    cohort,
    encoders,
    evaluation,
    features,
    models,
    runs,
    zero_shot,
)
from bonelib.adaptation import Support
from bonelib.encoders import ImageEncoder
from bonelib.evaluation import Method
from bonelib.experiments.context import AnyRun, Context, in_order, keep, metadata, opened
from bonelib.experiments.finetuning.setup import Setup, bundle_of, facts_of
from bonelib.experiments.progress import bar, each

_SLOW = ("coop",)  # minutes a fit: not for tens of draws
Bound = Callable[[np.ndarray], adaptation.Strategy]  # rows of the training images -> strategy


@dataclass
class Frozen:
    """The frozen features of one start, and what heads need beside them.

    Attributes:
        raw: ``(N, D)``, a row an image of ``view``.
        dual: The dual encoder whose tower it is; None for towers that read no text.
        notes: What of the clinical data is coded coarsely or left out, in sentences.
    """

    context: Context
    setup: Setup
    view: pd.DataFrame
    raw: np.ndarray
    dual: Any = None
    notes: tuple[str, ...] = ()

    @property
    def train(self) -> np.ndarray:
        """Which rows are training images with a label."""
        return self.setup.labelled("train")

    @cached_property
    def projected(self) -> np.ndarray:
        """Features in the space of the texts ``(N, dim)``."""
        with torch.no_grad():
            return self.dual.image_projection(torch.from_numpy(self.raw)).numpy()

    @cached_property
    def texts(self) -> np.ndarray:
        """Unit vectors of the classes' prompts ``(C, dim)``."""
        language = self.setup.plan.language
        prompts = captions.prompts(self.setup.task, style="label", language=language)
        return zero_shot.class_features(self.dual, prompts)

    def reads(self) -> bool:
        """Whether the classes have texts in the space of the features."""
        return self.dual is not None and "label" in captions.styles(self.setup.task)

    def head(self, name: str, sees: str) -> tuple[np.ndarray, bool, Bound]:
        """Return what a head sees of each image, whether it reads texts, and the head itself.

        Raises:
            ValueError: It lacks what it needs; the message says what.
        """
        adaptation.points(name, self.setup.task.kind)  # refuses what does not fit the task's kind
        needs = adaptation.strategies.table().loc[name, "text"]
        strategy = adaptation.strategy(name)
        if needs in ("clinical", "sentence"):
            if sees == "image+text" and self.dual is None:
                raise ValueError(
                    f"{name} of {sees} writes clinical data as a sentence for the text tower, and "
                    "this pretraining has none: pretrain with captions, a RECIPE such as ours."
                )
            sentence = needs == "sentence"  # as published, beside unit vectors of the image
            image = features.projected(self.dual, self.raw) if sentence else self.raw
            return self._fused(strategy, sees, image)
        if needs in ("yes", "tower", "bank") and not self.reads():
            raise ValueError(
                f"{name} needs texts of the classes in the space of the features: a tower that was "
                "trained with captions, and a task whose classes have words."
            )
        if needs == "entities":
            return self.raw, False, self._entities(strategy)
        if needs == "bank":
            return self.projected, True, lambda rows: strategy(self.bank)
        if needs == "tower":
            words = self.setup.task.words[self.setup.plan.language]
            return self.projected, True, lambda rows: strategy(self.dual, words)
        return self.projected if needs == "yes" else self.raw, needs == "yes", lambda rows: strategy

    def _fused(self, strategy: Any, sees: str, image: np.ndarray) -> tuple[np.ndarray, bool, Bound]:
        labels = self.setup.labels
        coding = adaptation.clinical.learn(self.view[self.train], labels[self.train])
        self.notes = coding.notes
        if sees == "image+text":
            options = dict(fields=coding.fields, language=self.setup.plan.language)
            said = captions.clinical_sentences(self.view, **options)
            columns = features.encode_text(self.dual, self.dual.tokenize(said))
        else:
            columns = coding.code(self.view)
        if not columns.shape[1]:
            raise ValueError("No clinical data of these images may be used: nothing is fused.")
        both = np.hstack([image, columns])
        return both, False, lambda rows: strategy(columns.shape[1])

    def _entities(self, strategy: Any) -> Bound:
        fine = cohort.task("entity")
        if fine.column not in self.view or self.setup.task.column == fine.column:
            raise ValueError("hierarchy needs entities beside the classes of the task.")
        entities = fine.encode(self.view[fine.column])[self.train]
        return lambda rows: strategy(entities[rows])

    @cached_property
    def bank(self) -> np.ndarray:
        """Unit features of the captions of training patients, each once."""
        pairs = self.context.find("pretraining", test=self.setup.plan.test).table("pairs")
        said = pairs.loc[pairs["split"] == "train", "caption"].unique().tolist()
        return features.encode_text(self.dual, self.dual.tokenize(said))

    def support(self, seen: np.ndarray, *, texts: bool) -> Support:
        """Return the labelled training images as a head gets them."""
        setup, train = self.setup, self.train
        scale = self.dual.logit_scale.detach().exp().item() if texts else 1.0
        return Support(
            features=np.ascontiguousarray(seen[train], dtype=np.float32),
            labels=setup.labels[train],
            groups=setup.table[cohort.GROUP].to_numpy()[train],
            classes=len(setup.task.classes),
            ordinal=setup.task.kind == "ordinal",
            texts=self.texts if texts else None,
            scale=scale,
            seed=setup.seed,
        )


def frozen(context: Context, setup: Setup, view: pd.DataFrame, start: str) -> Frozen:
    """Encode all images by the tower of a start, once for all notebooks.

    Raises:
        encoders.WeightsNotAvailable: The weights would have to be downloaded and can't be.
    """
    row, plan, dual = setup.plan.row(start), setup.plan, None
    tower, cache = None, setup.loader.cache
    if row is not None and row.tower != "captions":
        size = row.size or plan.size
        given = dict(weights=row.weights, size=size, pooling=row.pooling, seed=setup.seed)
        tower, cache = encoders.image(row.tower, **given), context.cache(size)
    elif start == "captions":
        whole = models.load_bundle(setup.bundles[start])
        dual = whole if isinstance(whole, models.DualEncoder) else None
    raw = context.features(tower or setup.tower(start), cache, view[cohort.IMAGE_ID])
    return Frozen(context, setup, view, raw, dual)


# ---------------------------------------------------------------------- thresholds, then the door
def predict(context: Context, run: AnyRun, setup: Setup) -> pd.DataFrame:
    """Predict with every method, freeze thresholds on validation patients, then open the test.

    The predictions of heads with few labels are kept beside them, in the table ``few``.

    Returns:
        Predictions of test images with their labels; ``threshold`` where the task has a class to
        detect, the same rows that a finished run holds.
    """
    if run.finished:
        return run.table("predictions")
    view, judged = context.view(), setup.part("val") | setup.part("test")
    val, test = (setup.part(name)[judged] for name in ("val", "test"))
    validation, held = [], []
    seen, notes = _all_frozen(context, setup, view)
    for method, logits in [*_logits(run, setup, view, seen, notes)]:
        named = dict(task=setup.task, seed=setup.seed, method=method)
        frame = evaluation.predictions(view[judged], logits, **named)
        validation.append(frame[val])
        cut = pd.NA
        if setup.task.positive:
            cut = evaluation.choose_threshold(frame[val], task=setup.task)
            if bundle_of(run, method).exists():
                models.note_bundle(bundle_of(run, method), threshold=cut)
        held.append(frame[test].assign(threshold=cut))
    notes += [("clinical data", note) for one in seen.values() for note in one.notes]
    small = [*few(setup, view, seen)]
    small += _all_labels(setup, held) if small else []
    run.save_table("validation", pd.concat(validation))
    lacking = pd.DataFrame(notes, columns=["method", "reason"])
    lacking = lacking.groupby("reason", sort=False)["method"].agg("; ".join).reset_index()
    run.save_table("left_out", lacking[["method", "reason"]])
    labels = opened(run)
    told = evaluation.with_labels(pd.concat(small), labels) if small else pd.DataFrame()
    run.save_table("few", told)
    return keep(run, "predictions", evaluation.with_labels(pd.concat(held), labels))


def left_out(run: AnyRun) -> pd.DataFrame:
    """Return the methods, and the clinical data, that were left out, each with the reason."""
    return run.table("left_out")


def _all_frozen(
    context: Context, setup: Setup, view: pd.DataFrame
) -> tuple[dict[str, Frozen], list[tuple[str, str]]]:
    """Return the features of every start that heads are fitted to, and those that can't be had."""
    found, notes = {}, []
    for start in dict.fromkeys(start for start, _, _ in setup.plan.fitted):
        try:
            found[start] = frozen(context, setup, view, start)
        except encoders.WeightsNotAvailable as error:
            notes.append((start, str(error)))
    if setup.unseen:
        notes.append((
            "few labels",
            f"No training image is {', '.join(setup.unseen)}, so nothing is drawn. Choose a TEST "
            "that leaves each class in training, or a task without that class.",
        ))  # fmt: skip
    return found, notes + [*setup.unavailable.items()]


def _logits(
    run: runs.Run,
    setup: Setup,
    view: pd.DataFrame,
    seen: dict[str, Frozen],
    notes: list[tuple[str, str]],
) -> Iterator[tuple[Method, np.ndarray]]:
    """Yield what each method says of validation and test images."""
    judged = setup.part("val") | setup.part("test")
    built = lru_cache(setup.tower)  # what is packed with a head stays as it is
    for method, x in metadata(view).items():
        yield method, setup.probe(x).logits(x[judged])
    with bar("heads", "methods") as show:
        for start, name, sees in each(setup.plan.fitted, show):
            if start not in seen:
                continue
            method = setup.plan.method(start, name, sees)
            if name == "probe":
                yield method, _probed(run, setup, start, method, seen[start].raw, built)[judged]
                continue
            try:
                x, texts, bound = seen[start].head(name, sees)
            except ValueError as error:  # named, and the others go on
                notes.append((f"{start}, {name}", str(error)))
                continue
            support = seen[start].support(x, texts=texts)
            points = adaptation.points(name, setup.task.kind)
            every = np.ones(len(support.labels), dtype=bool)
            fitted = adaptation.fit(bound(every), support, points)
            if name in adaptation.PACKED and setup.plan.row(start) is None:
                whole = adaptation.pack(name, built(start), fitted)
                models.save_bundle(bundle_of(run, method), whole, **facts_of(setup, method))
            yield method, fitted.logits(x[judged])
    for start, strategy in setup.trainings:
        method = setup.plan.method(start, strategy)
        tower = models.load_bundle(bundle_of(run, method))
        ordered = in_order(setup.loader.cache, view.loc[judged, cohort.IMAGE_ID], tower.image)
        yield method, features.encode(tower, ordered)


def _probed(
    run: runs.Run,
    setup: Setup,
    start: str,
    method: Method,
    x: np.ndarray,
    built: Callable[[str], ImageEncoder],
) -> np.ndarray:
    """Fit the linear probe of a start, keep it as a bundle, and return its logits."""
    fitted = setup.probe(x)
    if setup.plan.row(start) is None:
        given = dict(outputs=fitted.weights.shape[1], fitted=vars(fitted))
        whole = models.LinearProbe(built(start), **given)
        models.save_bundle(bundle_of(run, method), whole, **facts_of(setup, method))
    return fitted.logits(x)


# ---------------------------------------------------------------------- few labels
def _all_labels(setup: Setup, held: list[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield the predictions of those heads by all labels, where their curves over labels end."""
    heads = {setup.plan.method(*one) for one in setup.plan.fitted if one[2] == "image"}
    told = dict(shots=0, share=1.0, images=int(setup.labelled("train").sum()))
    for frame in held:
        if Method(**frame[list(evaluation.METHOD)].iloc[0]) in heads:
            yield frame.drop(columns="threshold").assign(**told)


def few(setup: Setup, view: pd.DataFrame, seen: dict[str, Frozen]) -> Iterator[pd.DataFrame]:
    """Yield predictions of test images by heads that learnt from few labels, a table a draw.

    Draws are nested and take whole groups (``adaptation.shots``); every head and start gets the
    same ones, but for CoOp, whose text tower runs in each step, and for fusions. There are none
    where a class has no training image. Columns beside those of predictions: ``shots`` (0 for a
    share), ``share``, and how many ``images`` were drawn. ``seed`` is that of the draw.
    """
    plan, task, test = setup.plan, setup.task, setup.part("test")
    sizes = dict(shots=plan.shots if task.classes else (), shares=plan.shares)
    if setup.unseen or not (sizes["shots"] or sizes["shares"]):
        return
    for start, name, sees in plan.fitted:
        if start not in seen or sees != "image" or name in _SLOW:
            continue
        try:
            x, texts, bound = seen[start].head(name, sees)
        except ValueError:  # said where all labels are taken
            continue
        support = seen[start].support(x, texts=texts)
        draws = adaptation.shots.draw(
            support.labels,
            support.groups,
            classes=support.classes,
            seeds=range(plan.label_seeds),
            **sizes,
        )
        points, held = adaptation.points(name, task.kind), x[test]
        drawn = [*zip(draws.rows, draws.table.to_dict("records"), strict=True)]
        with bar(f"{start}: {name}", "draws of labels") as show:
            for rows, told in each(drawn, show):
                part = support.rows(rows)
                if support.classes and len(np.unique(part.labels)) < 2:
                    continue
                logits = adaptation.fit(bound(rows), part, points).logits(held)
                named = dict(task=task, seed=told["seed"], method=plan.method(start, name, sees))
                kept = {key: told[key] for key in ("shots", "share", "images")}
                yield evaluation.predictions(view[test], logits, **named).assign(**kept)
