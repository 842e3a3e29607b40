"""The run folder of one notebook execution and the record that says it is finished."""

import hashlib
import json
import shutil
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from bonelib.runs import machine
from bonelib.runs.places import figures_folder, folder, place, replacing

PUBLISHING = ("demo", "full")  # profiles whose figures reach figures/<data>/
# The notebook that makes each stage, for messages that tell what to run.
NOTEBOOKS = {
    "data": "01",
    "baselines": "02",
    "reports": "03",
    "pretraining": "04",
    "finetuning": "05",
    "zero_shot": "06",
    "gradcam": "07",
    "bone_tasks": "08",
    "results": "09",
}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """Turn what JSON doesn't know into what it does: a float32 stays a number in the record."""
    if hasattr(value, "tolist"):  # numpy numbers and arrays
        return value.tolist()
    if value is pd.NA:
        return None
    if isinstance(value, Path | date):
        return str(value)
    raise TypeError(
        f"A record can't keep {value!r} ({type(value).__name__}). Pass numbers, text, lists or "
        "dictionaries of them; tables go into run.save_table."
    )


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


class Run:
    """One run folder: what a notebook saves, and what the next one reads.

    Attributes:
        finished: A record with the same settings and inputs exists; its tables can be loaded
            instead of computed.
        settings: The settings this run was started with, after a round trip through JSON.
    """

    def __init__(self, path: Path, head: dict[str, Any], finished: bool = False):
        self.path = path
        self.head = head
        self.finished = finished
        self._started = time.monotonic()
        self._notes: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Run {self.name}, {'finished' if self.finished else 'open'}>"

    @property
    def name(self) -> str:
        """The path below ``runs/``, which identifies the run in messages and records."""
        return "/".join(self.path.parts[-5:])

    @property
    def settings(self) -> dict[str, Any]:
        """Settings as recorded."""
        return self.head["settings"]

    @property
    def record(self) -> dict[str, Any]:
        """The finished record, with the openings of the test labels that came after it."""
        record = json.loads((self.path / "record.json").read_text())
        return record | {"openings": _openings(self.path)}

    @property
    def hash(self) -> str:
        """Twelve hex digits of the record; other records name this run by them."""
        if not self.finished:
            raise ValueError(f"{self.name} is not finished, so no other run can build on it.")
        return _hash(self.path / "record.json")

    def upstream(self, stage: str) -> "Run":
        """Return the input run of that stage, refusing one that was remade since."""
        for entry in self.head["inputs"]:
            if entry["run"].split("/")[-2] == stage:
                _refuse_stale(self.name, self.head)
                return _load(folder() / entry["run"])
        have = ", ".join(e["run"].split("/")[-2] for e in self.head["inputs"]) or "none"
        raise ValueError(f"{self.name} has no input {stage!r} (inputs: {have}).")

    # ------------------------------------------------------------------ what a run keeps
    def save_table(self, name: str, table: pd.DataFrame) -> Path:
        """Write ``<name>.parquet`` by rename. A run that was loaded keeps the tables it has."""
        path = self.path / f"{name}.parquet"
        if self.finished:
            return path
        with replacing(path) as temporary:
            table.to_parquet(temporary, index=False)
        return path

    def table(self, name: str) -> pd.DataFrame:
        """Read ``<name>.parquet``; cells that held tuples are tuples again.

        Raises:
            FileNotFoundError: The run has no such table; the message lists those it has.
        """
        path = self.path / f"{name}.parquet"
        if not path.exists():
            have = ", ".join(sorted(p.stem for p in self.path.glob("*.parquet"))) or "none"
            raise FileNotFoundError(f"{self.name} has no table {name!r} (tables: {have}).")
        table = pd.read_parquet(path)
        for column in table.columns:
            if table[column].dtype == object:
                cells = [
                    tuple(c.tolist()) if hasattr(c, "tolist") and getattr(c, "ndim", 0) else c
                    for c in table[column]
                ]
                table[column] = pd.Series(cells, index=table.index, dtype="object")
        return table

    def save_array(self, name: str, array: Any) -> Path:
        """Write a numpy array as ``<name>.npy`` by rename."""
        import numpy as np

        path = self.path / f"{name}.npy"
        if self.finished:
            return path
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, array)
        return path

    def array(self, name: str) -> Any:
        """Read ``<name>.npy``."""
        import numpy as np

        return np.load(self.path / f"{name}.npy")

    def save_text(self, name: str, text: str, *, publish: bool = False) -> Path:
        """Write a text file (a Markdown or LaTeX table, say), by rename."""
        path = self.path / name
        with replacing(path) as temporary:
            temporary.write_text(text)
        if publish:
            self._publish(path)
        return path

    def save_figure(self, name: str, figure: Any, *, publish: bool = True) -> None:
        """Save a matplotlib figure as PDF and PNG, published as well by ``demo`` and ``full``.

        No creation date goes in, so an unchanged figure is an unchanged file.

        Args:
            publish: Without, it stays in the run: a figure of other data than the run's.
        """
        for suffix, options in (
            (".pdf", {"metadata": {"CreationDate": None}}),
            (".png", {"dpi": 200}),
        ):
            path = self.path / "figures" / f"{name}{suffix}"
            with replacing(path) as temporary:
                figure.savefig(temporary, bbox_inches="tight", **options)
            if publish:
                self._publish(path)

    def _publish(self, path: Path) -> None:
        head = self.head
        if head["profile"] not in PUBLISHING:
            return
        stem = path.stem
        if head["task"] != "any":
            stem += f"_{head['task']}"
        if head["variant"] != "default" or head["seed"] != 0:
            stem += f"_{head['variant']}-s{head['seed']}"
        target = figures_folder(head["data"]) / f"{stem}{path.suffix}"
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
        self._notes.setdefault("published", []).append(target.name)

    @property
    def bundle(self) -> Path:
        """Folder for the model bundle, which ``models.save_bundle`` writes."""
        return self.path / "bundle"

    @property
    def trained(self) -> bool:
        """Whether the bundle and the tables of this run's training are there already."""
        return self.finished or trained(self.path, self.head)

    # ------------------------------------------------------------------ the record
    def note(self, **facts: Any) -> None:
        """Keep facts for the record beside the metrics (rows, caption fields, precision, …)."""
        self._notes.update(facts)

    def log_opening(self, entry: dict[str, Any]) -> None:
        """Append one opening of the test labels; kept even when the run is remade."""
        with replacing(self.path / "openings.json") as temporary:
            temporary.write_text(_json([*_openings(self.path), entry]))

    def finish(self, **metrics: Any) -> dict[str, Any]:
        """Write the record, last and by rename. A run that was loaded keeps the record it has."""
        if self.finished:
            return self.record
        record = self.head | {
            "metrics": metrics,
            "notes": self._notes,
            "openings": _openings(self.path),
            "seconds": round(time.monotonic() - self._started, 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": machine.device(),
            "commit": machine.commit(),
            "versions": machine.versions(),
        }
        with replacing(self.path / "record.json") as temporary:
            temporary.write_text(_json(record))
        self.finished = True
        return record


def start(
    stage: str,
    *,
    profile: str,
    data: str,
    task: str = "any",
    seed: int = 0,
    variant: str = "default",
    reuse: bool = True,
    inputs: list[Run] | tuple[Run, ...] = (),
    content: str = "",
    **settings: Any,
) -> Run:
    """Open the folder of a run and seed python, numpy and torch.

    A finished run with the same settings and inputs comes back with ``finished`` true. If an input
    was remade since, the run is made anew. If the settings differ, that is refused.

    Args:
        inputs: The runs this one reads.
        content: A hash of what it reads besides (``table_hash``); if it changed, so did an input.

    Raises:
        ValueError: A finished run with other settings lies in the folder; both values are shown.
    """
    path = place(stage, profile, data, task) / _leaf(variant, seed)
    head = {
        "stage": stage,
        "profile": profile,
        "data": data,
        "task": task,
        "seed": seed,
        "variant": variant,
        "settings": settings,
        "inputs": [{"run": run.name, "hash": run.hash} for run in inputs],
        "content": content,
        "code": machine.code_hash(),
    }
    head = json.loads(_json(head))
    machine.seed_everything(seed)
    record = path / "record.json"
    if record.exists():
        old = json.loads(record.read_text())
        if reuse and all(old.get(k) == head[k] for k in ("inputs", "content")):
            if changed := changes(old, head):
                raise ValueError(
                    f"A finished run with other settings lies in {path}:\n{changed}\n"
                    "Give this one another VARIANT to keep both, or set REUSE=False to replace it."
                )
            return Run(path, old, finished=True)
        record.unlink()  # first of all, so that a crash can't leave a record of other files
    path.mkdir(parents=True, exist_ok=True)
    if trained(path, head):
        return Run(path, head)
    for pattern in ("*.parquet", "*.npy", "*.md", "*.tex", "figures/*"):
        for leftover in path.glob(pattern):
            leftover.unlink()
    shutil.rmtree(path / "bundle", ignore_errors=True)
    return Run(path, head)


def changes(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Return a line for each setting in which two heads differ; empty where they agree."""
    old, new = there["settings"], here["settings"]
    return "\n".join(
        f"  - {key}: {old.get(key)!r} there, {new.get(key)!r} asked"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    )


def trained(path: Path, head: dict[str, Any]) -> bool:
    """Tell whether the folder holds a finished training with these settings and inputs.

    ``trained.json`` says so, written last by whoever trained: the notebook, or ``bonelib train``.
    """
    file = path / "trained.json"
    if not file.exists():
        return False
    there = json.loads(file.read_text())
    return all(there.get(k) == head[k] for k in ("settings", "inputs", "content", "seed"))


def find(
    stage: str,
    *,
    profile: str,
    data: str,
    task: str = "any",
    seed: int = 0,
    variant: str = "default",
    **expected: Any,
) -> Run:
    """Return a finished run, or say which notebook makes it.

    A variant that this stage does not have falls back to ``default``: one changed stage need not
    remake those before it.

    Args:
        expected: Settings the run must have been made with, e.g. ``test="fold0"``.

    Raises:
        FileNotFoundError: No such run is finished; the message says what exists and what to do.
        ValueError: The run is stale (an input was remade) or has other settings than expected.
    """
    parent = place(stage, profile, data, task)
    number = NOTEBOOKS.get(stage, stage)
    expected = json.loads(_json(expected))  # as the record has it: tuples are lists
    for name in dict.fromkeys((variant, "default")):
        path = parent / _leaf(name, seed)
        if (path / "record.json").exists():
            run = _load(path)
            wrong = {
                k: run.settings.get(k) for k, v in expected.items() if run.settings.get(k) != v
            }
            if wrong:
                raise ValueError(
                    f"{run.name} was made with {wrong}, this notebook asks for "
                    f"{ {k: expected[k] for k in wrong} }. Run notebook {number} "
                    "with those values, under a VARIANT of its own."
                )
            return run
    have = ", ".join(sorted(p.parent.name for p in parent.glob("*/record.json"))) or "none"
    raise FileNotFoundError(
        f"No finished {stage!r} run {variant}-s{seed} for PROFILE={profile!r}, DATA={data!r}, "
        f"task {task!r} (found: {have}). Run notebook {number} first: "
        f"bonelib run {number} --profile {profile} -p DATA {data}"
    )


def _leaf(variant: str, seed: int) -> str:
    if not variant or "/" in variant:
        raise ValueError(f"VARIANT={variant!r} names a folder: use letters, digits, - and _ only.")
    return f"{variant}-s{seed}"


def _load(path: Path) -> Run:
    run = Run(path, json.loads((path / "record.json").read_text()), finished=True)
    _refuse_stale(run.name, run.head)
    return run


def _refuse_stale(name: str, head: dict[str, Any]) -> None:
    """Complain of an input that is not the one recorded, or is itself stale."""
    for entry in head["inputs"]:
        record = folder() / entry["run"] / "record.json"
        if not record.exists() or _hash(record) != entry["hash"]:
            state = "remade since" if record.exists() else "removed since"
            raise ValueError(
                f"{name} is stale: its input {entry['run']} was {state}. Run notebook "
                f"{NOTEBOOKS.get(head['stage'], head['stage'])} again, or all of them: "
                f"bonelib run --profile {head['profile']} -p DATA {head['data']}"
            )
        _load(record.parent)


def _openings(path: Path) -> list[dict[str, Any]]:
    file = path / "openings.json"
    return json.loads(file.read_text()) if file.exists() else []


def collect(*, profile: str, data: str | None = None) -> pd.DataFrame:
    """Flatten all finished records of a profile into one table, one row per run.

    Columns: run, stage, data, task, variant, seed, stale, ``settings.*``, ``metrics.*``, seconds,
    openings (how often the test labels were read).
    """
    rows = []
    for path in sorted((folder() / profile).glob("*/*/*/*/record.json")):
        record = json.loads(path.read_text())
        if data is not None and record["data"] != data:
            continue
        try:
            stale = not _load(path.parent)
        except ValueError:
            stale = True
        row = {
            k: record[k] for k in ("stage", "data", "task", "variant", "seed", "seconds", "commit")
        }
        row |= {"run": "/".join(path.parts[-6:-1]), "stale": stale}
        row["openings"] = len(_openings(path.parent))
        row |= {f"settings.{k}": v for k, v in record["settings"].items()}
        row |= {f"metrics.{k}": v for k, v in record["metrics"].items()}
        rows.append(row)
    return pd.DataFrame(rows)
