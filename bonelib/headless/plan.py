"""Check a call completely before anything starts: numbers, names, types, folders, upstream runs.

What was typed comes in; one ``Step`` per notebook goes out, in the order of running, or one error
that lists every problem with its cure. papermill itself would pass a mistyped name on in silence.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import runs
from .parameters import PLACE, convert, declared

PROFILES = ("tiny", "demo", "full")
STAGES = {number: stage for stage, number in runs.NOTEBOOKS.items()}
IN_RECORD = (*PLACE, "RUN_ON")  # where a training ran changes no result
MAY_BE_CSV = ("DATA", "CAPTIONS")  # a name, or the path of a table


@dataclass
class Step:
    """One notebook with everything known about its run before it starts.

    Attributes:
        source: Where it lies.
        text: Its file as it was read when the call was checked: this is executed.
        given: Parameters that are passed, converted to the declared types.
        values: All parameters, those given over the notebook's defaults.
        needs: Numbers of the notebooks it depends on, as far as they exist.
        stands_for: What a value stands for, hashed, by parameter: the settings of a recipe.
    """

    number: str
    stage: str
    source: Path
    text: str
    given: dict[str, Any]
    values: dict[str, Any]
    needs: tuple[str, ...]
    stands_for: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the notebook, e.g. ``04_pretraining``."""
        return self.source.stem

    @cached_property
    def folder(self) -> Path:
        """The run folder, known from the parameters and the data."""
        return runs.paths.run_path(self.stage, **self.place(self.stage))

    def path(self, stage: str, above: Path | None = None) -> Path:
        """Return the folder of the run of ``stage`` for this one, below that of its data."""
        place, above = self.place(stage), above or self.folder.parents[2]
        return above / place["task"] / stage / f"{place['variant']}-s{place['seed']}"

    @property
    def inputs(self) -> list[Path]:
        """The folders of the runs it depends on, in the order of ``needs``."""
        return [self.path(STAGES[number]) for number in self.needs]

    def place(self, stage: str) -> dict[str, Any]:
        """Return the arguments with which ``runs.find`` finds the run of ``stage`` for this one."""
        value, variant = self.values, self.values["VARIANT"]
        if stage != self.stage:
            variant = runs.input_variant(value.get("FROM", ""), stage, default=variant)
        return {
            "profile": value["PROFILE"],
            "data": value["DATA"],
            "root": value["DATA_ROOT"],
            "task": "any" if stage in runs.ANY_TASK else value["TASK"],
            "seed": value["SEED"],
            "variant": variant,
        }

    @cached_property
    def notebook(self) -> dict[str, Any]:
        """What is executed: a hash of the code cells, and the parameters that they use.

        A path stands with its name only: what the file holds is known to the record.
        """
        cells = json.loads(self.text)["cells"]
        sources = [
            "".join(cell["source"])
            for cell in cells
            if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", ())
        ]
        text = "\n".join(sources)
        used = [name for name in self.values if re.search(rf"\b{name}\b", text)]
        values = {name: self.values[name] for name in used if name not in IN_RECORD}
        for name in MAY_BE_CSV:
            if str(values.get(name, "")).endswith(".csv"):
                values[name] = Path(values[name]).name
        values |= {f"{name} stands for": self.stands_for[name] for name in self.stands_for}
        digest = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12]
        given = {k: v for k, v in self.given.items() if k not in IN_RECORD}
        return json.loads(json.dumps({"cells": digest, "parameters": values, "given": given}))


Problems = Callable[[Step], Sequence[str]]  # what is wrong with the values of a notebook
Allowed = Mapping[str, Sequence[str] | Mapping[str, str]]  # values of a parameter
Call = tuple[Sequence[str], str, Mapping[str, Any]]  # notebooks, profile, parameters


def notebooks(folder: Path | None = None) -> dict[str, Path]:
    """List the notebooks of a folder, ``notebooks/`` unless given, by the number of their stage.

    Raises:
        FileNotFoundError: The folder holds none.
        ValueError: Two notebooks share a number.
    """
    folder = folder or runs.ROOT / "notebooks"
    found: dict[str, Path] = {}
    for path in (p for p in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if p.name[:2] in STAGES):
        other = found.setdefault(path.stem[:2], path)
        if other != path:
            raise ValueError(
                f"Two notebooks have the number {path.stem[:2]}: {other.name} and {path.name}. "
                "The number is the order of running; rename one."
            )
    if not found:
        raise FileNotFoundError(f"No numbered notebooks (01_data.ipynb, …) in {folder}.")
    return found


def plan(
    numbers: Sequence[str] = (),
    *,
    profile: str = "tiny",
    parameters: Mapping[str, Any] | None = None,
    **known: Any,
) -> list[Step]:
    """Check a single call by ``plan_all``, whose further arguments these are."""
    return plan_all([(numbers, profile, parameters or {})], **known)


def plan_all(
    calls: Sequence[Call],
    *,
    allowed: Allowed | None = None,
    problems: Problems = lambda step: [],
    folder: Path | None = None,
    upstream: bool = True,
    queued: Collection[Path] = (),
) -> list[Step]:
    """Check calls completely and return their steps in order; nothing is executed or written.

    Each run folder of a sweep or a study is made once.

    Args:
        calls: Notebooks, ``("01", "4")``, all that exist if empty; profile; and parameters by name,
            as text or typed, each for the notebooks that declare it.
        allowed: Values that a parameter may take, ``{"TASK": […], "DATA": […]}``. A mapping gives a
            hash of what each value stands for, so that a recipe that was changed is noticed.
            ``DATA`` and ``CAPTIONS`` may also be the path of a CSV.
        problems: Lists what is wrong with all values of one notebook together.
        folder: Where the notebooks lie; ``notebooks/`` of the repository by default.
        upstream: Without, what the steps rely on need not be there: nothing is started.
        queued: Folders of runs that jobs are going to make.

    Raises:
        ValueError: Lists *all* problems at once, each with what to do; two runs that would share a
            folder are one.
    """
    texts = {
        number: (path, path.read_text(encoding="utf-8"))  # what is executed, whatever is saved now
        for number, path in notebooks(folder).items()
    }
    steps: list[Step] = []
    wrong: list[str] = []
    for numbers, profile, parameters in calls:
        found, refused = _steps(numbers, profile, parameters, texts=texts, allowed=allowed or {})
        steps += found
        wrong += refused + [one for step in found for one in problems(step)]
    if not wrong:  # folders and runs can only be looked up with sound values
        steps, wrong = _folders(steps)
        wrong += _missing(steps, queued) if upstream else []
    if wrong := list(dict.fromkeys(wrong)):
        lines = "\n".join(f"  - {line}" for line in wrong)
        raise ValueError(f"Nothing was started, {len(wrong)} problem(s):\n{lines}")
    return steps


def _steps(
    numbers: Sequence[str],
    profile: str,
    parameters: Mapping[str, Any],
    *,
    texts: Mapping[str, tuple[Path, str]],
    allowed: Allowed,
) -> tuple[list[Step], list[str]]:
    """Return the steps of one call, and all that is wrong with its words."""
    given = {name: _absolute(name, value) for name, value in parameters.items()}
    wrong = [] if profile in PROFILES else [_unknown("profile", profile, PROFILES)]
    chosen = []
    for typed in numbers or texts:
        number = f"{typed}".zfill(2)[:2]
        if number in texts and f"{typed}".zfill(2) in (number, texts[number][0].stem):
            chosen.append(number)
        else:
            there = ", ".join(path.stem for path, _ in texts.values())
            wrong.append(f"There is no notebook {typed!r}. These exist: {there}.")

    declarations = {}
    for number in sorted(set(chosen)):
        source, text = texts[number]
        try:
            declarations[number] = declared(text)
        except ValueError as error:
            wrong.append(f"{source.name}: {error}")
    known = sorted({name for names in declarations.values() for name in names} - {"PROFILE"})
    for name in given if declarations else ():
        if name == "PROFILE":
            wrong.append("PROFILE is not a -p parameter; choose it with --profile.")
        elif name not in known:
            wrong.append(_unknown("parameter", name, known))
    wrong += _wrong_values(given, allowed)

    steps = []
    for number, defaults in declarations.items():
        passed = {"PROFILE": profile}
        for name in (n for n in defaults if n in given and n != "PROFILE"):
            try:
                passed[name] = convert(name, given[name], type(defaults[name]))
            except ValueError as error:
                wrong.append(str(error))
        values = defaults | passed
        needs = tuple(n for n in _needs(number, values) if n in texts)
        meant = {
            name: hashes[values[name]]
            for name, hashes in allowed.items()
            if isinstance(hashes, Mapping) and values.get(name) in hashes
        }
        steps.append(Step(number, STAGES[number], *texts[number], passed, values, needs, meant))
    return steps, wrong


def _needs(number: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    further = [
        needs
        for (n, name, value), needs in runs.NEEDS_WITH.items()
        if n == number and values.get(name) == value
    ]
    return sum(further, runs.NEEDS[number])


def _absolute(name: str, value: Any) -> Any:
    # JupyterLab and papermill differ in their working directory, so no relative path goes through.
    is_path = name == "DATA_ROOT" or (name in MAY_BE_CSV and str(value).endswith(".csv"))
    return str(Path(str(value)).expanduser().absolute()) if is_path and value else value


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    folded = {k.lower(): k for k in known}
    close = [folded[k] for k in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"Unknown {what} {name!r}.{hint} Known: {', '.join(known)}."


def _wrong_values(given: dict[str, Any], allowed: Allowed) -> list[str]:
    found = []
    for name in given.keys() & allowed.keys():
        value, values = str(given[name]), list(allowed[name])
        if name in MAY_BE_CSV and value.endswith(".csv"):
            if not Path(value).is_file():
                found.append(f"{name}: there is no file {value}.")
        elif value not in values and not (name == "DATA" and _are_data(value, values)):
            found.append(_unknown(name, value, values))
    variant = str(given.get("VARIANT", "default"))
    if not re.fullmatch(r"[\w.+-]+", variant):
        found.append(f"VARIANT {variant!r} can't name a folder; use letters, digits and . _ + -")
    return found


def _are_data(name: str, sets: list[str]) -> bool:
    """Tell whether a name joins data sets, a+b, or is that of runs: ``fracatlas-3fa2c1``."""
    above = runs.folder().glob("*")
    return set(name.split("+")) <= {*sets} or any((one / name).is_dir() for one in above)


def _folders(steps: list[Step]) -> tuple[list[Step], list[str]]:
    """Name the folder of each run, keep one step for each, and list those that can't share it."""
    above: dict[tuple[Any, ...], Path] = {}  # a large data set is looked at once for its name
    made: dict[Path, Step] = {}
    found: list[str] = []
    for step in steps:
        data = tuple(step.values[name] for name in ("PROFILE", "DATA", "DATA_ROOT"))
        try:
            if data in above:
                step.folder = step.path(step.stage, above[data])
            above[data] = step.folder.parents[2]
        except (FileNotFoundError, ValueError) as error:
            found.append(str(error))
            continue
        first = made.setdefault(step.folder, step)
        if differ := runs.freshness.notebook_changes(first.notebook, step.notebook):
            found.append(
                f"{step.name}: two runs would share {step.folder} ({'; '.join(differ)}). Give each "
                "a VARIANT."
            )
    return list(made.values()), found


def _missing(steps: list[Step], queued: Collection[Path]) -> list[str]:
    """List what the steps rely on and can't get: the data folder, and runs outside this call."""
    found: list[str] = []
    made = {step.folder.absolute() for step in steps} | {*queued}
    names = {"/".join(step.folder.parts[-5:]) for step in steps}
    for step in steps:
        if step.stage == "data" and not runs.is_drawn(step.values["DATA"]):
            try:
                runs.data_root(step.values["DATA"], step.values["DATA_ROOT"])
            except FileNotFoundError as error:
                found.append(str(error))
                continue
        for need in step.needs:
            try:
                if step.path(STAGES[need]).absolute() not in made:  # FROM may name another
                    runs.find(STAGES[need], **step.place(STAGES[need]))
            except runs.freshness.Stale as error:
                if not {reason.run for reason in error.reasons} <= names:  # not made again here
                    found.append(f"{step.name} needs notebook {need}: {error}")
            except (FileNotFoundError, ValueError) as error:
                found.append(f"{step.name} needs notebook {need}: {error}")
    return found


def dependencies(steps: Sequence[Step]) -> list[tuple[set[int], set[int]]]:
    """Return for each step the indices of those it needs, and of all that come before it.

    The latter are also what it reads if it is there: their failure does not stop it.
    """
    where = {step.folder: i for i, step in enumerate(steps)}
    found = []
    for step in steps:
        needs = {where[path] for path in step.inputs if path in where}
        may_read = runs.READS.get(step.number, ())
        found.append((needs, needs | {i for i, s in enumerate(steps) if s.number in may_read}))
    return found
