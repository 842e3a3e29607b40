"""What a fine-tuning needs, put together once: towers, batches, and where their models lie.

The cohort, a finished pretraining and a plan come in; a `Setup` goes out. ``bonelib train`` makes
the same one from what a planned run holds.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from bonelib import (
    adaptation,
    captions,
    cohort,
    encoders,
    evaluation,
    features,
    images,
    models,
    runs,
    training,
)
from bonelib.encoders import ImageEncoder
from bonelib.evaluation import Method
from bonelib.experiments import settings
from bonelib.experiments.context import (
    AnyRun,
    Context,
    Process,
    applied,
    frozen_features,
    in_order,
    reopen_images,
)
from bonelib.experiments.settings import Finetuning

_DUAL, _OUTLINES = "dual", "outlines.npy"  # beside the starts that a plan leaves
# What a process that trains may see of an image, beside its label where it is no test image.
_COLUMNS = (
    *(cohort.IMAGE_ID, cohort.PATIENT, cohort.GROUP, cohort.GROUP_KIND),
    *(cohort.CENTER, cohort.SPLIT, cohort.FOLD),
)


@dataclass
class Setup:
    """Everything a fine-tuning needs, on this process.

    Attributes:
        table: One row an image of every part, labels of the test set hidden.
        bundles: Folder of a bundle by start; a start without one is a tower made by name.
        dual: Folder of the dual encoder that reads texts of the classes; None where none is read.
        loader: Training images that have a label, in varied order.
        validation: Validation images that have one, as they are.
        others: The same two for starts whose towers take other pixels.
        unavailable: The starts whose weights can't be had, each with how to get them.
        outlines: ``(N, S, S)`` bool of the loader's images, where a strategy asks for them; empty
            where an image has none.
    """

    kept_as: ClassVar[str] = "images"  # the table in the run

    plan: Finetuning
    task: cohort.Task
    table: pd.DataFrame
    bundles: dict[str, Path]
    dual: Path | None
    loader: images.Loader
    validation: images.Loader
    seed: int
    others: dict[str, tuple[images.Loader, images.Loader]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    outlines: np.ndarray | None = field(default=None, repr=False)

    @property
    def trainings(self) -> list[tuple[str, str]]:
        """Each ``(start, strategy)`` of the plan whose weights are there."""
        return [both for both in self.plan.trainings if both[0] not in self.unavailable]

    def batches(self, start: str) -> tuple[images.Loader, images.Loader]:
        """Return the training and the validation images as the tower of a start takes them."""
        return self.others.get(start, (self.loader, self.validation))

    def part(self, name: str) -> np.ndarray:
        """Which rows belong to ``train``, ``val`` or ``test``."""
        return (self.table["split"] == name).to_numpy()

    def labelled(self, name: str) -> np.ndarray:
        """Which rows of a part have a label; none of the test set while it is sealed."""
        return self.part(name) & self.table[self.task.column].notna().to_numpy()

    @property
    def labels(self) -> np.ndarray:
        """Labels by row, -1 (or NaN) where hidden or unknown."""
        return self.task.encode(self.table[self.task.column])

    @property
    def unseen(self) -> list[str]:
        """Classes without a training image; a centre held out may take all that there are."""
        trained = set(self.labels[self.labelled("train")].tolist())
        return [name for k, name in enumerate(self.task.classes) if k not in trained]

    def tower(self, start: str) -> ImageEncoder:
        """Build the image tower that a start names."""
        return _tower(self.plan, self.bundles, start, seed=self.seed)

    def save_untrained(self, folder: Path) -> None:
        """Leave a model for each start, for the processes that train them."""
        for start in dict(self.trainings):
            model = models.Classifier(self.tower(start), outputs=self.task.outputs)
            models.save_bundle(folder / _untrained(self.plan, start), model)
        if self.dual is not None:
            models.save_bundle(folder / _DUAL, models.load_bundle(self.dual))
        if self.outlines is not None:
            np.save(folder / _OUTLINES, np.packbits(self.outlines, axis=-1))

    def tuning(self, start: str, strategy: str) -> adaptation.Tuning:
        """Gather what a strategy needs to train the tower of a start."""
        more, tower = dict[str, Any](), None
        if strategy in adaptation.WITH_TEXTS:
            assert self.dual is not None, "which check_towers has refused"
            more["dual"] = models.load_bundle(self.dual)
            tower = more["dual"].image if start == "captions" else None
            words = dict(style="label", language=self.plan.language)
            more["prompts"] = captions.prompts(self.task, **words)
        tower = tower or self.tower(start)
        if strategy in adaptation.WITH_PROBE:
            seen = frozen_features(tower, self.loader.cache, self.table[cohort.IMAGE_ID])
            more["probe"] = self.probe(seen)
        primary, options = evaluation.primary(self.task), training.Options(**self.plan.fit)
        if _drawn(self.plan, start) and strategy in adaptation.ALL_ALIKE:
            options = options.of_random_weights()
        sign = -1 if primary.lower else 1
        return adaptation.Tuning(
            models.Classifier(tower, outputs=self.task.outputs),
            self.labels[self.labelled("train")],
            options,
            steps=self.plan.epochs * len(self.batches(start)[0]),
            ordinal=self.task.kind == "ordinal",
            imbalance=self.plan.imbalance,
            seed=self.seed,
            judge=lambda model: sign * validate(self, start, model)[primary.column],
            **more,
        )

    def probe(self, features: np.ndarray) -> adaptation.Probe:
        """Fit a linear probe to the training images; features have a row an image of the table."""
        train, groups = self.labelled("train"), self.table[cohort.GROUP].to_numpy()
        classes, strengths = len(self.task.classes), self.plan.strengths
        fitting = dict(classes=classes, strengths=strengths, seed=self.seed)
        return adaptation.probe(features[train], self.labels[train], groups[train], **fitting)


# ---------------------------------------------------------------------- what is compared?
def prepare(context: Context, pretraining: runs.Record, plan: Finetuning) -> Setup:
    """Build the batches that every start shares, and name where each start comes from.

    Raises:
        ValueError: A strategy does not fit the task, or the pretraining.
    """
    task, dual = context.asked, None
    strategies = [strategy for _, strategy in plan.trainings]
    if set(strategies) & set(adaptation.WITH_TEXTS):
        reads = isinstance(models.load_bundle(pretraining.bundle), models.DualEncoder)
        dual = pretraining.bundle if reads and "label" in captions.styles(task) else None
    view, cache, outlines = context.view(), context.cache(plan.size), None
    if set(strategies) & set(adaptation.WITH_OUTLINES):
        outlines = _outlines(context, cache)
    asked: dict[str, Any] = dict(regression=task.kind == "regression", imbalance=plan.imbalance)
    asked |= dict(texts=dual is not None, outlines=outlines is None or bool(outlines.any()))
    adaptation.check_towers(strategies, **asked)
    _check_recipe(pretraining, plan, data=context.cohort_run.head["variant"])
    table, bundles = view[[*_COLUMNS, task.column]], {"captions": pretraining.bundle}
    towers, unavailable = {}, {}
    for start in dict(plan.trainings):
        try:
            towers[start] = _tower(plan, bundles, start, seed=context.seed)
        except encoders.WeightsNotAvailable as error:
            if not plan.rows:
                raise
            unavailable[start] = str(error)
    parts = dict(dual=dual, outlines=outlines, seed=context.seed)
    setup = _assemble(task, table, cache, plan, bundles, towers, **parts)
    setup.unavailable = unavailable
    return setup


def outlined(context: Context) -> pd.DataFrame:
    """Return the training images whose outlined finding a strategy may learn from.

    An outline on an image whose label says that nothing is there is left out; values have none.
    """
    task, view = context.asked, context.view()
    train = view[(view["split"] == "train") & view[task.column].notna()].reset_index(drop=True)
    if task.kind == "regression":
        return train.head(0)
    return train[task.findings(task.encode(train[task.column])) & train[cohort.MASK].notna()]


def _outlines(context: Context, cache: images.Cache) -> np.ndarray:
    """Draw the outlines of training images with a label, ``(N, S, S)`` bool in the cached pixels.

    Empty where there is none.
    """
    view, task = context.view(), context.asked
    train = view[(view["split"] == "train") & view[task.column].notna()].reset_index(drop=True)
    masks = np.zeros((len(train), cache.size, cache.size), bool)
    places = cache.geometry.iloc[cache.rows(train[cohort.IMAGE_ID])]
    for row, cell in outlined(context)[cohort.MASK].items():
        masks[row] = images.mask(cell, places.iloc[row], size=cache.size)
    return masks


def _check_recipe(pretraining: runs.Record, plan: Finetuning, *, data: str) -> None:
    """Refuse a protocol with a pretraining of its own where another one was found.

    Args:
        data: The variant of the run of notebook 01.
    """
    if not plan.protocol:
        return
    asked = settings.protocol(plan.protocol).recipe
    found = pretraining.settings["recipe"]["name"]
    if asked not in ("", found):
        raise ValueError(
            f"The protocol {plan.protocol} starts from a pretraining by the recipe {asked}, and "
            f"{pretraining.name} is by {found}. Run bonelib run 04 -p RECIPE {asked} -p VARIANT "
            f"{asked} -p FROM data:{data}, then 05 with -p FROM data:{data},pretraining:{asked}."
        )


def _tower(plan: Finetuning, bundles: dict[str, Path], start: str, *, seed: int) -> ImageEncoder:
    row = plan.row(start)
    if row is not None and row.tower != "captions":
        if start in bundles:
            return models.load_image_tower(bundles[start])
        given = dict(weights=row.weights, size=plan.size, pooling=row.pooling, seed=seed)
        return encoders.image(row.tower, **given)
    weights = "random" if _drawn(plan, start) else "pretrained"
    given = dict(weights=weights, bundle=bundles.get(start), seed=seed)
    return models.tower(plan.image, size=plan.size, **given)


def _drawn(plan: Finetuning, start: str) -> bool:
    """Tell whether a start is random weights."""
    row = plan.row(start)
    return start == "scratch" if row is None else row.weights == "random"


def _assemble(
    task: cohort.Task,
    table: pd.DataFrame,
    cache: images.Cache,
    plan: Finetuning,
    bundles: dict[str, Path],
    towers: dict[str, ImageEncoder],
    *,
    dual: Path | None,
    seed: int,
    outlines: np.ndarray | None = None,
) -> Setup:
    # an image without a label would take a place in a batch and drop out of the loss
    known = table[table[task.column].notna()]
    train, val = known[known["split"] == "train"], known[known["split"] == "val"]
    labels = task.encode(train[task.column])
    parts = dict[str, Any](augment={}, flip=True, shuffle=True, seed=seed, **Process.here().part)

    def batches(tower: ImageEncoder) -> tuple[images.Loader, images.Loader]:
        loader = images.loader(
            cache,
            train["image_id"],
            batch_size=plan.batch_size,
            labels=labels,
            more=None if outlines is None else {"mask": outlines},
            order=images.Balanced(labels) if plan.imbalance == "balanced" else None,
            drop_last=parts["ranks"] > 1,  # processes take equal parts of a batch
            **parts,
            **tower.preprocessing.pixels(),
        )
        return loader, in_order(cache, val["image_id"], tower)

    usual = models.tower(plan.image, size=plan.size, weights="random")
    others = {
        start: batches(tower)
        for start, tower in towers.items()
        if tower.preprocessing.pixels() != usual.preprocessing.pixels()
    }
    more = dict(others=others, outlines=outlines)
    return Setup(plan, task, table, bundles, dual, *batches(usual), seed, **more)


def count(setup: Setup) -> pd.DataFrame:
    """Count the images of each part, by class where there are any; the test set is sealed."""
    known = setup.table[setup.task.column]
    kind = known.astype("object") if setup.task.classes else known.map(lambda _: "value")
    return pd.crosstab(setup.table["split"], kind.where(known.notna(), "sealed or unknown"))


def reopen(run: runs.Run) -> Setup:
    """Build the training that a run plans, in this process; under ``torchrun`` one of several.

    Raises:
        FileNotFoundError: The decoded images are not on this machine.
    """
    plan, task = Finetuning.from_dict(run.settings), cohort.task(run.head["task"])
    cache = reopen_images(run, size=plan.size, fit=plan.resize)
    untrained = run.path / "untrained"
    places = {start: untrained / _untrained(plan, start) for start in dict(plan.trainings)}
    bundles = {start: place for start, place in places.items() if place.exists()}
    towers = {start: models.load_image_tower(place) for start, place in bundles.items()}
    dual = untrained / _DUAL if (untrained / _DUAL).exists() else None
    drawn = np.load(untrained / _OUTLINES) if (untrained / _OUTLINES).exists() else None
    outlines = None if drawn is None else np.unpackbits(drawn, axis=-1, count=cache.size) > 0
    parts = dict(dual=dual, outlines=outlines, seed=run.head["seed"])
    setup = _assemble(task, run.table(Setup.kept_as), cache, plan, bundles, towers, **parts)
    setup.unavailable = dict.fromkeys(places.keys() - bundles.keys(), "left out of the plan")
    return setup


def validate(setup: Setup, start: str, model: Any) -> dict[str, float]:
    """Return the primary metric of a model on the validation images, by the name of its column."""
    logits = features.encode(model, setup.batches(start)[1])
    view = setup.table[setup.labelled("val")]
    out = evaluation.predictions(view, logits, task=setup.task, seed=setup.seed)
    return {evaluation.primary(setup.task).column: evaluation.score(out, setup.task)}


# ---------------------------------------------------------------------- where models lie
def bundle_of(run: AnyRun, method: Method) -> Path:
    """Return where the model of a method that sees images lies."""
    return run.bundle / name_of(method)


def name_of(method: Method) -> str:
    """Return what the folder of a model is called: its start, and how it was trained.

    A start that is a path stays one folder, below that of the run.
    """
    how = "" if method.strategy == "full" else method.strategy
    named = "-".join(part for part in (method.start, method.detail, how) if part)
    return named.replace("/", "_")


def _untrained(plan: Finetuning, start: str) -> str:
    return name_of(plan.method(start, "full"))


def facts_of(setup: Setup, method: Method) -> dict[str, Any]:
    """Return what a bundle says of the model that it holds, so that others can apply it."""
    named = {name: value for name, value in method.columns().items() if value}
    return applied(setup.task, fit=setup.loader.cache.fit) | named | {"test": setup.plan.test}
