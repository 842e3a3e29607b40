"""Which code made a record: the modules that an experiment reaches by its imports, by content.

The name of a module comes in; the hash of each module in reach goes out. Imports are read, never
carried out, so lazy ones inside functions count as well. Comments, docstrings and layout do not:
rewording one remakes nothing.
"""

import ast
import functools
import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bonelib.runs.files import file_hash

PACKAGE = Path(__file__).resolve().parents[1]  # bonelib/
# The command line and the runner start what computes. `runs` keeps what was computed: its files
# are read back as they were saved, or refused by the format of the record. `explore` shows what
# was computed to a reader.
LEFT_OUT = ("commands", "headless", "runs", "explore", "__main__", "__init__")
# ast.parse of Python 3.11.7 adds up the depths of two threads: SystemError, now and then.
_ONE_AT_A_TIME = threading.Lock()
# BONELIB_OTHER_CODE=keep: numbers made by other code are named, not made again.
KEEP = "BONELIB_OTHER_CODE"
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_closure(modules: str) -> dict[str, str]:
    """Return the hash of each module of this package that ``modules`` reach by imports.

    A package brings the CSV files beside its modules (word banks, vocabularies). TOML files are
    settings, not code: what is read of them stands in the settings of a run.

    Args:
        modules: ``bonelib.experiments.data``, or several separated by blanks. Where there is no
            such module, or for "bonelib", the whole package is meant.

    Returns:
        Path below the package → twelve hex digits, ``{"losses.py": "3f…"}``, sorted.
    """
    waiting: set[Path] = set()
    for parts in (name.split(".")[1:] for name in modules.split()):
        own = list(_files(parts))
        waiting |= set(own[-1:] if parts and len(own) == len(parts) else PACKAGE.rglob("*.py"))
    found: set[Path] = set()
    while waiting := {path for path in waiting - found if _room(_name(path)) not in LEFT_OUT}:
        found |= waiting
        waiting = set().union(*(_read(path)[0] for path in waiting))
    folders = {path.parent for path in found} - {PACKAGE}
    hashes = {_name(path): _read(path)[1] for path in found}
    tables = {_name(csv): file_hash(csv)[:12] for folder in folders for csv in folder.glob("*.csv")}
    return dict(sorted((hashes | tables).items()))


def code_hash(room: str) -> str:
    """Hash the sources and word banks that a room reaches, in twelve hex digits."""
    closure = json.dumps(code_closure(f"bonelib.{room}"))
    return hashlib.sha256(closure.encode()).hexdigest()[:12]


def changed_rooms(
    then: Mapping[str, str], now: Mapping[str, str], *, without: Iterable[str] = ()
) -> list[str]:
    """Name the rooms whose modules differ between two closures.

    Args:
        without: Rooms that do not count, ``figures``, or single modules, ``experiments/probing``.
    """
    paths = {p for p in {*then, *now} if then.get(p) != now.get(p)}
    passed = {*without, *LEFT_OUT}  # older records name some of these
    return sorted({_room(p) for p in paths if not {_room(p), p.removesuffix(".py")} & passed})


def keeping() -> bool:
    """Tell whether the user keeps numbers made by other code.

    Raises:
        ValueError: The variable holds another word.
    """
    value = os.environ.get(KEEP, "")
    if value not in ("", "keep"):
        raise ValueError(f"{KEEP}={value!r}; set it to keep, or not at all.")
    return value == "keep"


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _room(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def _files(parts: Iterable[str]) -> Iterator[Path]:
    """Yield the file of each package on the way to a name, and of the name if it is a module."""
    place = PACKAGE
    for part in parts:
        place /= part
        both = place / "__init__.py", place.with_suffix(".py")
        file = next((path for path in both if path.is_file()), None)
        if file is None:
            return  # from here on the names are of functions, classes, constants
        yield file


def _read(path: Path) -> tuple[frozenset[Path], str]:
    facts = path.stat()
    with _ONE_AT_A_TIME:
        return _parsed(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=4096)
def _parsed(path: Path, _time: int, _size: int) -> tuple[frozenset[Path], str]:
    """Return the modules of this package that a file imports, and the hash of its code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ".".join(("bonelib", *path.relative_to(PACKAGE).parent.parts))
    targets = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            targets += [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant):
            targets.append(str(node.value))  # importlib.import_module("bonelib.…")
        elif isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    names = [target.split(".")[1:] for target in targets if target.startswith("bonelib.")]
    reached = frozenset(file for parts in names for file in _files(parts))
    return reached, hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12]
