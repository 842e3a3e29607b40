"""What encoders say of each task: heads on frozen features and trained towers, then the labels."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from bonelib import adaptation, cohort, evaluation, features, images, models, runs, training
from bonelib.evaluation import Method
from bonelib.experiments.bone_tasks.setup import HEADS, Setup
from bonelib.experiments.context import AnyRun, Context, in_order, keep, opened
from bonelib.experiments.progress import bar, each, fit

READER_2 = "_reader2"  # what the column of a second reader's labels ends in
RATES = dict(lr=1e-3, backbone_lr=3e-4, layer_decay=1.0)  # those of notebook 05


# ---------------------------------------------------------------------- few labels, and all
def _draws(setup: Setup, task: cohort.Task, plan: Mapping[str, Any]) -> adaptation.Draws:
    """Draw shares of the labels: nested, whole groups, the same for every encoder.

    All labels are one draw. Where a class has no training image there is no other.
    """
    train = setup.part("train", task)
    labels = task.encode(setup.view[task.column])[train]
    groups = setup.view[cohort.GROUP].to_numpy()[train]
    whole = dict(seed=0, shots=0, share=1.0, images=len(labels), groups=len(set(groups)), note="")
    every = adaptation.Draws(np.ones((1, len(labels)), dtype=bool), pd.DataFrame([whole]))
    few = tuple(share for share in plan["shares"] if share < 1)
    if not few or setup.unseen(task):
        return every
    given = dict(classes=len(task.classes), shots=(), seeds=range(plan["label_seeds"]))
    part = adaptation.draw(labels, groups, shares=few, **given)
    table = pd.concat([part.table, every.table], ignore_index=True)
    return adaptation.Draws(np.concatenate([part.rows, every.rows]), table)


def _probed(setup: Setup, task: cohort.Task, plan: Mapping[str, Any]) -> Iterator[pd.DataFrame]:
    """Yield what heads on each encoder say of the test images, a table a draw of labels."""
    head, test = HEADS.get(task.kind, "probe"), setup.part("test")
    train, draws = setup.part("train", task), _draws(setup, task, plan)
    for method, x in setup.seen(task).items():
        support = adaptation.Support(
            features=np.ascontiguousarray(x[train], dtype=np.float32),
            labels=task.encode(setup.view[task.column])[train],
            groups=setup.view[cohort.GROUP].to_numpy()[train],
            classes=len(task.classes),
            ordinal=task.kind == "ordinal",
            seed=setup.context.seed,
        )
        own, held = replace(method, strategy=head), np.asarray(x[test], dtype=np.float32)
        drawn = [*zip(draws.rows, draws.table.to_dict("records"), strict=True)]
        with bar(f"{task.name}: {head}", "draws of labels") as show:
            for rows, told in each(drawn, show):
                logits = adaptation.strategies.fit(head, support.rows(rows)).logits(held)
                yield _frame(setup, task, own, logits, told)


def _frame(
    setup: Setup, task: cohort.Task, method: Method, logits: np.ndarray, drawn: Mapping[str, Any]
) -> pd.DataFrame:
    """Return what a method says of the test images, having learnt from a draw of the labels."""
    named = dict(task=task, seed=drawn["seed"], method=method)
    made = evaluation.predictions(setup.view[setup.part("test")], logits, **named)
    return made.assign(share=drawn["share"], images=drawn["images"])


# ---------------------------------------------------------------------- what does training add?
def finetune(
    context: Context, run: AnyRun, setup: Setup, plan: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Train each encoder for each task by each strategy; yields a row an epoch.

    What is done outlives a killed process. The predictions of test images are kept in the table
    ``tuned``, labels sealed. Towers that can't be trained (ONNX) are left out.
    """
    if not plan["finetune"] or run.trained:
        return
    done = (runs.checkpoint(run) or {"done": {}})["done"]
    frames = []
    for task in setup.tasks:
        draws = _draws(setup, task, plan)
        table = draws.table[draws.table["share"].isin(plan["tuned_shares"])]
        for method, tower in setup.towers.items():
            if not any(parameter.requires_grad for parameter in tower.parameters()):
                continue
            for strategy in plan["finetune"]:
                own = replace(method, strategy=strategy)
                for at, drawn in table[table["seed"] == 0].iterrows():
                    name = f"{task.name} {drawn['share']} {own.columns()}"
                    if name not in done:
                        done[name] = yield from _fit(setup, task, own, draws.rows[at], plan)
                        runs.save_checkpoint(run, {"done": done})
                    logits = done[name].numpy()
                    frames.append(_frame(setup, task, own, logits, drawn))
    run.save_table("tuned", pd.concat(frames) if frames else pd.DataFrame())
    runs.mark_trained(run)


def _fit(
    setup: Setup, task: cohort.Task, method: Method, drawn: np.ndarray, plan: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Train one tower on the drawn training images; returns the logits of the test images."""
    tower = copy.deepcopy(setup.towers[replace(method, strategy="probe")])
    cache, ids = setup.context.cache(tower.preprocessing.size), setup.view[cohort.IMAGE_ID]
    rows = np.flatnonzero(setup.part("train", task))[drawn]
    val, labels = setup.part("val", task), task.encode(setup.view[task.column])
    primary, seed = evaluation.primary(task), setup.context.seed
    size = min(plan["batch_size"], len(rows))
    augmented: dict[str, Any] = dict(augment={}, flip=True, shuffle=True, seed=seed)
    augmented |= tower.preprocessing.pixels()
    loader = images.loader(cache, ids.iloc[rows], batch_size=size, labels=labels[rows], **augmented)

    def validate(model: models.Classifier) -> dict[str, float]:
        out = features.encode(model, in_order(cache, ids[val], tower))
        told = evaluation.predictions(setup.view[val], out, task=task, seed=seed)
        return {primary.column: evaluation.score(told, task)}

    tuning = adaptation.Tuning(
        models.Classifier(tower, outputs=task.outputs),
        labels[rows],
        training.Options(epochs=plan["epochs"], **RATES),
        steps=plan["epochs"] * len(loader),
        ordinal=task.kind == "ordinal",
        seed=seed,
    )
    runs.seed_everything(seed)
    named = {"task": task.name, "images": len(rows)} | method.columns()
    with adaptation.strategy(method.strategy)(tuning) as trained:
        given = (trained.model, trained.objective, loader, trained.options)
        checked = dict(validate=lambda _: validate(trained.classifier()), keep=primary.keep)
        for row in fit(*given, **checked):
            yield named | row
    test = in_order(cache, ids[setup.part("test")], tower)
    return torch.from_numpy(features.encode(trained.classifier(), test))


# ---------------------------------------------------------------------- how good is each encoder?
def predict(context: Context, run: AnyRun, setup: Setup, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Predict every task by every encoder, with few labels and with all; then open the test set.

    Those of the run's own task by all labels are kept as ``predictions`` too, where notebook 09
    finds them, and the labels of a second reader as ``second``.

    Returns:
        A predictions table with ``share`` of the labels and how many ``images`` that is; rows
        without a label are left out. Empty where no task is asked.
    """
    if run.finished:
        return run.table("every")
    frames = [frame for task in setup.tasks for frame in _probed(setup, task, plan)]
    if plan["finetune"] and frames:
        frames.append(run.table("tuned"))
    if not frames:
        run.save_table("second", _second((), pd.DataFrame()))
        columns = ["task", "share", "label", *evaluation.METHOD]
        return keep(run, "every", pd.DataFrame(columns=columns))
    sealed = opened(run)
    made = evaluation.with_labels(pd.concat(frames, ignore_index=True), sealed)
    made = made.dropna(subset=["label"])
    run.save_table("second", _second(setup.tasks, sealed))
    own = made[(made["task"] == context.task) & (made["share"] == 1)]
    if len(own):
        run.save_table("predictions", _of(own, cohort.task(context.task)))
    # classes and values share the column
    return keep(run, "every", made.assign(label=made["label"].map(str)))


def _second(tasks: Sequence[cohort.Task], sealed: pd.DataFrame) -> pd.DataFrame:
    """Return the grades of second readers, of images that the first graded too."""
    parts = [pd.DataFrame(columns=[cohort.IMAGE_ID, "task", "label"])]
    for task in tasks:
        column = task.column + READER_2
        if task.kind == "ordinal" and column in sealed:
            both = sealed.dropna(subset=[task.column, column])
            parts.append(both[[cohort.IMAGE_ID]].assign(task=task.name, label=both[column]))
    return pd.concat(parts).astype(str)


def _of(made: pd.DataFrame, task: cohort.Task) -> pd.DataFrame:
    """Return the rows of one task with its columns alone, labels in their own type."""
    kept = [f"p_{name}" for name in task.classes] or ["value"]
    scored = [c for c in made if (c.startswith("p_") or c == "value") and c not in kept]
    kind = float if task.kind == "regression" else str
    return made.drop(columns=scored).astype({"label": kind})
