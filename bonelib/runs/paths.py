"""Where runs, caches, figures and data lie, and how a data set is named in a path.

    runs/<profile>/<data>/<task>/<stage>/<variant>-s<seed>/

``<data>`` tells data sets apart by what they hold, not by where they lie: two hospitals under one
name have runs of their own, and a copy of a folder has those of the first.
"""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from bonelib import tables
from bonelib.runs import locks
from bonelib.runs.files import ROOT

# What the folder of a download is usually called, where not as the set is here.
FOLDERS = {
    "grazpedwri": ("grazpedwri-dx",),
    "knee_kl": ("digital-knee-xray", "knee-kl"),
    "rsna_bone_age": ("rsna-bone-age",),
}
# Sets that are drawn on first use: the cohort of bone tumours, and those of other bone tasks.
DRAWN = ("phantom", "phantom_hands", "phantom_knees", "phantom_fractures")


def is_drawn(data: str) -> bool:
    """Tell whether all of a data set is synthetic, also of several joined by ``+``."""
    return set(data.split("+")) <= {*DRAWN}


def folder() -> Path:
    """Return where runs are kept: ``BONELIB_RUNS``, else ``runs/`` in the repository."""
    return Path(os.environ.get("BONELIB_RUNS") or ROOT / "runs")


def figures_folder(name: str) -> Path:
    """Return where ``demo`` and ``full`` publish: ``BONELIB_FIGURES``, else ``figures/``.

    Args:
        name: ``data_name`` of the data set, ``run.head["data_name"]``.
    """
    return Path(os.environ.get("BONELIB_FIGURES") or ROOT / "figures") / name


def data_root(data: str, root: str = "") -> Path:
    """Return the folder of a data set: ``root`` if given, else its folder in ``BONELIB_DATA``.

    It is absolute. Of several sets, ``a+b``, the folders in the same order, joined as in PATH.

    Raises:
        FileNotFoundError: Neither leads to a folder; the message says what to pass.
    """
    if data.endswith(".csv"):
        parts = [Path(root) if root else Path(data).resolve().parent]
    elif "+" in data and root.count(os.pathsep) == data.count("+"):
        parts = [Path(part) for part in root.split(os.pathsep)]
    elif "+" in data:
        parts = [_below(root or _data_folder(data), name) for name in data.split("+")]
    else:
        parts = [Path(root) if root else _below(_data_folder(data), data)]
    missing = [str(part) for part in parts if not part.is_dir()]
    if missing:
        raise FileNotFoundError(
            f"No folder {', '.join(missing)} for the data set {data!r}. Set DATA_ROOT to the "
            "unpacked folder"
            + (f", or to {len(parts)} folders joined by {os.pathsep!r}." if parts[1:] else ".")
        )
    return Path(os.pathsep.join(os.path.abspath(part) for part in parts))


def task_files(data: str, root: str = "") -> list[Path]:
    """Return the files ``tasks.toml`` in which a data set says what its own tasks are.

    They lie beside the CSV and in the folders of the data; there are none where the data are not.
    """
    try:
        folders = str(data_root(data, root)).split(os.pathsep)
    except FileNotFoundError:
        return []
    above = [str(Path(data).resolve().parent)] if data.endswith(".csv") else []
    files = (Path(folder) / "tasks.toml" for folder in dict.fromkeys(above + folders))
    return [file for file in files if file.is_file()]


def _data_folder(data: str) -> str:
    if not os.environ.get("BONELIB_DATA"):
        raise FileNotFoundError(
            f"Don't know where {data!r} lies. Pass its folder as DATA_ROOT "
            f"(bonelib run … -p DATA_ROOT /path/to/{data}) or set BONELIB_DATA to the folder above."
        )
    return os.environ["BONELIB_DATA"]


def _below(above: str, name: str) -> Path:
    candidates = [Path(above) / known for known in (name, *FOLDERS.get(name, ()))]
    return next((path for path in candidates if path.is_dir()), candidates[0])


def files_below(root: str | Path) -> dict[str, str]:
    """Map the relative paths of all files below a folder to themselves, sorted, none hidden.

    Links are followed, each real folder once. Texts, since each look at a data set asks for
    thousands, and making a ``Path`` takes as long as asking the system.
    """
    root, seen, found = os.fspath(root), set(), {}
    for above, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(above)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        below = "" if above == root else os.path.relpath(above, root).replace(os.sep, "/") + "/"
        found |= {below + n: os.path.join(above, n) for n in names if n[0] != "."}
    return dict(sorted(found.items()))


def data_files(data: str, root: str | Path) -> dict[str, str]:
    """Map the names ``<set>/<relative path>`` of all files of a data set to where they lie.

    Args:
        root: Its folder, of several sets all of them, as ``data_root`` returns it.
    """
    return {
        f"{part}/{name}": path
        for part, one in zip(data.split("+"), str(root).split(os.pathsep), strict=True)
        for name, path in files_below(one).items()
    }


def csv_rows(file: str | Path) -> list[dict[str, str]]:
    """Read a CSV as text by ``tables.rows``, without blanks around cells.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no table.
    """
    if not os.path.isfile(file):
        raise FileNotFoundError(f"There is no file {file}. DATA is the path of a CSV.")
    return [{name: cell.strip() for name, cell in row.items()} for _, row in tables.rows(file, [])]


def data_name(data: str, root: str = "", *, profile: str) -> str:
    """Name a data set in paths, after what it holds.

    What is drawn keeps its name. A CSV becomes its stem and six hex digits of its ``image_id``, a
    folder its name and six of the relative names of its files. Where the data are not on this
    machine, the only folder of runs that has this name is meant; its full name, as in
    ``fracatlas-3fa2c1``, too.

    Args:
        root: As in ``data_root``.
        profile: Where to look for runs if the data are not here.

    Raises:
        FileNotFoundError: The data are not here, and neither are runs of theirs.
        ValueError: They are not here, and several folders of runs have this name.
    """
    is_csv = data.endswith(".csv")
    stem = Path(data).stem if is_csv else data
    if is_drawn(data) or "/" in stem:  # the latter is refused where the folder is made
        return data
    there = [path.name for path in (folder() / profile).glob("*")]
    if re.fullmatch(r".+-[0-9a-f]{6}", data) and data in there:
        return data
    try:
        where = data_root(data, root)
        ids = (row.get("image_id", "") for row in csv_rows(data)) if is_csv else None
        names = "\n".join(sorted(ids or data_files(data, where)))
    except FileNotFoundError as error:
        named = sorted(n for n in there if re.fullmatch(re.escape(stem) + "-[0-9a-f]{6}", n))
        if len(named) > 1:
            raise ValueError(
                f"{data!r} is not on this machine, and runs of {len(named)} sets of this name are: "
                f"{', '.join(named)}. Give one of these names as DATA, or DATA_ROOT."
            ) from error
        if not named:
            raise
        return named[0]
    return f"{stem}-{hashlib.sha256(names.encode()).hexdigest()[:6]}"


def run_path(
    stage: str, *, profile: str, data: str, root: str, task: str, seed: int, variant: str
) -> Path:
    """Return the folder of a run, ``runs/<profile>/<data>/<task>/<stage>/<variant>-s<seed>``.

    Raises:
        ValueError: A name would lead out of it, such as the path of a data set in DATA.
        FileNotFoundError: The data are not here; see ``data_name``.
    """
    name = data_name(data, root, profile=profile)
    names = {"PROFILE": profile, "DATA": name, "TASK": task, "stage": stage, "VARIANT": variant}
    wrong = [f"{key}={name!r}" for key, name in names.items() if not name or "/" in name]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)} can't name a run folder: use letters, digits, - and _ only. DATA "
            "is the name of a data set or the path of a CSV; the folder of the data set goes into "
            "DATA_ROOT."
        )
    return folder() / profile / name / task / stage / f"{variant}-s{seed}"


def lock(run: Path, name: str = "lock") -> Path:
    """Return the file by which a runner (``lock``) or a notebook (``writing``) has a run folder."""
    return run.parent / f".{run.name}.{name}"


@contextlib.contextmanager
def alone(run: Path, wait: Callable[[str], None] = locks.pause) -> Iterator[None]:
    """Let one process at a time work on a run folder; others wait. A kill frees it.

    A finished run that can only be read is free for all.

    Args:
        wait: As in ``locks.take``.

    Raises:
        ValueError: Another machine may work on it, and the file system has no locks to wait for.
        OSError: Nothing can be written there.
    """
    free = None
    try:
        free = locks.take(lock(run), wait=wait)
    except locks.Busy as error:
        raise ValueError(f"Another process works on {run} ({error}).") from None
    except OSError as error:
        readable = error.errno in (errno.EROFS, errno.EACCES) and (run / "record.json").exists()
        if not readable:
            raise
    try:
        yield
    finally:
        if free is not None:
            free()
