"""Start a run, find a finished one, list them all.

Names and settings come in; a run to write or a record to read goes out. Whether a record stands is
decided in ``freshness``.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bonelib.runs import code, cures, freshness, machine, stages
from bonelib.runs import data as data_sets
from bonelib.runs.paths import data_name, data_root, folder, is_drawn, run_path
from bonelib.runs.record import Record, Run, as_json, hold, openings

# What outlives a remake: the openings of the test labels, the copies of the runner and
# the logs of its jobs. A checkpoint stays until it is known whether its training can go on.
KEPT = ("openings.json", "notebook.ipynb", "notebook-failed.ipynb", "slurm")
FAILED = "failed.json"  # what the runner keeps of a run that failed, until it succeeds
COSTS = ("cpu_seconds", "memory_gb", "gpu", "gpu_memory_gb")  # which older records lack


def start(
    stage: str,
    *,
    profile: str,
    data: str,
    root: str | Path = "",
    task: str = "any",
    seed: int = 0,
    variant: str = "default",
    reuse: bool = True,
    inputs: Sequence[Record] = (),
    files: Mapping[str, str | Path] | None = None,
    reads: Sequence[str] = (),
    **settings: Any,
) -> Run | Record:
    """Open the folder of a run, or return the record that stands there; seed all random numbers.

    A record with the same settings comes back as ``Record`` if it is fresh. If something it was
    made from has changed, or the notebook that the runner executes, a ``Run`` makes it anew; one
    whose training still stands has ``trained`` true. If the settings differ, that is refused.

    Args:
        root: The folder of the data, as in ``data_root``; of the synthetic cohort the one it was
            drawn into.
        reuse: Without, everything is made anew, the training too.
        inputs: The records this run reads.
        files: Further files it reads, by a name each.
        reads: Patterns of records that it reads, however many there are: ``demo/*/*/*/*``, see
            ``freshness.reads``.

    Raises:
        ValueError: A finished run with other settings lies in the folder, both values are shown; or
            another process writes to it.
        FileNotFoundError: The data or a file are not there.
    """
    root, place = str(root), {"profile": profile, "task": task, "seed": seed, "variant": variant}
    path = run_path(stage, data=data, root=root, **place)
    module = stages.MODULES.get(stage, "bonelib")
    head = place | {
        "format": freshness.FORMAT,
        "stage": stage,
        "data": str(Path(data).absolute()) if data.endswith(".csv") else data,
        "data_name": path.parts[-4],
        "root": _absolute(data, root),
        "settings": settings,
        "inputs": [{"run": one.name, "hash": _hash(one)} for one in inputs],
        "content": data_sets.fingerprint(data, root) if stage == "data" else "",
        "files": data_sets.file_contents(files or {}),
        "reads": freshness.reads(reads, stage),
        "module": module,
        "code": code.code_closure(module),
        "notebook": freshness.notebook(),
    }
    head = json.loads(as_json(head))
    machine.seed_everything(seed)
    if reuse and _stands(path, head):
        return Record(path)
    hold(path)
    _clear(path, head, reuse=reuse)
    return Run(path, head)


def _absolute(data: str, root: str) -> str:
    try:
        return str(data_root(data, root)) if root or not is_drawn(data) else ""
    except FileNotFoundError:  # not on this machine: the name was that of the runs there are
        return ""


def _hash(one: Record | Run) -> str:
    if not one.finished:
        raise ValueError(f"{one.name} is not finished, so no other run can build on it.")
    return one.hash


def _stands(path: Path, head: dict[str, Any]) -> bool:
    """Tell whether a finished record is what a run with this head would make.

    Raises:
        ValueError: All that it reads is the same, but the settings are not.
    """
    try:
        old = freshness.read(path)
    except freshness.Damaged:  # what it said is lost; it is made anew
        return False
    if old.get("format") != freshness.FORMAT or freshness.differs(old, head):
        return False
    if changed := freshness.setting_changes(old, head):
        raise ValueError(
            f"A finished run with other settings lies in {path}:\n{changed}\n"
            "Give this one another VARIANT to keep both, or set REUSE=False to replace it."
        )
    same_code = code.keeping() or not code.changed_rooms(old["code"], head["code"])
    return same_code and not freshness.notebook_changes(old["notebook"], head["notebook"])


def _clear(path: Path, head: dict[str, Any], *, reuse: bool) -> None:
    """Make room for a run, in an order that leaves a sound folder after each step.

    The record goes first, so that none speaks of other files; then the word that the training is
    done, before the bundle it speaks of.
    """
    path.mkdir(parents=True, exist_ok=True)
    (path / "record.json").unlink(missing_ok=True)
    kept = {*KEPT}
    # A training that was carried out elsewhere and not evaluated yet was asked for just so.
    reuse = reuse or (path / "plan.json").exists() and (path / "trained.json").exists()
    if reuse and freshness.trained(path, head):
        made = freshness.read(path, "trained.json")["outputs"]
        kept |= {"trained.json", "bundle", *made}
    else:
        (path / "trained.json").unlink(missing_ok=True)
        if not reuse:  # so that no later call goes on with it
            (path / "checkpoint.pt").unlink(missing_ok=True)
        elif (path / "checkpoint.pt").exists():
            kept |= {"checkpoint.pt", "bundle"}  # a comparison keeps the starts that are done
    for leftover in path.iterdir():
        if leftover.name in kept:
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def find(
    stage: str,
    *,
    profile: str,
    data: str,
    root: str | Path = "",
    task: str = "any",
    seed: int = 0,
    variant: str = "default",
    **expected: Any,
) -> Record:
    """Return the record of a finished run, or say which notebook makes it.

    Args:
        expected: Settings the run must have been made with, e.g. ``test="fold0"``.

    Raises:
        FileNotFoundError: No such run is finished; the message says what exists and what to do.
        ValueError: The run is stale, and the message says why; or it has other settings than
            expected.
    """
    made_by = {"profile": profile, "data": data, "root": str(root), "seed": seed}
    path = run_path(stage, **made_by, task=task, variant=variant)
    number, name = stages.NOTEBOOKS.get(stage, stage), path.parts[-4]
    if not (path / "record.json").exists():
        have = sorted(p.parent.name for p in path.parent.glob("*/record.json"))
        others = [one.removesuffix(f"-s{seed}") for one in have if one.endswith(f"-s{seed}")]
        again = cures.cure(stage, **made_by, task=task, variant=variant)
        again += f", or read one that is there: -p FROM {stage}:{others[0]}" if others else ""
        raise FileNotFoundError(
            f"No finished {stage!r} run {path.name} for PROFILE={profile!r}, DATA={name!r}, "
            f"task {task!r} (found: {', '.join(have) or 'none'}). Run notebook {number} first: "
            f"{again}"
        )
    record = Record(path)
    look = _look(record, data=data, root=root)
    freshness.refuse(record.name, record.head, look.reasons(record.head), look=look)
    expected = json.loads(as_json(expected))  # as the record has it: tuples are lists
    wrong = {k: record.settings.get(k) for k, v in expected.items() if record.settings.get(k) != v}
    if wrong:
        raise ValueError(
            f"{record.name} was made with {wrong}, this notebook asks for "
            f"{ {k: expected[k] for k in wrong} }. Run notebook {number} with those values, under "
            "a VARIANT of its own."
        )
    return record


def stale(record: Record, *, data: str = "", root: str | Path = "") -> list[freshness.Reason]:
    """Return why a record is stale, in sentences; none if it is fresh. See ``freshness``.

    Args:
        data: The data set that is asked for, where it is not as recorded: a CSV that was moved.
        root: Its folder, where it is not as recorded.
    """
    return _look(record, data=data, root=root).reasons(record.head)


def _look(record: Record, *, data: str, root: str | Path) -> freshness.Look:
    name = record.head["data_name"] if data or root else ""
    return freshness.Look(data=data or record.head["data"], root=str(root), name=name)


def collect(*, profile: str, data: str = "", root: str | Path = "") -> pd.DataFrame:
    """Flatten the finished records of a profile, or of one data set, into a table, one row a run.

    Columns: run, stage, data, data_name, task, variant, seed, stale, why (the reasons), other_code
    (rooms that changed since, even if such numbers are kept), ``settings.*``, ``metrics.*``,
    seconds, openings (how often the test labels were read), commit, and what it took: cpu_seconds,
    memory_gb, gpu, gpu_memory_gb (None in records of earlier versions).
    """
    above, name = folder() / profile, ""
    if data:
        try:
            name = data_name(data, str(root), profile=profile)
        except FileNotFoundError:  # of what is nowhere, there is nothing to list
            return pd.DataFrame()
    rows, look = [], freshness.Look(data=data, root=str(root), name=name)
    found = (above / name).glob("*/*/*/record.json") if name else above.glob("*/*/*/*/record.json")
    for path in sorted(found):
        run = "/".join(path.parts[-6:-1])
        try:
            record = freshness.read(path.parent)
            reasons = look.reasons(record)
        except freshness.Damaged as error:
            record, _ = freshness.look_at(run)
            reasons = [str(error)]
        current = record.get("format") == freshness.FORMAT
        columns = ("stage", "data", "task", "variant", "seed", "seconds", "commit", *COSTS)
        rows.append(
            {key: record.get(key) for key in columns}
            | {key: record.get(key, {}) for key in ("settings", "metrics")}
            | {
                "run": run,
                "data_name": path.parts[-5],
                "stale": bool(reasons),
                "why": "; ".join(reasons),
                "other_code": ", ".join(look.other_code(record)) if current else "unknown",
                "openings": len(openings(path.parent)),
            }
        )
    return pd.json_normalize(rows, max_level=1)


def failures(profile: str) -> dict[str, dict[str, Any]]:
    """Return what is kept of runs that failed and have not succeeded since, by the run's name."""
    found = {}
    for path in sorted((folder() / profile).glob(f"*/*/*/*/{FAILED}")):
        try:
            facts = freshness.read(path.parent, FAILED)
        except freshness.Damaged as error:
            facts = {"error": str(error)}
        found["/".join(path.parts[-6:-1])] = facts
    return found
