"""Fine-tuning under one protocol, as notebook 05 argues it: which start of the tower serves best?

The cohort, a finished pretraining and a plan come in; predictions of every method, thresholds and a
bundle per start go out. ``bonelib train`` carries out the same steps from what a planned run holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bonelib import (
    adaptation,
    cohort,
    evaluation,
    features,
    figures,
    images,
    models,
    runs,
    splits,
    training,
)
from bonelib.evaluation import Method
from bonelib.experiments.context import (
    METADATA,
    AnyRun,
    Context,
    Process,
    in_order,
    keep,
    keep_inputs,
    metadata,
    reopen_images,
)
from bonelib.experiments.settings import Finetuning

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
        loader: Training images in varied order.
        validation: Validation images as they are.
    """

    kept_as: ClassVar[str] = "images"  # the table in the run

    plan: Finetuning
    task: cohort.Task
    table: pd.DataFrame
    bundles: dict[str, Path]
    loader: images.Loader
    validation: images.Loader
    seed: int

    def part(self, name: str) -> np.ndarray:
        """Which rows belong to ``train``, ``val`` or ``test``."""
        return (self.table["split"] == name).to_numpy()

    @property
    def labels(self) -> np.ndarray:
        """Labels by row, -1 (or NaN) where hidden or unknown."""
        return self.task.encode(self.table[self.task.column])

    def tower(self, start: str) -> Any:
        """Build the image tower that a start names."""
        return models.tower(
            self.plan.image,
            size=self.plan.size,
            weights="random" if start == "scratch" else "pretrained",
            bundle=self.bundles.get(start),
            seed=self.seed,
        )

    def save_untrained(self, folder: Path) -> None:
        """Leave a model for each start, for the processes that train them."""
        for start in self.plan.starts:
            model = models.Classifier(self.tower(start), outputs=self.task.outputs)
            models.save_bundle(folder / start, model)


# ---------------------------------------------------------------------- what is compared?
def prepare(context: Context, pretraining: runs.Record, plan: Finetuning) -> Setup:
    """Build the batches that every start shares, and name where each start comes from."""
    view, cache = context.view(), context.cache(plan.size)
    table, bundles = view[[*_COLUMNS, context.asked.column]], {"captions": pretraining.bundle}
    return _assemble(context.asked, table, cache, plan, bundles, seed=context.seed)


def _assemble(
    task: cohort.Task,
    table: pd.DataFrame,
    cache: images.Cache,
    plan: Finetuning,
    bundles: dict[str, Path],
    *,
    seed: int,
) -> Setup:
    tower = models.tower(plan.image, size=plan.size, weights="random")
    train, val = table[table["split"] == "train"], table[table["split"] == "val"]
    parts = dict(seed=seed, **Process.here().part)
    loader = images.loader(
        cache,
        train["image_id"],
        batch_size=plan.batch_size,
        labels=task.encode(train[task.column]),
        augment={},
        flip=True,
        shuffle=True,
        drop_last=parts["ranks"] > 1,  # processes take equal parts of a batch
        **parts,
        **tower.preprocessing.pixels(),
    )
    validation = in_order(cache, val["image_id"], tower)
    return Setup(plan, task, table, bundles, loader, validation, seed)


def count(setup: Setup) -> pd.DataFrame:
    """Count the images of each part, by class where there are any; the test set is sealed."""
    known = setup.table[setup.task.column]
    kind = known.astype("object") if setup.task.classes else known.map(lambda _: "value")
    return pd.crosstab(setup.table["split"], kind.where(known.notna(), "sealed or unknown"))


# ---------------------------------------------------------------------- what does fine-tuning add?
def reopen(run: runs.Run) -> Setup:
    """Build the training that a run plans, in this process; under ``torchrun`` one of several.

    Raises:
        FileNotFoundError: The decoded images are not on this machine.
    """
    plan, task = Finetuning.from_dict(run.settings), cohort.task(run.head["task"])
    cache = reopen_images(run, size=plan.size, fit=plan.resize)
    bundles = {start: run.path / "untrained" / start for start in plan.starts}
    return _assemble(task, run.table(Setup.kept_as), cache, plan, bundles, seed=run.head["seed"])


def train(run: AnyRun, setup: Setup, *, accelerator: str = "auto") -> Iterator[dict[str, Any]]:
    """Fine-tune every start on the same batches; yields a row an epoch with its ``start``.

    The epoch is kept that is best on validation patients. A killed training goes on where it
    stopped, a finished one yields nothing. Under ``torchrun`` the first process writes.
    """
    if run.trained:
        return
    first = Process.here().first
    if first:
        keep_inputs(run, setup)
    saved = runs.checkpoint(run) or {"done": [], "history": [], "start": "", "state": None}
    done = [start for start in saved["done"] if (run.bundle / start).exists()]
    history = [row for row in saved["history"] if row["start"] in done]
    for start in setup.plan.starts:
        if start in done:
            continue  # an earlier process finished it
        before = {"start": start, "done": [*done], "history": [*history]}
        resume = saved["state"] if saved["start"] == start else None
        for row in _fit(run, setup, before, resume, accelerator):
            history.append(Method(start=start, strategy="full").columns() | row)
            if first:
                run.save_table("history", pd.DataFrame(history))
            yield history[-1]
        done.append(start)
    if first:
        runs.mark_trained(run)


def _fit(
    run: runs.Run,
    setup: Setup,
    before: dict[str, Any],
    resume: dict[str, Any] | None,
    accelerator: str,
) -> Iterator[dict[str, Any]]:
    """Fine-tune one start and save its bundle.

    Args:
        before: Which start it is, which are done, and their rows: kept beside the state, so that a
            killed comparison goes on with the start that was under way.
    """
    start, plan, process = before["start"], setup.plan, Process.here()
    model = models.Classifier(setup.tower(start), outputs=setup.task.outputs)
    runs.seed_everything(setup.seed)
    setup.loader.epoch = 0  # every start sees the same batches
    labels, graded = setup.labels[setup.part("train")], setup.task.kind == "ordinal"
    with adaptation.objective(model, labels, ordinal=graded) as objective:
        yield from training.fit(
            model,
            objective,
            setup.loader,
            training.Options(**plan.fit),
            validate=lambda trained: _validate(setup, trained),
            keep=evaluation.primary(setup.task).keep,
            resume=resume,
            checkpoint=lambda state: runs.save_checkpoint(run, before | {"state": state}),
            accelerator=accelerator,
            **process.where,
        )
    if process.first:
        models.save_bundle(run.bundle / start, model, task=setup.task.name, test=plan.test)


def _validate(setup: Setup, model: Any) -> dict[str, float]:
    logits = features.encode(model, setup.validation)
    view = setup.table[setup.part("val")]
    out = evaluation.predictions(view, logits, task=setup.task, seed=setup.seed)
    return {evaluation.primary(setup.task).column: evaluation.score(out, setup.task)}


def progress(row: dict[str, Any], setup: Setup) -> str:
    """Put an epoch on one line."""
    primary = evaluation.primary(setup.task)
    told = f"loss {row['loss']:.3f}  validation {primary.metric} {row[primary.column]:.3f}"
    return f"  {row['start']:<9} epoch {row['epoch']:>2}/{setup.plan.epochs}  {told}"


# ---------------------------------------------------------------------- thresholds, then the door
def predict(context: Context, run: AnyRun, setup: Setup) -> pd.DataFrame:
    """Predict with every method, freeze thresholds on validation patients, then open the test.

    Returns:
        Predictions of test images with their labels; ``threshold`` where the task has a class to
        detect, the same rows that a finished run holds.
    """
    if run.finished:
        return run.table("predictions")
    view, val, test = context.view(), setup.part("val"), setup.part("test")
    validation, held = [], []
    for method, logits in _logits(context, run, setup, view):
        named = dict(task=setup.task, seed=setup.seed, method=method)
        frame = evaluation.predictions(view, logits, **named)
        validation.append(frame[val])
        cut = pd.NA
        if setup.task.positive:
            cut = evaluation.choose_threshold(frame[val], task=setup.task)
        held.append(frame[test].assign(threshold=cut))
    run.save_table("validation", pd.concat(validation))
    opened = evaluation.with_labels(pd.concat(held), splits.open_test(run))
    return keep(run, "predictions", opened)


def _logits(
    context: Context, run: runs.Run, setup: Setup, view: pd.DataFrame
) -> Iterator[tuple[Method, np.ndarray]]:
    """Yield what each method says of every image: metadata, frozen features, fine-tuned towers."""
    inputs, cache = metadata(view), setup.loader.cache
    for start in setup.plan.starts:
        probe = Method(start=start, strategy="probe")
        inputs[probe] = context.features(setup.tower(start), cache, view["image_id"])
    train, groups = setup.part("train"), view["group"].to_numpy()
    classes, strengths = len(setup.task.classes), setup.plan.strengths
    fitting = dict(classes=classes, strengths=strengths, seed=setup.seed)
    for method, x in inputs.items():
        known = x[train], setup.labels[train], groups[train]
        yield method, adaptation.probe(*known, **fitting).logits(x)
    ordered = in_order(cache, view["image_id"], setup.tower("scratch"))
    for start in setup.plan.starts:
        model = models.load_bundle(run.bundle / start)
        yield Method(start=start, strategy="full"), features.encode(model, ordered)


def draw(context: Context, history: pd.DataFrame, predictions: pd.DataFrame) -> plt.Figure:
    """Draw the validation curve of each start, and the test predictions of what was fine-tuned."""
    shape = dict(figsize=(figures.WIDTH, 3.6), layout="constrained", width_ratios=[1, 1.2])
    figure, axes = plt.subplots(1, 2, **shape)
    figures.plot_history(history, value=evaluation.primary(context.asked).column, ax=axes[0])
    axes[0].legend(loc="upper left", bbox_to_anchor=(0, -0.18))
    shown = predictions["strategy"].eq("full") | predictions["sees"].eq("metadata")
    figures.plot_predictions(predictions[shown], task=context.task, ax=axes[1])
    return figure


# ---------------------------------------------------------------------- does the start matter?
def compare(context: Context, run: AnyRun, predictions: pd.DataFrame) -> pd.DataFrame:
    """Set captions beside ImageNet, frozen and fine-tuned, and beside metadata: paired differences.

    Returns:
        ``first``, ``second`` (names for readers), metric, value with its interval, p, n.
    """
    if run.finished:
        return run.table("differences")
    pairs = [
        (Method(start="captions", strategy=how), Method(start="imagenet", strategy=how))
        for how in ("probe", "full")
    ]
    pairs.append((Method(start="captions", strategy="full"), METADATA))
    by_method, rows = evaluation.by_method(predictions), []
    for first, second in pairs:
        found = evaluation.compare(by_method[first], by_method[second], task=context.asked)
        named = {"first": figures.display_name(first), "second": figures.display_name(second)}
        rows.append(named | found.to_dict())
    return keep(run, "differences", pd.DataFrame(rows))


def read(context: Context, scores: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Say which method is best, and whether captions helped beyond chance."""
    best = context.ranked(scores).iloc[0]
    first = differences.iloc[1]  # both fine-tuned
    gain = figures.with_interval(*first[["value", "low", "high"]])
    return (
        f"**Reading.** The best row on {int(best['n'])} test images ({best['group_kind']}) is "
        f"*{best['method']}*, {context.metric} {context.primary(best)}. "
        f"{first['first']} minus {first['second']}: {gain}"
        + (", no difference shown." if first["low"] <= 0 <= first["high"] else ".")
    )
