"""Run notebooks and studies, and list what is finished."""

import os
import signal
import tomllib
from pathlib import Path

from bonelib.commands.telling import metrics, say, short


def run(numbers: list[str], profile: str, parameters: list[list[str]]) -> int:
    """Execute numbered notebooks in order."""
    from bonelib import cohort, datasets, headless, runs

    recipes = tomllib.loads((runs.ROOT / "notebooks" / "recipes.toml").read_text())
    allowed = {"TASK": list(cohort.TASKS), "DATA": list(datasets.NAMES), "RECIPE": list(recipes)}
    allowed |= {"CAPTIONS": ["table", "reports", "own"]}  # or a CSV
    allowed |= {"PROBE": ["val", "test"], "WHERE": ["here", "elsewhere"]}
    # A batch system ends a job with SIGTERM: kept like Ctrl-C, with the partial copy.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes = headless.run(
        numbers,
        profile=profile,
        parameters=_once(parameters),
        allowed=allowed,
        report=say,
    )
    say("")
    published = list(dict.fromkeys(path for outcome in outcomes for path in outcome.published))
    for path in published:
        say(short(path))
    for outcome in outcomes:
        if not published and not outcome.error:
            say(short(outcome.step.folder))
    failed = [o for o in outcomes if o.status in ("failed", "stopped")]
    for outcome in failed:
        say(f"{outcome.status}: {outcome.step.name}: {outcome.error.splitlines()[0]}")
    return 1 if failed else 0


def _once(parameters: list[list[str]]) -> dict[str, str]:
    names = [name for name, _ in parameters]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"-p gives {', '.join(twice)} more than once. Keep one value each.")
    return dict(parameters)


def study(name: str, list: bool, part: str, profile: str, parameters: list[list[str]]) -> int:
    """Run what a study or a part of it lists, one after the other, or only list it."""
    from bonelib import headless

    runs_of = headless.study(name, part=part, profile=profile, parameters=_once(parameters))
    for number, (numbers, of, values) in enumerate(runs_of, start=1):
        told = " ".join(f"{k}={v}" for k, v in values.items())
        say(f"{number}/{len(runs_of)} {' '.join(numbers)} {of} {told}")
        if not list:
            failed = run([*numbers], of, [[k, str(v)] for k, v in values.items()])
            if failed:
                return failed
    return 0


def train(folder: Path, accelerator: str) -> int:
    """Carry out a planned pretraining."""
    from bonelib.commands.train import train as carry_out

    carry_out(folder, accelerator=accelerator, report=say)
    if os.environ.get("RANK", "0") == "0":
        say(f"Trained: {short(folder)}. Run notebook 04 again to evaluate it.")
    return 0


def listing(profile: str) -> int:
    """Print the finished runs."""
    from bonelib import headless, runs

    if profile and profile not in headless.PROFILES:
        known = ", ".join(headless.PROFILES)
        raise ValueError(f"Unknown profile {profile!r}. Choose one of {known}.")
    for name in [profile] if profile else headless.PROFILES:
        table = runs.collect(profile=name)
        say(f"{name}: {len(table) or 'no'} finished runs in {runs.folder() / name}")
        if len(table):
            measured = [column for column in table if column.startswith("metrics.")]
            table["metrics"] = [metrics(row) for row in table[measured].to_dict("records")]
            shown = table[["run", "seconds", "openings", "stale", "metrics"]].copy()
            below = shown["run"].str.removeprefix(f"{name}/")
            shown["run"] = below.str.ljust(below.str.len().max())
            say(shown.to_string(index=False, justify="left", max_colwidth=100))
    return 0
