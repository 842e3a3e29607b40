"""Run notebooks and studies, and list what is finished."""

import contextlib
import hashlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from bonelib.commands.printing import metrics, say, short

if TYPE_CHECKING:
    from bonelib.headless import Step


def run(
    numbers: list[str], profile: str, parameters: list[list[str]], keep_other_code: bool
) -> int:
    """Execute numbered notebooks in order."""
    from bonelib import cohort, datasets, headless, runs
    from bonelib.datasets import own_tasks
    from bonelib.experiments import settings

    recipes, given = _recipes(), _once(parameters)
    own_tasks.declare(runs.task_files(given.get("DATA", "phantom"), given.get("DATA_ROOT", "")))
    allowed = {
        "TASK": list(cohort.TASKS),
        "DATA": list(datasets.NAMES),  # or a CSV
        "CAPTIONS": ["table", "reports", "own"],  # or a CSV
        "RECIPE": recipes,
        "COMPARE_TO": list(recipes),
    }
    if given.get("RECIPE") in recipes:
        settings.recipe(given["RECIPE"])  # one that can't be made is refused before the start
    if keep_other_code:
        os.environ[runs.code.KEEP] = "keep"  # for this process and the kernels it starts
    # A batch system ends a job with SIGTERM: kept like Ctrl-C, with the partial copy.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = dict(allowed=allowed, problems=_problems)
    outcomes = headless.run(numbers, profile=profile, parameters=given, **known, report=say)
    say("")
    published = list(dict.fromkeys(path for outcome in outcomes for path in outcome.published))
    for path in published or [one.step.folder for one in outcomes if not one.error]:
        say(short(path))
    failed = [one for one in outcomes if one.status in ("failed", "stopped")]
    for one in failed:
        say(f"{one.status}: {one.step.name}: {one.error.splitlines()[0]}")
    return 1 if failed else 0


def _problems(step: "Step") -> list[str]:
    """List what is wrong with the values of a notebook; the test set is one of the split table."""
    from bonelib import runs, splits
    from bonelib.experiments import settings

    found = settings.problems(step.values)
    if not found and "TEST" in step.values:
        with contextlib.suppress(FileNotFoundError, ValueError):  # said of the notebook's needs
            table = runs.find("data", **step.place("data"))
            try:
                splits.apply(table, test=step.values["TEST"])
            except ValueError as error:
                found.append(f"TEST: {error}")
    return found


def _recipes() -> dict[str, str]:
    """Return a hash of the settings of each recipe, so that a changed one is noticed."""
    from bonelib.experiments import settings

    made = {}
    for name in settings.recipe_names():
        try:
            meant = settings.recipe(name)
        except ValueError as error:  # told to those who ask for it
            meant = error
        made[name] = hashlib.sha256(repr(meant).encode()).hexdigest()[:12]
    return made


def _once(parameters: list[list[str]]) -> dict[str, str]:
    names = [name for name, _ in parameters]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"-p gives {', '.join(twice)} more than once. Keep one value each.")
    return dict(parameters)


def study(
    name: str,
    list: bool,
    part: str,
    profile: str,
    parameters: list[list[str]],
    keep_other_code: bool,
) -> int:
    """Run what a study or a part of it lists, one after the other, or only list it."""
    from bonelib import headless

    planned = headless.study(name, part=part, profile=profile, parameters=_once(parameters))
    for number, (numbers, of, values) in enumerate(planned, start=1):
        shown = " ".join(f"{k}={v}" for k, v in values.items())
        say(f"{number}/{len(planned)} {' '.join(numbers)} {of} {shown}")
        given = [[k, str(v)] for k, v in values.items()]
        if not list and (failed := run([*numbers], of, given, keep_other_code)):
            return failed
    return 0


def train(folder: Path, accelerator: str) -> int:
    """Carry out the training that a notebook planned; one process of several under ``torchrun``.

    So is each task of ``srun``.
    """
    from bonelib import runs, training
    from bonelib.experiments import finetuning, pretraining
    from bonelib.experiments.context import Process

    training.take_ranks()
    run = runs.reopen(folder)
    made_by = {"pretraining": pretraining, "finetuning": finetuning}[run.head["stage"]]
    setup, first = made_by.reopen(run), Process.here().first
    for row in made_by.train(run, setup, accelerator=accelerator):
        if first:
            say(made_by.progress(row, setup))
    if first:
        number = runs.NOTEBOOKS[run.head["stage"]]
        say(f"Trained: {short(folder)}. Run notebook {number} again to evaluate it.")
    return 0


def listing(profile: str) -> int:
    """Print the finished runs."""
    from bonelib import headless, runs

    for name in [profile] if profile else headless.PROFILES:
        table = runs.collect(profile=name)
        say(f"{name}: {len(table) or 'no'} finished runs in {runs.folder() / name}")
        if len(table):
            table["metrics"] = [metrics(row) for row in table.to_dict("records")]
            shown = table[["run", "seconds", "openings", "stale", "other_code", "metrics"]].copy()
            below = shown["run"].str.removeprefix(f"{name}/")
            shown["run"] = below.str.ljust(below.str.len().max())
            say(shown.to_string(index=False, justify="left", max_colwidth=100))
    return 0
