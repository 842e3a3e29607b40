"""Where runs, caches, figures and data lie, and how a file is written whole or not at all."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def folder() -> Path:
    """Return where runs are kept: ``BONELIB_RUNS``, else ``runs/`` in the repository."""
    return Path(os.environ.get("BONELIB_RUNS") or ROOT / "runs")


def cache_folder(name: str) -> Path:
    """Return a folder for what can be made again: ``BONELIB_CACHE``, else ``.cache/``."""
    return Path(os.environ.get("BONELIB_CACHE") or ROOT / ".cache") / name


def figures_folder(data: str) -> Path:
    """Return where ``demo`` and ``full`` publish: ``BONELIB_FIGURES``, else ``figures/``."""
    return Path(os.environ.get("BONELIB_FIGURES") or ROOT / "figures") / data_name(data)


def data_root(data: str, root: str = "") -> Path:
    """Return the folder of a data set: ``root`` if given, else its folder in ``BONELIB_DATA``.

    Raises:
        FileNotFoundError: Neither leads to a folder; the message says what to pass.
    """
    if data.endswith(".csv"):
        path = Path(root) if root else Path(data).resolve().parent
    elif root:
        path = Path(root)
    elif os.environ.get("BONELIB_DATA"):
        above = Path(os.environ["BONELIB_DATA"])
        path = above if "+" in data else above / data  # several sets: the folder that holds them
    else:
        raise FileNotFoundError(
            f"Don't know where {data!r} lies. Pass its folder as DATA_ROOT "
            f"(bonelib run … -p DATA_ROOT /path/to/{data}) or set BONELIB_DATA to the folder above."
        )
    parts = [Path(part) for part in str(path).split(os.pathsep)] if "+" in data else [path]
    if not all(part.is_dir() for part in parts):
        raise FileNotFoundError(
            f"No folder {path} for the data set {data!r}. Set DATA_ROOT to the unpacked folder."
        )
    return path


def data_name(data: str) -> str:
    """Name the data set in paths; a CSV becomes its stem plus six hex digits of its path."""
    if not data.endswith(".csv"):
        return data
    digest = hashlib.sha256(str(Path(data).resolve()).encode()).hexdigest()[:6]
    return f"{Path(data).stem}-{digest}"


def place(stage: str, profile: str, data: str, task: str) -> Path:
    """Return the folder that holds all runs of a stage, ``runs/<profile>/<data>/<task>/<stage>``.

    Raises:
        ValueError: A name would lead out of it, such as the path of a data set in DATA.
    """
    names = {"PROFILE": profile, "DATA": data_name(data), "TASK": task, "stage": stage}
    wrong = [f"{key}={name!r}" for key, name in names.items() if not name or "/" in name]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)} can't name a run folder. DATA is the name of a data set or the "
            "path of a CSV; the folder of the data set goes into DATA_ROOT."
        )
    return folder().joinpath(*names.values())


@contextlib.contextmanager
def alone(run: Path) -> Iterator[None]:
    """Let one process at a time work on a run folder; others wait. A kill frees it."""
    import fcntl

    run.parent.mkdir(parents=True, exist_ok=True)
    with (run.parent / f".{run.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
