"""Run the numbered notebooks without a browser: check first, execute in order, reuse what stands.

Numbers and parameters come in; executed copies in the run folders and one outcome per notebook go
out. Everything a user can mistype is refused before the first kernel starts (``plan``); "finished"
is always the record in the run folder (``execute``), and a finished run is executed again only if
its notebook, its parameters, its inputs or the package changed.
"""

import contextlib
import hashlib
import json
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import runs
from .execute import INTERRUPTED, execute
from .plan import PROFILES, STAGES, Step, notebooks, plan
from .studies import study

__all__ = ["PROFILES", "Outcome", "Step", "notebooks", "plan", "run", "study"]


@dataclass
class Outcome:
    """What became of one notebook: ``executed, reused, planned, failed`` or ``stopped``.

    A planned one left its training to another machine; those that need it are stopped.
    """

    step: Step
    status: str
    seconds: float = 0.0
    error: str = ""
    published: list[Path] = field(default_factory=list)


def run(
    numbers: Sequence[str] = (),
    *,
    profile: str = "tiny",
    parameters: Mapping[str, Any] | None = None,
    allowed: Mapping[str, Sequence[str]] | None = None,
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
    steps = plan(numbers, profile=profile, parameters=parameters, allowed=allowed, folder=folder)
    code = runs.code_hash()
    outcomes: dict[str, Outcome] = {}
    for step in steps:
        with runs.alone(step.folder):  # another process at the same run: wait, then reuse
            outcomes[step.number] = _one(step, outcomes, code, report)
        if outcomes[step.number].error.endswith(INTERRUPTED):
            raise KeyboardInterrupt
    return list(outcomes.values())


def _one(
    step: Step, earlier: dict[str, Outcome], code: str, report: Callable[[str], None]
) -> Outcome:
    broken = [n for n in step.needs if n in earlier and earlier[n].error]
    if broken:
        error = f"it needs {', '.join(broken)}, which did not finish"
        report(f"{step.name:<16} not started: {error}")
        return Outcome(step, "stopped", error=error)
    state: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):  # the notebook will say so
        state = _state(step, code)
    if state and _unchanged(step, state):
        report(f"{step.name:<16} reused {step.folder}")
        return Outcome(step, "reused", published=_published(step))
    report(f"{step.name:<16} started {time.strftime('%H:%M:%S')}")
    began = time.monotonic()
    error = execute(step, report)
    seconds = round(time.monotonic() - began, 1)
    if ": Planned: " in error:  # runs.Planned, raised by the notebook
        told = error.split(": Planned: ", 1)[1].split("\nat ")[0]
        report(f"{step.name:<16} planned in {seconds:.0f} s. " + told.replace("\n", "\n    "))
        return Outcome(step, "planned", seconds, told)
    if error:
        report(f"{step.name:<16} failed after {seconds:.0f} s")
        report("    " + error.replace("\n", "\n    "))
        report(f"    What it did so far: {step.folder / 'notebook-failed.ipynb'}")
        return Outcome(step, "failed", seconds, error)
    state["record"] = _hash(step.folder / "record.json")
    with runs.replacing(step.folder / "headless.json") as temporary:
        temporary.write_text(json.dumps(state, indent=1) + "\n")
    report(f"{step.name:<16} done in {seconds:.0f} s")
    return Outcome(step, "executed", seconds, published=_published(step))


def _published(step: Step) -> list[Path]:
    record = json.loads((step.folder / "record.json").read_text())
    names = dict.fromkeys(record["notes"].get("published", []))
    paths = [runs.figures_folder(record["data"]) / name for name in names]
    return [path for path in paths if path.exists()]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _state(step: Step, code: str) -> dict[str, Any]:
    """Describe everything that an execution of ``step`` depends on."""
    cells = json.loads(step.source.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    inputs = {n: runs.find(STAGES[n], **step.place(STAGES[n])).hash for n in step.needs}
    if step.stage == "results":  # it reads every record of the profile, other seeds included
        for record in sorted((runs.folder() / step.profile).glob("*/*/*/*/record.json")):
            if record.parent.parent.name != "results":
                run = "/".join(record.parts[-5:-1])
                inputs[run] = _hash(record)
    values = {name: value for name, value in step.values.items() if name != "REUSE"}
    recipe = _recipe(step.source.parent, step.values.get("RECIPE", ""))
    state = {
        "recipe": recipe,
        "notebook": hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12],
        "parameters": values,
        "inputs": inputs,
        "code": code,
    }
    return json.loads(json.dumps(state))


def _recipe(folder: Path, name: str) -> dict[str, Any]:
    """Return the sections of ``recipes.toml`` that the recipe of a step is made of."""
    file = folder / "recipes.toml"
    known = tomllib.loads(file.read_text()) if name and file.exists() else {}
    found = {}
    while name in known and name not in found:
        found[name] = {k: v for k, v in known[name].items() if k != "why"}
        name = known[name].get("like", "base")
    return found


def _unchanged(step: Step, state: dict[str, Any]) -> bool:
    note = step.folder / "headless.json"
    if step.values.get("REUSE") is False or not (step.folder / "record.json").exists():
        return False
    try:
        record = runs.find(step.stage, **step.place(step.stage)).hash  # refuses a stale run
        return json.loads(note.read_text()) == state | {"record": record}
    except (FileNotFoundError, ValueError):  # never executed here, or stale
        return False
