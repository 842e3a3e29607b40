"""Check a call completely before anything starts: numbers, names, types, folders, upstream runs.

What was typed comes in; one ``Step`` per notebook goes out, in the order of running, or one error
that lists every problem with its cure. papermill itself would pass a mistyped name on in silence.
"""

import ast
import contextlib
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import runs

PROFILES = ("tiny", "demo", "full")
STAGES = {number: stage for stage, number in runs.NOTEBOOKS.items()}
# Parameters that name the run or its data, whose content the record compares, or that change none.
PLACE = ("PROFILE", "DATA", "DATA_ROOT", "SEED", "VARIANT", "REUSE")
IN_RECORD = (*PLACE, "RUN_ON")  # where a training ran changes no result
COMMON = (*PLACE, "TASK")  # every notebook declares them
MAY_BE_CSV = ("DATA", "CAPTIONS")  # a name, or the path of a table


@dataclass
class Step:
    """One notebook with everything known about its run before it starts.

    Attributes:
        given: Parameters that are passed, converted to the declared types.
        values: All parameters, those given over the notebook's defaults.
        needs: Numbers of the notebooks it depends on, as far as they exist.
        stands_for: What a value stands for, hashed, by parameter: the settings of a recipe.
    """

    number: str
    stage: str
    source: Path
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
        cells = json.loads(self.source.read_text(encoding="utf-8"))["cells"]
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


def notebooks(folder: Path | None = None) -> dict[str, Path]:
    """List the notebooks of a folder, ``notebooks/`` unless given, by the number of their stage.

    Raises:
        FileNotFoundError: The folder holds none.
        ValueError: Two notebooks share a number.
    """
    folder = folder or runs.ROOT / "notebooks"
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        other = found.setdefault(path.stem[:2], path)
        if other != path:
            raise ValueError(
                f"Two notebooks have the number {path.stem[:2]}: {other.name} and {path.name}. "
                "The number is the order of running; rename one."
            )
    if not found:
        raise FileNotFoundError(f"No numbered notebooks (01_data.ipynb, …) in {folder}.")
    return {number: path for number, path in found.items() if number in STAGES}


def declared(notebook: Path) -> dict[str, Any]:
    """Read the parameters of a notebook with their defaults, whose types are those of the values.

    The cell is read as Python. papermill 2.7 reads it line by line and loses a parameter whose
    default or type holds ``=``, ``#`` or ``|``.

    Raises:
        ValueError: The notebook lacks one that every notebook has, or computes one.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    found = {}
    for node in _statements("".join(tagged[0]["source"]) if tagged else ""):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name, default = ast.unparse(target), ast.unparse(node.value)
            try:
                found[name] = _listed(ast.literal_eval(node.value))
                json.dumps(found[name])  # a record can hold it
            except (ValueError, TypeError):
                raise ValueError(
                    f"{name} = {default} is not a plain value; compute it in a later cell, since "
                    "values from outside come in after the parameters."
                ) from None
    if missing := [name for name in COMMON if name not in found]:
        raise ValueError(
            f"no parameters {', '.join(missing)}. The first code cell needs the tag "
            '"parameters" and lines such as SEED: int = 0'
        )
    return found


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(
            f"line {error.lineno} of the parameters is not plain Python ({error.msg}): keep magics "
            "in a later cell."
        ) from None


def convert(name: str, value: Any, wanted: type) -> Any:
    """Turn what was typed on the command line into the type of the default, strictly.

    Of a default None nothing is known: a number, a list or None is read as such, the rest is text.

    Raises:
        ValueError: ``value`` is no such thing: ``1.0`` is no int, ``yes`` is no bool.
    """
    read = value
    if isinstance(value, str) and wanted is not str:
        with contextlib.suppress(ValueError, SyntaxError):
            read = ast.literal_eval(value.capitalize() if wanted is bool else value)
            if wanted is bool and read in (0, 1):
                read = bool(read)
    if wanted is float and type(read) is int:
        return float(read)
    if type(read) is wanted or wanted is type(None):  # not isinstance: True is an int
        return _listed(read)
    shown = {bool: "true or false", list: 'a list such as "[1, 2]"', dict: "a dict"}
    kind = shown.get(wanted, f"of type {wanted.__name__}")
    raise ValueError(f"{name} must be {kind}, found {value!r}.")


def _listed(value: Any) -> Any:
    """Return tuples as lists: papermill writes any other value into a notebook as text."""
    if isinstance(value, list | tuple):
        return [_listed(one) for one in value]
    return {k: _listed(v) for k, v in value.items()} if isinstance(value, dict) else value


def plan(
    numbers: Sequence[str] = (),
    *,
    profile: str = "tiny",
    parameters: Mapping[str, Any] | None = None,
    allowed: Mapping[str, Sequence[str] | Mapping[str, str]] | None = None,
    problems: Problems = lambda step: [],
    folder: Path | None = None,
) -> list[Step]:
    """Check a call completely and return its steps in order; nothing is executed or written.

    Args:
        numbers: Notebooks to run, ``("01", "4")``; all that exist if empty.
        parameters: Values by name, as text or typed. Each goes to the notebooks that declare it.
        allowed: Values that a parameter may take, ``{"TASK": […], "DATA": […]}``. A mapping gives a
            hash of what each value stands for, so that a recipe that was changed is noticed.
            ``DATA`` and ``CAPTIONS`` may also be the path of a CSV.
        problems: Lists what is wrong with all values of one notebook together.
        folder: Where the notebooks lie; ``notebooks/`` of the repository by default.

    Raises:
        ValueError: Lists *all* problems at once, each with what to do.
    """
    available, allowed = notebooks(folder), allowed or {}
    given = {name: _absolute(name, value) for name, value in (parameters or {}).items()}
    wrong = [] if profile in PROFILES else [_unknown("profile", profile, PROFILES)]
    chosen = []
    for typed in numbers or available:
        number = f"{typed}".zfill(2)[:2]
        if number in available and f"{typed}".zfill(2) in (number, available[number].stem):
            chosen.append(number)
        else:
            there = ", ".join(path.stem for path in available.values())
            wrong.append(f"There is no notebook {typed!r}. These exist: {there}.")

    declarations = {}
    for number in sorted(set(chosen)):
        try:
            declarations[number] = declared(available[number])
        except ValueError as error:
            wrong.append(f"{available[number].name}: {error}")
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
        needs = tuple(n for n in _needs(number, values) if n in available)
        meant = {
            name: hashes[values[name]]
            for name, hashes in allowed.items()
            if isinstance(hashes, Mapping) and values.get(name) in hashes
        }
        source = available[number]
        steps.append(Step(number, STAGES[number], source, passed, values, needs, meant))
        wrong += problems(steps[-1])
    if not wrong:  # folders and runs can only be looked up with sound values
        wrong = _missing(steps)
    if wrong := list(dict.fromkeys(wrong)):
        lines = "\n".join(f"  - {line}" for line in wrong)
        raise ValueError(f"Nothing was started, {len(wrong)} problem(s):\n{lines}")
    return steps


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


def _wrong_values(
    given: dict[str, Any], allowed: Mapping[str, Sequence[str] | Mapping[str, str]]
) -> list[str]:
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


def _missing(steps: list[Step]) -> list[str]:
    """List what the steps rely on and can't get: the data folder, and runs outside this call."""
    found: list[str] = []
    made: set[Path] = set()
    names: set[str] = set()
    for step in steps:
        try:
            _ = step.folder  # its name is that of the data
            if step.stage == "data" and not runs.is_drawn(step.values["DATA"]):
                runs.data_root(step.values["DATA"], step.values["DATA_ROOT"])
        except (FileNotFoundError, ValueError) as error:
            found.append(str(error))
            continue
        made.add(step.folder)
        names.add("/".join(step.folder.parts[-5:]))
        for need in step.needs:
            try:
                place = step.place(STAGES[need])  # FROM may name another than this call makes
                if runs.paths.run_path(STAGES[need], **place) not in made:
                    runs.find(STAGES[need], **place)
            except runs.freshness.Stale as error:
                if not {reason.run for reason in error.reasons} <= names:  # not made again here
                    found.append(f"{step.name} needs notebook {need}: {error}")
            except (FileNotFoundError, ValueError) as error:
                found.append(f"{step.name} needs notebook {need}: {error}")
    return found
