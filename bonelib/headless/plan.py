"""Check a call completely before anything starts: numbers, names, types, folders, upstream runs.

What was typed comes in; one ``Step`` per notebook goes out, in the order of running, or one error
that lists every problem with its cure. papermill itself would pass a mistyped name on in silence.
"""

import ast
import contextlib
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import runs

PROFILES = ("tiny", "demo", "full")
# Which notebooks must have run before; the number is the order. Those that are not there are not
# asked for.
NEEDS = {
    "02": ("01",),
    "03": ("01",),
    "04": ("01",),
    "05": ("01", "04"),
    "06": ("01", "04"),
    "07": ("01", "05"),
    "08": ("01", "04"),
    "09": ("02", "05", "06", "07"),
}
STAGES = {number: stage for stage, number in runs.NOTEBOOKS.items()}
ANY_TASK = ("data", "reports", "pretraining")  # stages that serve every task
COMMON = {"DATA": "phantom", "DATA_ROOT": "", "TASK": "tumor", "SEED": 0, "VARIANT": "default"}
MAY_BE_CSV = ("DATA", "CAPTIONS")  # a name, or the path of a table
TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


@dataclass
class Step:
    """One notebook with everything known about its run before it starts.

    Attributes:
        given: Parameters that are passed, converted to the declared types.
        values: All parameters, those given over the notebook's defaults.
        needs: Numbers of the notebooks it depends on, as far as they exist.
    """

    number: str
    stage: str
    source: Path
    profile: str
    given: dict[str, Any]
    values: dict[str, Any]
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the notebook, e.g. ``04_pretraining``."""
        return self.source.stem

    @property
    def folder(self) -> Path:
        """The run folder, known from the parameters."""
        place = self.place(self.stage)
        name = f"{place['variant']}-s{place['seed']}"
        data = runs.data_name(place["data"])
        return runs.folder() / self.profile / data / place["task"] / self.stage / name

    def place(self, stage: str) -> dict[str, Any]:
        """Return the arguments with which ``runs.find`` finds the run of ``stage`` for this one."""
        value = COMMON | self.values
        return {
            "profile": self.profile,
            "data": value["DATA"],
            "task": "any" if stage in ANY_TASK else value["TASK"],
            "seed": value["SEED"],
            "variant": value["VARIANT"],
        }


def notebooks(folder: Path | None = None) -> dict[str, Path]:
    """List the numbered notebooks of a folder, ``notebooks/`` unless given, by their number.

    Raises:
        FileNotFoundError: The folder holds none.
        ValueError: Two notebooks share a number.
    """
    folder = folder or runs.ROOT / "notebooks"
    paths = sorted(p for p in folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"No numbered notebooks (01_data.ipynb, …) in {folder}.")
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem[:2] in found:
            raise ValueError(
                f"Two notebooks have the number {path.stem[:2]}: {found[path.stem[:2]].name} and "
                f"{path.name}. The number is the order of running; rename one."
            )
        found[path.stem[:2]] = path
    return found


def declared(notebook: Path) -> dict[str, tuple[str, Any]]:
    """Read the parameters of a notebook: name → (type, default).

    Raises:
        ValueError: The notebook declares none that papermill can read, or a computed one.
    """
    import papermill

    found = {}
    for name, entry in papermill.inspect_notebook(str(notebook)).items():
        try:
            default = ast.literal_eval(entry["default"])
        except (ValueError, SyntaxError):
            raise ValueError(
                f"{name} = {entry['default']} is not a plain value; compute it in a later cell, "
                "since values from outside come in after the parameters."
            ) from None
        kind = entry["inferred_type_name"]
        found[name] = (type(default).__name__ if kind == "None" else kind, default)
    if not found:
        raise ValueError(
            f"{notebook.name} declares no parameters. Its first code cell needs the tag "
            '"parameters" and lines such as SEED: int = 0'
        )
    return found


def convert(name: str, value: Any, kind: str) -> Any:
    """Turn what was typed on the command line into the declared type, strictly.

    Raises:
        ValueError: ``value`` is no such thing: ``1.0`` is no int, ``yes`` is no bool.
    """
    wanted = TYPES.get(kind)
    if wanted is None:
        raise ValueError(f"{name} is declared as {kind!r}; expected one of {', '.join(TYPES)}.")
    if kind == "float" and type(value) is int:
        return float(value)
    if type(value) is wanted:  # not isinstance: True is an int
        return value
    if isinstance(value, str):
        truth = {"true": True, "1": True, "false": False, "0": False}
        if kind == "bool" and value.lower() in truth:
            return truth[value.lower()]
        if kind == "int" and re.fullmatch(r"[+-]?\d+", value):
            return int(value)
        with contextlib.suppress(ValueError, SyntaxError):
            if kind == "float":
                return float(value)
            if kind in ("list", "dict") and type(read := ast.literal_eval(value)) is wanted:
                return read
    shown = {"bool": "true or false", "list": 'a list such as "[1, 2]"', "dict": "a dict"}
    raise ValueError(f"{name} must be {shown.get(kind, f'of type {kind}')}, found {value!r}.")


def plan(
    numbers: Sequence[str] = (),
    *,
    profile: str = "tiny",
    parameters: Mapping[str, Any] | None = None,
    allowed: Mapping[str, Sequence[str]] | None = None,
    folder: Path | None = None,
) -> list[Step]:
    """Check a call completely and return its steps in order; nothing is executed or written.

    Args:
        numbers: Notebooks to run, ``("01", "4")``; all that exist if empty.
        parameters: Values by name, as text or typed. Each goes to the notebooks that declare it.
        allowed: Values that a parameter may take, ``{"TASK": […], "DATA": […]}``. ``DATA`` and
            ``CAPTIONS`` may also be the path of a CSV.
        folder: Where the notebooks lie; ``notebooks/`` of the repository by default.

    Raises:
        ValueError: Lists *all* problems at once, each with what to do.
    """
    available = notebooks(folder)
    given = {name: _absolute(name, value) for name, value in (parameters or {}).items()}
    problems = [] if profile in PROFILES else [_unknown("profile", profile, PROFILES)]
    chosen = {re.sub(r"^(\d)$", r"0\1", str(n).removesuffix(".ipynb"))[:2]: n for n in numbers}
    for number, typed in chosen.items():
        if number not in available or str(typed) not in (number, number[1:], *_names(available)):
            there = ", ".join(path.stem for path in available.values())
            problems.append(f"There is no notebook {typed!r}. These exist: {there}.")
        elif number not in STAGES:
            problems.append(f"{available[number].stem} has no stage in runs.NOTEBOOKS.")
    chosen = sorted(set(chosen or available) & set(available) & set(STAGES))

    declarations = {}
    for number in chosen:
        try:
            declarations[number] = declared(available[number])
        except ValueError as error:
            problems.append(f"{available[number].name}: {error}")
    known = sorted({name for names in declarations.values() for name in names} - {"PROFILE"})
    for name in given:
        if name == "PROFILE":
            problems.append("PROFILE is not a -p parameter; choose it with --profile.")
        elif declarations and name not in known:
            problems.append(_unknown("parameter", name, known))
    problems += _wrong_values(given, allowed or {})

    steps = []
    for number, names in declarations.items():
        passed = {}
        for name in (n for n in names if n in given and n != "PROFILE"):
            try:
                passed[name] = convert(name, given[name], names[name][0])
            except ValueError as error:
                if str(error) not in problems:
                    problems.append(str(error))
        passed = {"PROFILE": profile} | passed if "PROFILE" in names else passed
        values = {name: default for name, (_, default) in names.items()} | passed
        needs = NEEDS.get(number, ("01",)) + ("03",) * (values.get("CAPTIONS") == "reports")
        needs = tuple(n for n in needs if n in available and n != number)
        source = available[number]
        steps.append(Step(number, STAGES[number], source, profile, passed, values, needs))
    if not problems:  # folders and runs can only be looked up with sound values
        problems = _missing(steps)
    if problems:
        lines = "\n".join(f"  - {line}" for line in problems)
        raise ValueError(f"Nothing was started, {len(problems)} problem(s):\n{lines}")
    return steps


def _names(available: dict[str, Path]) -> list[str]:
    return [name for path in available.values() for name in (path.stem, path.name)]


def _absolute(name: str, value: Any) -> Any:
    # JupyterLab and papermill differ in their working directory, so no relative path goes through.
    is_path = name == "DATA_ROOT" or (name in MAY_BE_CSV and str(value).endswith(".csv"))
    return str(Path(str(value)).expanduser().absolute()) if is_path and value else value


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    folded = {k.lower(): k for k in known}
    close = [folded[k] for k in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"Unknown {what} {name!r}.{hint} Known: {', '.join(known)}."


def _wrong_values(given: dict[str, Any], allowed: Mapping[str, Sequence[str]]) -> list[str]:
    found = []
    for name, values in allowed.items():
        value = given.get(name)
        if value is None or value in values:
            continue
        if name == "DATA" and "+" in str(value) and set(str(value).split("+")) <= set(values):
            continue
        if name in MAY_BE_CSV and str(value).endswith(".csv"):
            if not Path(value).is_file():
                found.append(f"{name}: there is no file {value}.")
            continue
        found.append(_unknown(name, str(value), list(values)))
    if not re.fullmatch(r"[\w.+-]+", str(given.get("VARIANT", "default"))):
        found.append(
            f"VARIANT {given['VARIANT']!r} can't name a folder; use letters, digits and . _ + -"
        )
    return found


def _missing(steps: list[Step]) -> list[str]:
    """List what the steps rely on and can't get: the data folder, and runs outside this call."""
    found: list[str] = []
    chosen = {step.number for step in steps}
    for step in steps:
        value = COMMON | step.values
        try:
            if value["DATA"] != "phantom":
                runs.data_root(value["DATA"], value["DATA_ROOT"])
        except FileNotFoundError as error:
            found.append(str(error))
        for need in step.needs:
            if need not in chosen:
                try:
                    runs.find(STAGES[need], **step.place(STAGES[need]))
                except (FileNotFoundError, ValueError) as error:
                    found.append(f"{step.name} needs notebook {need}: {error}")
    return list(dict.fromkeys(found))
