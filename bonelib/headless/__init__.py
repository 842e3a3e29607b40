"""Run the numbered notebooks without a browser: check first, execute in order, reuse what stands.

Numbers and parameters come in; executed copies in the run folders and one outcome per notebook go
out. Everything a user can mistype is refused before the first kernel starts (``plan``); "finished"
is always the record in the run folder (``execute``), and a finished run is executed again only if
its record is stale (``runs.stale``), or its notebook or parameters are others than those recorded.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import runs
from .execute import execute
from .plan import PROFILES, Problems, Step, notebooks, plan
from .studies import study


@dataclass
class Outcome:
    """What became of one notebook: ``executed, reused, planned, failed`` or ``stopped``.

    A planned one left its training to another machine; those that need it are stopped.
    """

    step: Step
    status: str
    error: str = ""
    published: list[Path] = field(default_factory=list)


def run(
    numbers: Sequence[str] = (),
    *,
    profile: str = "tiny",
    parameters: Mapping[str, Any] | None = None,
    allowed: Mapping[str, Sequence[str] | Mapping[str, str]] | None = None,
    problems: Problems = lambda step: [],
    folder: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Execute notebooks in order, reusing those whose inputs and settings are unchanged.

    A failing notebook keeps its partial copy, loses the record it may have written, and stops those
    that need it; the others go on.

    Args:
        report: Called with each line of progress, the printed lines of the notebooks among them.
            For the other arguments see ``plan``.

    Raises:
        ValueError: Something is wrong with the call; nothing was started.
        KeyboardInterrupt: Passed on after the partial copy was kept.
    """
    known = dict(allowed=allowed, problems=problems, folder=folder)
    steps = plan(numbers, profile=profile, parameters=parameters, **known)
    outcomes: dict[str, Outcome] = {}
    for step in steps:
        with runs.alone(step.folder):  # another process at the same run: wait, then reuse
            outcomes[step.number] = _one(step, outcomes, report)
    return list(outcomes.values())


def _one(step: Step, earlier: dict[str, Outcome], report: Callable[[str], None]) -> Outcome:
    broken = [n for n in step.needs if n in earlier and earlier[n].error]
    if broken:
        error = f"it needs {', '.join(broken)}, which did not finish"
        report(f"{step.name:<16} not started: {error}")
        return Outcome(step, "stopped", error)
    reasons = _reasons(step)
    if not reasons:
        report(f"{step.name:<16} reused {step.folder}")
        return Outcome(step, "reused", published=_published(step))
    again = f", again since {'; '.join(reasons)}" if (step.folder / "record.json").exists() else ""
    report(f"{step.name:<16} started {time.strftime('%H:%M:%S')}{again}")
    began = time.monotonic()
    status, error = execute(step, report)
    seconds = time.monotonic() - began
    if status == "executed":
        report(f"{step.name:<16} done in {seconds:.0f} s")
        return Outcome(step, status, published=_published(step))
    report(f"{step.name:<16} {status} after {seconds:.0f} s")
    report("    " + error.replace("\n", "\n    "))
    return Outcome(step, status, error)


def _reasons(step: Step) -> list[str]:
    """Say why a step must be executed; empty if its record stands."""
    if not step.values["REUSE"]:
        return ["REUSE is False"]
    try:
        record = runs.Record(step.folder)
    except (FileNotFoundError, ValueError) as error:  # never finished here, or of an older version
        return [str(error)]
    place = step.place(step.stage)
    stale = runs.stale(record, data=place["data"], root=place["root"])
    return stale or runs.freshness.notebook_changes(record.head["notebook"], step.notebook)


def _published(step: Step) -> list[Path]:
    record = runs.Record(step.folder)
    folder = runs.figures_folder(record.head["data_name"])
    paths = [folder / name for name in dict.fromkeys(record.notes.get("published", []))]
    return [path for path in paths if path.exists()]
