"""What is printed, and tables written for a user."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def say(line: str) -> None:
    """Print a line at once; where nobody reads it any more, say so once and go on."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        print("The pipe was closed: what follows is not printed.", file=sys.stderr)


# What to do about what the system refuses, by its number.
_CURES = {
    errno.ENOSPC: "The disk is full: make room and give the command again; what is finished stays.",
    errno.EDQUOT: "Your quota is used up: make room and give the command again.",
    errno.EROFS: "It can only be read: set BONELIB_RUNS, BONELIB_CACHE, BONELIB_FIGURES (and, for "
    "bonelib fetch, BONELIB_DATA) to folders that can be written.",
}
_CURES[errno.EACCES] = _CURES[errno.EPERM] = "You may not write there: " + _CURES[
    errno.EROFS
].removeprefix("It can only be read: ")
_CURES[errno.EEXIST] = _CURES[errno.ENOTDIR] = "A file has the name of a folder: rename it."


def told(error: OSError) -> str:
    """Say in a sentence what the system refused, where, and what to do."""
    where = f" ({error.filename})" if error.filename else ""
    cure = _CURES.get(error.errno, "")
    return f"{error.strerror or error}{where}. {cure}".strip()


@contextlib.contextmanager
def tenths(words: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback that shows a bar on a terminal and prints each tenth elsewhere."""
    from bonelib.experiments import progress

    shown = 0

    def line(done: int, total: int) -> None:
        nonlocal shown
        if done * 10 // max(total, 1) > shown:
            shown = done * 10 // total
            say(f"  {done} of {total} images")

    if progress.watched():
        with progress.bar(words) as show:
            yield show
    else:
        yield line


def short(path: Path) -> str:
    """Name a path from here, where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def metrics(row: dict[str, Any]) -> str:
    """Put the metrics of a run, as ``runs.collect`` lists it, on one line."""
    shown = {k.removeprefix("metrics."): v for k, v in row.items() if k.startswith("metrics.")}
    return "  ".join(
        f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}"
        for k, v in shown.items()
        if v is not None and v == v
    )


def summary(table: "pd.DataFrame") -> str:
    """Count a cohort table: labels of every task, sites, views, centres, and the reader's notes."""
    from bonelib import cohort

    patients = table[cohort.PATIENT].nunique()
    lines = [f"{len(table)} radiographs, {patients or 'unknown number of'} patients"]
    for task in cohort.labelled(table):
        values = table[task.column].dropna()
        if task.kind == "regression":
            numbers = values.astype(float)
            text = f"{len(values)} values, {numbers.min():g} to {numbers.max():g}"
        else:
            count = values.astype(str).value_counts()
            text = ", ".join(f"{name} {count.get(name, 0)}" for name in task.classes)
        lines.append(f"  {task.name}: {text}")
    for column in (cohort.SITE, cohort.VIEW, cohort.CENTER):
        count = table[column].explode().dropna().astype(str).value_counts()
        if len(count):
            lines.append(f"  {column}: " + ", ".join(f"{k} {v}" for k, v in count.items()))
    return "\n".join([*lines, *(f"  note: {note}" for note in table.attrs.get("notes", []))])


def write(table: "pd.DataFrame", path: Path) -> None:
    """Write a cohort table, .parquet or .csv, by rename."""
    from bonelib import cohort, runs

    with runs.replacing(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
            return
        flat = table.copy()  # several terms in one cell: separated as datasets.table reads them
        for column in {cohort.SITE, cohort.VIEW} & set(flat):
            flat[column] = [";".join(terms) for terms in flat[column]]
        flat.to_csv(temporary, index=False)
