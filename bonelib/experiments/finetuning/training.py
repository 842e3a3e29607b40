"""The trainings of notebook 05: every start by every strategy, on the same batches."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from bonelib import (
    adaptation,
    evaluation,
    models,
    runs,
)
from bonelib.evaluation import Method
from bonelib.experiments.context import (
    AnyRun,
    Process,
    keep_inputs,
)
from bonelib.experiments.finetuning.setup import Setup, bundle_of, facts_of, name_of, validate
from bonelib.experiments.progress import fit


def train(run: AnyRun, setup: Setup, *, accelerator: str = "auto") -> Iterator[dict[str, Any]]:
    """Fine-tune every start by every strategy; yields a row an epoch with start and strategy.

    All see the same batches. The epoch is kept that is best on validation patients. A killed
    training goes on where it stopped, a finished one yields nothing. Under ``torchrun`` the first
    process writes.
    """
    if run.trained:
        return
    first = Process.here().first
    if first:
        keep_inputs(run, setup)
    saved = runs.checkpoint(run) or {"done": [], "history": [], "under_way": "", "state": None}
    done = [name for name in saved["done"] if (run.bundle / name).exists()]
    history = [row for row in saved["history"] if row["training"] in done]
    for start, strategy in setup.trainings:
        method = setup.plan.method(start, strategy)
        name = name_of(method)
        if name in done:
            continue  # an earlier process finished it
        before = {"under_way": name, "done": [*done], "history": [*history]}
        resume = saved["state"] if saved["under_way"] == name else None
        for row in _fit(run, setup, (start, method), before, resume, accelerator):
            history.append(method.columns() | {"training": name} | row)
            if first:
                run.save_table("history", pd.DataFrame(history))
            yield history[-1]
        done.append(name)
    if first:
        run.save_table("history", pd.DataFrame(history))
        runs.mark_trained(run)


def _fit(
    run: runs.Run,
    setup: Setup,
    which: tuple[str, Method],
    before: dict[str, Any],
    resume: dict[str, Any] | None,
    accelerator: str,
) -> Iterator[dict[str, Any]]:
    """Fine-tune one start by one strategy and save its bundle.

    Args:
        which: The start and the method.
        before: What is under way, what is done, and its rows: kept beside the state, so that a
            killed comparison goes on with what was under way.
    """
    process, (start, method) = Process.here(), which
    tuning, (loader, _) = setup.tuning(start, method.strategy), setup.batches(start)
    runs.seed_everything(setup.seed)
    loader.epoch = 0  # all see the same batches
    with adaptation.strategy(method.strategy)(tuning) as trained:
        loader = replace(loader, augment=loader.augment | trained.augment)
        yield from fit(
            trained.model,
            trained.objective,
            loader,
            trained.options,
            validate=lambda _: validate(setup, start, trained.classifier()),
            keep=evaluation.primary(setup.task).keep,
            resume=resume,
            checkpoint=lambda state: runs.save_checkpoint(run, before | {"state": state}),
            accelerator=accelerator,
            **process.where,
        )
    if process.first:
        facts = facts_of(setup, method) | trained.chosen
        models.save_bundle(bundle_of(run, method), trained.classifier(), **facts)


def progress(row: dict[str, Any], setup: Setup) -> str:
    """Put an epoch on one line."""
    primary = evaluation.primary(setup.task)
    told = f"loss {row['loss']:.3f}  validation {primary.metric} {row[primary.column]:.3f}"
    width = max(len(name_of(setup.plan.method(*both))) for both in setup.trainings)
    return f"  {row['training']:<{width}} epoch {row['epoch']:>2}/{setup.plan.epochs}  {told}"
