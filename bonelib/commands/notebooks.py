"""Run notebooks and studies, and list what is finished."""

import contextlib
import functools
import hashlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bonelib.commands import listings
from bonelib.commands.printing import metrics, say, short, told

if TYPE_CHECKING:
    from bonelib.headless import Call, Step


def run(
    numbers: list[str],
    profile: str,
    parameters: list[list[str]],
    sweep: list[str],
    jobs: int,
    list_only: bool,
    keep_other_code: bool,
) -> int:
    """Execute numbered notebooks in order, or only list what there is of them."""
    calls, known = swept(numbers, profile, parameters, sweep)
    return _carry_out(calls, known, jobs=jobs, list_only=list_only, keep=keep_other_code)


def swept(
    numbers: list[str], profile: str, parameters: list[list[str]], sweep: list[str]
) -> "tuple[list[Call], dict[str, Any]]":
    """Return the calls of a sweep, and what ``headless.plan_all`` needs to check them."""
    from bonelib import headless

    calls: list[Call] = []
    for one in headless.sweep(sweep):
        known = checked([*parameters, *map(list, one.items())])
        calls.append((numbers, profile, known.pop("parameters")))
    return calls, known


def _carry_out(
    calls: "list[Call]", known: dict[str, Any], *, jobs: int, list_only: bool, keep: bool
) -> int:
    from bonelib import headless, runs

    if keep:
        os.environ[runs.code.KEEP] = "keep"  # for this process and the kernels it starts
    steps = headless.plan_all(calls, upstream=not list_only, **known)
    if list_only:
        for line in listings.states(headless.states(steps)):
            say(line)
        return 0
    # A batch system ends a job with SIGTERM: kept like Ctrl-C, with the partial copy.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes = headless.run_steps(steps, jobs=jobs, say=say)
    say("")
    for line in listings.outcomes(outcomes):
        say(line)
    published = list(dict.fromkeys(path for outcome in outcomes for path in outcome.published))
    for path in published or [one.step.folder for one in outcomes if not one.error]:
        say(short(path))
    failed = [one for one in outcomes if one.status in ("failed", "stopped")]
    for one in failed:
        error = told(one.refused) if one.refused else one.error.splitlines()[0]
        say(f"{one.status}: {one.step.name}: {error}")
    return 1 if failed else 0


def checked(parameters: list[list[str]]) -> dict[str, Any]:
    """Return what ``headless.plan`` needs to check these parameters, with them.

    Raises:
        ValueError: One stands twice, or names a recipe that can't be made.
    """
    from bonelib import cohort, datasets, runs
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
    problems = functools.partial(_problems, looked={})
    return {"parameters": given, "allowed": allowed, "problems": problems}


def _problems(step: "Step", looked: dict[str, list[str]]) -> list[str]:
    """List what is wrong with the values of a notebook; the test set is one of the split table.

    Args:
        looked: What was found of the test set, by the run of 01 and the test set.
    """
    from bonelib import runs, splits
    from bonelib.experiments import settings

    found = settings.problems(step.values)
    if not found and "TEST" in step.values:
        place, test = step.place("data"), step.values["TEST"]
        asked = f"{place} {test}"
        if asked not in looked:
            looked[asked] = []
            with contextlib.suppress(FileNotFoundError, ValueError):  # said of the notebook's needs
                table = runs.find("data", **place)
                try:
                    splits.apply(table, test=test)
                except ValueError as error:
                    looked[asked] = [f"TEST: {error}"]
        found += looked[asked]
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
    jobs: int,
    keep_other_code: bool,
) -> int:
    """Run what a study or a part of it lists, or only list it."""
    from bonelib import headless

    planned = headless.study(name, part=part, profile=profile, parameters=_once(parameters))
    calls: Any = []
    for number, (numbers, of, values) in enumerate(planned, start=1):
        shown = " ".join(f"{k}={v}" for k, v in values.items())
        say(f"{number}/{len(planned)} {' '.join(numbers)} {of} {shown}")
        if not list:
            known = checked([[k, str(v)] for k, v in values.items()])
            calls.append((numbers, of, known.pop("parameters")))
    if not calls:
        return 0
    return _carry_out(calls, known, jobs=jobs, list_only=False, keep=keep_other_code)


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
        for run_name, facts in runs.failures(name).items():
            say(listings.failure(run_name, facts))
    return 0
