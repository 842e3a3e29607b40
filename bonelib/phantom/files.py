"""Files read and written: the tables beside the modules, and the folders of a cohort."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import pandas as pd

STARTED, FINISHED = "phantom.started.json", "phantom.json"


@cache
def read_table(name: str, *, text: bool = False) -> pd.DataFrame:
    """A CSV file of this folder, e.g. ``anatomy/bones.csv``.

    Args:
        text: Keep every cell as it is written (``007``, ``#``, an empty one as ``""``); otherwise
            columns of numbers are numbers, and lines that start with ``#`` are left out.
    """
    as_written = {"dtype": str, "keep_default_na": False}
    as_numbers = {"comment": "#", "engine": "python"}  # reads every decimal to its nearest float
    with resources.files(__package__).joinpath(name).open(encoding="utf-8", newline="") as file:
        return pd.read_csv(file, **(as_written if text else as_numbers))


def rows(name: str, /, *, text: bool = False, **where: str | int) -> list[dict]:
    """The rows of a table whose cells are ``where``, in the order of the file."""
    return _grouped(name, tuple(where), text).get(tuple(where.values()), [])


@cache
def _grouped(name: str, keys: tuple[str, ...], text: bool) -> dict[tuple, list[dict]]:
    found: dict[tuple, list[dict]] = {}
    for row in read_table(name, text=text).to_dict("records"):
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


# folders: a call that was killed leaves no file half written ------------------------------------


def save(path: Path, content: bytes) -> None:
    """Write by rename."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def save_table(
    path: Path, rows: Iterable[dict | tuple], columns: Iterable[str] | None = None
) -> None:
    """Write rows as a CSV file."""
    columns = None if columns is None else list(columns)
    table = pd.DataFrame(rows, columns=columns)
    save(path, table.to_csv(index=False, lineterminator="\n").encode())


def other_settings(path: Path, settings: dict) -> str:
    """What differs in the settings that a folder was made with; "" where nothing, or no file."""
    if not path.exists():
        return ""
    made = json.loads(path.read_text(encoding="utf-8"))
    return ", ".join(
        f"{name} {made.get(name)!r} instead of {wanted!r}"
        for name, wanted in settings.items()
        if made.get(name) != wanted
    )


def clear_parts(folder: Path) -> None:
    """Remove what a call that was killed has left half written."""
    for stale in folder.rglob("*.part"):
        stale.unlink()


def check(
    folder: Path,
    settings: dict,
    problems: list[str],
    *,
    least: dict[str, tuple[int, int]],
    holds: Sequence[str],
) -> None:
    """Refuse an impossible request, or a folder that holds something else.

    Args:
        problems: Found already; all are told at once.
        least: By name, what was asked for and how much is needed.
        holds: Files and folders that make a folder a filled one.
    """
    for name, (given, needed) in least.items():
        if given < needed:
            problems.append(f"{name} is {given}; give {needed} or more.")
    made = [folder / name for name in (FINISHED, STARTED)]
    for path in made:
        if told := other_settings(path, settings):
            problems.append(f"{folder} holds a cohort with {told}. Choose another folder.")
    filled = any((folder / name).exists() for name in holds)
    if filled and not any(path.exists() for path in made):
        problems.append(f"{folder} holds data that phantom did not write. Choose another folder.")
    if problems:
        raise ValueError(" ".join(problems))


def start(folder: Path, settings: dict, folders: Iterable[str]) -> None:
    """Make the folders of a cohort and say what is being written."""
    for name in folders:
        (folder / name).mkdir(parents=True, exist_ok=True)
    clear_parts(folder)
    save(folder / STARTED, json.dumps(settings, indent=2).encode())


def finish(folder: Path, settings: dict) -> None:
    """Say that a cohort is complete."""
    save(folder / FINISHED, json.dumps(settings, indent=2).encode())
    (folder / STARTED).unlink()


def in_processes(
    one: Callable[[tuple], Any],
    rows: Sequence[tuple],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator:
    """What ``one`` returns of each row, in their order; ``progress`` gets (finished, all)."""
    for done, fact in enumerate(_mapped(one, rows, workers), start=1):
        yield fact
        if progress:
            progress(done, len(rows))


def _mapped(one: Callable[[tuple], Any], rows: Sequence[tuple], workers: int) -> Iterator:
    if workers == 1:
        yield from map(one, rows)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # spawned, not forked: the caller may hold threads of other libraries
    pool = ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,))
    try:
        yield from pool.map(one, rows, chunksize=4)
    finally:  # an interrupted call must not wait for the images still in the queue
        pool.shutdown(cancel_futures=True)


def read_cohort(folder: Path) -> pd.DataFrame:
    """The table of a finished folder, one row an image, with its extras.

    Raises:
        FileNotFoundError: The folder was not written by ``phantom.write``, or not to its end.
    """
    if not (folder / "phantom.json").is_file():
        raise FileNotFoundError(
            f"No finished synthetic cohort in {folder}: there is no phantom.json. "
            "Write one with phantom.write(folder, …)."
        )
    table = pd.read_csv(folder / "dataset.csv")
    extra = pd.read_csv(folder / "cohort_extra.csv", dtype=str, keep_default_na=False)
    return table.merge(extra, on="image_id", validate="one_to_one")
