"""A run that is being written and a record that is read: two types for the same folder.

``Run`` saves tables, arrays, texts and figures, and ends in ``finish``, which writes
``record.json`` last and by rename. ``Record`` is what stands there then; it has nothing to save
with, so nothing is dropped in silence.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bonelib.runs import cures, freshness, locks, machine
from bonelib.runs.files import file_hash, replacing
from bonelib.runs.paths import figures_folder, folder, lock
from bonelib.runs.stages import PUBLISHING

# What says where and when, not what was found: columns of tables, and notes.
NOT_CONTENT = ("path", "seconds", "cpu_seconds", "images_per_s", "waited")
NOT_FINDINGS = ("root", "published")
DPI = 200  # of a figure's PNG, and of the letters that its layout measures


class _Folder:
    """What a run and a record share: the name, the head, and reading what was saved.

    Attributes:
        path: The folder.
        head: What is recorded when a run starts; see ``start``.
        name: The path below ``runs/``, which identifies the run in messages and records.
        settings: Settings as recorded, after a round trip through JSON.
        bundle: Folder of the model bundle, which ``models.save_bundle`` writes.
    """

    def __init__(self, path: Path, head: dict[str, Any]):
        self.path, self.head = path, head
        self.name = "/".join(path.parts[-5:])
        self.settings: dict[str, Any] = head["settings"]
        self.bundle = path / "bundle"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def table(self, name: str) -> pd.DataFrame:
        """Read ``<name>.parquet``; cells that held tuples are tuples again.

        Raises:
            FileNotFoundError: There is no such table; the message lists those there are.
        """
        path = self.path / f"{name}.parquet"
        if not path.exists():
            have = ", ".join(sorted(p.stem for p in self.path.glob("*.parquet"))) or "none"
            raise FileNotFoundError(f"{self.name} has no table {name!r} (tables: {have}).")
        with _named(path):
            table = pd.read_parquet(path)
        for column in (name for name in table if table[name].dtype == object):
            cells = [tuple(c.tolist()) if isinstance(c, np.ndarray) else c for c in table[column]]
            table[column] = pd.Series(cells, index=table.index, dtype="object")
        return table

    def array(self, name: str) -> Any:
        """Read ``<name>.npy``."""
        with _named(path := self.path / f"{name}.npy"):
            return np.load(path)

    def upstream(self, stage: str) -> "Record":
        """Return the input of that stage, refusing one that was remade or is stale.

        Raises:
            ValueError: It is stale, or there is no such input.
        """
        inputs = {entry["run"].split("/")[-2]: entry for entry in self.head["inputs"]}
        if stage not in inputs:
            have = ", ".join(inputs) or "none"
            raise ValueError(f"{self.name} has no input {stage!r} (inputs: {have}).")
        freshness.refuse(self.name, self.head, freshness.Look().of_inputs([inputs[stage]]))
        return Record(folder() / inputs[stage]["run"])


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name a file that can't be read."""
    try:
        yield
    except (ValueError, EOFError, OSError) as error:  # those of pyarrow among them
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path} can't be read: it is cut off or damaged. Delete the record.json beside it, "
            "and the notebook that made it makes it again."
        ) from error


class Record(_Folder):
    """A finished run, to be read.

    Attributes:
        finished: True; a run that is being written has False.
        trained: True, as a run whose training is done.
        hash: Sixteen hex digits by which other records name this one; see ``Run.finish``.
        notes: What was noted beside the metrics.
        metrics: The numbers the run was finished with.
    """

    finished = trained = True

    def __init__(self, path: Path):
        """Read the record of a run folder, fresh or stale.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It was written by an older version; the message says what remakes it.
        """
        try:
            head = freshness.read(path)
        except freshness.Damaged as error:
            told, _ = freshness.look_at("/".join(path.parts[-5:]))
            raise ValueError(
                f"{error}. What the run had found is lost with it, but the openings of the test "
                f"labels are not. Make it again: {cures.commands([told])}"
            ) from None
        if not head:
            raise FileNotFoundError(f"{path} holds no record.json: no run has finished there.")
        super().__init__(path, head)
        if head.get("format") != freshness.FORMAT:
            freshness.refuse(self.name, head, [freshness.Reason(freshness.OLD)])
        self.hash: str = head["hash"]
        self.notes: dict[str, Any] = head["notes"]
        self.metrics: dict[str, Any] = head["metrics"]

    @property
    def openings(self) -> list[dict[str, Any]]:
        """Each opening of the test labels in this folder, by earlier runs as well."""
        return openings(self.path)


class Run(_Folder):
    """A run that is being written; ``start`` opens it, ``finish`` closes it.

    Attributes:
        finished: False; a finished record has True.
    """

    finished = False

    def __init__(self, path: Path, head: dict[str, Any]):
        super().__init__(path, head)
        self._started = time.monotonic(), machine.cpu_seconds()
        self._notes: dict[str, Any] = {}
        self._closed = False

    @property
    def trained(self) -> bool:
        """Whether the bundle and the tables of this run's training are there already."""
        return freshness.trained(self.path, self.head)

    def save_table(self, name: str, table: pd.DataFrame) -> Path:
        """Write ``<name>.parquet`` by rename."""
        with replacing(self._file(f"{name}.parquet")) as temporary:
            table.to_parquet(temporary, index=False)
        return self.path / f"{name}.parquet"

    def save_array(self, name: str, array: Any) -> Path:
        """Write a numpy array as ``<name>.npy`` by rename."""
        with replacing(self._file(f"{name}.npy")) as temporary, open(temporary, "wb") as file:
            np.save(file, array)
        return self.path / f"{name}.npy"

    def save_text(self, name: str, text: str, *, publish: bool = False) -> Path:
        """Write a text file (a Markdown or LaTeX table, say), by rename."""
        path = self._file(name)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        if publish:
            self._publish(path)
        return path

    def save_figure(self, name: str, figure: Any, *, publish: bool = True) -> None:
        """Save a matplotlib figure as PDF and PNG, published as well by ``demo`` and ``full``.

        It keeps the size it was made for, a thesis' text width say; only what leaves it makes it
        larger. No creation date goes in, so an unchanged figure is an unchanged file.

        Args:
            publish: Without, it stays in the run: a figure of other data than the run's.
        """
        from matplotlib.transforms import Bbox

        figure.set_dpi(DPI)  # hinted letters are wider at some resolutions than at others
        for _ in range(2):  # the layout measures labels that it then moves
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # both files show the same
        canvas = Bbox.from_bounds(0, 0, *figure.get_size_inches())
        box = Bbox.union([canvas, figure.get_tightbbox()])
        for suffix, options in (
            (".pdf", {"metadata": {"CreationDate": None}}),
            (".png", {"dpi": DPI}),
        ):
            path = self._file(f"figures/{name}{suffix}")
            with replacing(path) as temporary:
                figure.savefig(temporary, bbox_inches=box, **options)
            if publish:
                self._publish(path)

    def _file(self, name: str) -> Path:
        if self._closed:
            raise ValueError(f"{self.name} is finished: {name} can't be saved any more.")
        return self.path / name

    def _publish(self, path: Path) -> None:
        head = self.head
        if head["profile"] not in PUBLISHING:
            return
        stem = path.stem
        if head["task"] != "any":
            stem += f"_{head['task']}"
        if head["variant"] != "default" or head["seed"] != 0:
            stem += f"_{head['variant']}-s{head['seed']}"
        target = figures_folder(head["data_name"]) / f"{stem}{path.suffix}"
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
        self._notes.setdefault("published", []).append(target.name)

    def note(self, **facts: Any) -> None:
        """Keep facts for the record beside the metrics (rows, caption fields, precision, …)."""
        self._file("a note")
        self._notes.update(facts)

    def log_opening(self, entry: dict[str, Any]) -> None:
        """Append one opening of the test labels; kept even when the run is remade."""
        with replacing(self._file("openings.json")) as temporary:
            temporary.write_text(as_json([*openings(self.path), entry]), encoding="utf-8")

    def finish(self, **metrics: Any) -> Record:
        """Write the record, last and by rename, and return it.

        Its ``hash`` covers what a run that follows may read: settings, seed, the content of the
        data and of the further files, each table, array and bundle in the folder, and the notes.
        It leaves out where things lie and how long they took, figures, metrics (they follow from
        the tables) and code: made again to the same content, it is the same.
        """
        self._file("the record")
        notes = json.loads(as_json(self._notes))
        outputs = digests(self.path)
        facts = {key: self.head[key] for key in ("stage", "settings", "seed", "content")}
        facts |= {"files": {name: e["hash"] for name, e in self.head["files"].items()}}
        facts |= {"notes": {k: v for k, v in notes.items() if k not in NOT_FINDINGS}}
        record = self.head | {
            "metrics": metrics,
            "notes": notes,
            "outputs": outputs,
            "hash": hashlib.sha256(as_json([facts, outputs]).encode()).hexdigest()[:16],
            "seconds": round(time.monotonic() - self._started[0], 1),
            "cpu_seconds": round(machine.cpu_seconds() - self._started[1], 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": machine.device(),
            "threads": machine.threads(),
            "commit": machine.commit(),
            "versions": machine.versions(),
            **machine.memory(),
        }
        with replacing(self.path / "record.json") as temporary:
            temporary.write_text(as_json(record), encoding="utf-8")
        self._closed = True
        release(self.path)
        return Record(self.path)


def digests(path: Path) -> dict[str, str]:
    """Hash the content of each table, array and bundle in a run folder."""
    kept = [*path.glob("*.parquet"), *path.glob("*.npy")]
    kept += [file for file in (path / "bundle").rglob("*") if file.is_file()]
    return {
        file.relative_to(path).as_posix(): (
            _table_digest(file) if file.suffix == ".parquet" else file_hash(file)
        )[:16]
        for file in sorted(kept)
    }


def _table_digest(file: Path) -> str:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file)
    table = table.drop_columns([c for c in NOT_CONTENT if c in table.column_names])
    content = io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata(None).combine_chunks(), content)
    return hashlib.sha256(content.getbuffer()).hexdigest()


def openings(path: Path) -> list[dict[str, Any]]:
    """Read the openings of the test labels that a run folder has seen.

    A file that is damaged counts as one: that they were opened is known, how often is not.
    """
    file = path / "openings.json"
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    except ValueError:
        return [{"damaged": f"{file.name} can't be read: earlier openings are not known"}]


def as_json(value: Any) -> str:
    """Write a record's JSON: sorted, indented, numbers of numpy as numbers."""
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


# ---------------------------------------------------------------------- one writer at a time
# Of this process, path → (process, what frees it): a lock must outlive a run that was collected as
# garbage while its notebook starts it again.
_held: dict[Path, tuple[int, Callable[[], None]]] = {}


def hold(path: Path) -> None:
    """Claim a run folder for writing until it is finished, released, or this process ends.

    Raises:
        ValueError: Another process writes there; the message names it.
    """
    if _held.get(path, (0,))[0] == os.getpid():
        return  # this notebook started the run before
    try:
        free = locks.take(lock(path, "writing"))
    except locks.Busy as error:
        raise ValueError(
            f"Another process writes to {path} ({error}). Wait until it has finished, stop it (a "
            "notebook's kernel, say), or choose another VARIANT."
        ) from None
    _held[path] = (os.getpid(), free)


def release(path: Path) -> None:
    """Let others write to a run folder."""
    if path in _held:
        _, free = _held.pop(path)
        free()
