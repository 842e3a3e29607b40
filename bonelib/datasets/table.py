"""Your own radiographs: any CSV that has the cohort's columns.

``image_id`` and ``path`` must be there, all else may: ``source, patient, study, center, site,
view, side, age, sex, mask, report, hardware`` and a column per task (``tumor``, ``malignancy``,
``entity``, ``fracture``, …) with class names. Several sites or views in a cell are joined by ``;``.
Paths count from the folder of the CSV or from ``root``; rows without an image leave theirs empty.
A ``mask`` is a PNG of the image's size, a file of LabelMe, COCO, VIA, YOLO or VOC, or polygons.
Any further column is kept as it is.

Labels and licence are yours. Every problem is told at once, with the line of the file.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import cohort, datasets, tables
from bonelib.datasets import outlines

ANNOTATIONS = (".json", ".xml", ".txt")  # a mask in such a file holds shapes, not a picture


def read(root: Path, notes: list[str], *, file: str | Path | None = None) -> pd.DataFrame:
    """Read a CSV with the cohort's columns, by ``tables.read``.

    Args:
        root: The folder of the data, or the CSV itself.
        file: The CSV; by default the only one in ``root``.

    Returns:
        The cohort table with the further columns of the CSV.

    Raises:
        FileNotFoundError: There is no such CSV.
        ValueError: Lists every problem of the file with its line numbers (the header is line 1).
    """
    file = _choose(root, file)
    folders = (file.parent, root if root.is_dir() else file.parent)
    raw = tables.read(file, notes)
    problems = datasets.lacking(raw, (cohort.IMAGE_ID, cohort.PATH))
    problems += [] if len(raw) else ["It has no rows."]
    cure = f"Found the columns {', '.join(raw.columns)}. Add what is missing."
    datasets.refuse(problems, file, cure=cure)

    table = cohort.empty(len(raw)).set_index(raw.index)
    for column in raw:
        table[column] = raw[column] if column in cohort.COLUMNS else _guess(raw[column])
    if cohort.SOURCE not in raw:
        table[cohort.SOURCE] = file.stem
    problems = _id_problems(raw[cohort.IMAGE_ID])
    for column, known in ((cohort.SITE, cohort.SITES), (cohort.VIEW, cohort.VIEWS)):
        if column in raw:
            table[column] = [_split(cell) for cell in raw[column]]
            problems += _wrong(
                raw[column],
                lambda cell, known=known: set(_split(cell)) <= set(known),
                f"{column} terms joined by ';' from {', '.join(known)}",
            )
    for column, known in ((cohort.SIDE, cohort.SIDES), (cohort.SEX, cohort.SEXES)):
        if column in raw:
            problems += _wrong(raw[column], known.__contains__, f"{column} {', '.join(known)}")
    if cohort.AGE in raw:
        age = table[cohort.AGE] = pd.to_numeric(raw[cohort.AGE], errors="coerce")
        fits = set(raw.loc[age.between(0, 120), cohort.AGE])
        problems += _wrong(raw[cohort.AGE], fits.__contains__, "years between 0 and 120")
    for task in cohort.TASKS.values():
        if task.column in raw:
            table[task.column] = labels(raw[task.column], task, problems, notes)
    if cohort.MASK in raw:
        table[cohort.MASK] = [_outline(cell, folders) for cell in raw[cohort.MASK]]
        problems += _wrong(
            raw[cohort.MASK],
            lambda cell: _outline(cell, folders) is not None,
            "the path of a PNG or of a file of LabelMe, COCO, VIA, YOLO or VOC that exists, or "
            "polygons as JSON [[[x, y], …], …]",
        )
    datasets.refuse(problems, file, cure="Correct these lines and read it again.")

    found = [None if pd.isna(cell) else _find(cell, folders) for cell in raw[cohort.PATH]]
    table[cohort.PATH] = [str(path) if path else pd.NA for path in found]
    table[cohort.MASK] = _annotated(table, notes)
    outside = [path for path in found if path and not _below(path, folders)]
    notes += datasets.counted(
        outside,
        "{n} images lie outside the folder of the table, e.g. {names}; they are read.",
    )
    table = table.reset_index(drop=True)
    return table


def _choose(root: Path, file: str | Path | None) -> Path:
    if root.is_file() and file is None:
        return root.absolute()
    if file is None:
        found = sorted(root.glob("*.csv"))
        if len(found) != 1:
            names = ", ".join(path.name for path in found[:8]) or "none"
            raise FileNotFoundError(
                f"Expected one CSV in {root}, found {names}. Name it: DATA=/path/to/table.csv."
            )
        return found[0].absolute()
    for path in (Path(file), root / file):
        if path.is_file():
            return path.absolute()
    raise FileNotFoundError(f"No file {file}, neither as it stands nor in {root}.")


def _wrong(cells: pd.Series, fits: Callable[[str], bool], expected: str) -> list[str]:
    """Say which cells do not fit, what they hold and what was expected; NA always fits."""
    fit = pd.Series([pd.isna(cell) or fits(cell) for cell in cells], cells.index, dtype=bool)
    return datasets.misfits(cells, fit, expected, first=0)


def _id_problems(ids: pd.Series) -> list[str]:
    problems = datasets.misfits(ids, ids.notna(), "an id", first=0)
    for name in ids[ids.duplicated()].dropna().unique()[:5]:
        lines = datasets.lines_of(ids.index[ids == name])
        problems.append(f"image_id {name!r} occurs more than once, {lines}.")
    return problems


def _split(cell: str) -> tuple[str, ...]:
    return tuple(sorted({t.strip() for t in cell.split(";")} - {""})) if pd.notna(cell) else ()


def labels(cells: pd.Series, task: cohort.Task, problems: list[str], notes: list[str]) -> pd.Series:
    """Check the labels of a column; 0 and 1 of a binary task are its first and second class.

    Args:
        cells: Text, the index is the line in the file.
        problems: Gains a sentence for what is no class or number, with the lines.
    """
    if task.kind == "regression":
        values = pd.to_numeric(cells, errors="coerce")
        numbers = set(cells[values >= task.least])
        least = f" from {task.least:g}" if np.isfinite(task.least) else ""
        problems += _wrong(cells, numbers.__contains__, f"a number{least}")
        return values
    # "2.0" is what a spreadsheet makes of a grade 2 beside empty cells.
    names = cells.str.replace(r"^(\d+)\.0$", r"\1", regex=True)
    names = names.where(~names.str.lower().isin(task.classes), names.str.lower())
    if task.kind == "binary":
        index = dict(zip("01", task.classes, strict=True))
        if names.isin(list(index)).any():
            names = names.replace(index)
            notes.append(f"{task.column}: 0 and 1 were read as {' and '.join(task.classes)}.")
    problems += _wrong(names, task.classes.__contains__, ", ".join(task.classes))
    return names


def _find(cell: str, folders: tuple[Path, ...]) -> Path | None:
    places = (folder / cell for folder in folders)  # an absolute path stays itself
    return next((place.absolute() for place in places if place.is_file()), None)


def _below(path: Path, folders: tuple[Path, ...]) -> bool:
    real = path.resolve()  # links followed and ".." taken away
    return any(real.is_relative_to(folder.resolve()) for folder in folders)


def _outline(cell: str, folders: tuple[Path, ...]) -> str | None:
    """Return polygons or the absolute path of a picture; None where it is neither, NA stays NA."""
    if pd.isna(cell):
        return cell
    if not cell.startswith("["):
        path = _find(cell, folders)
        return str(path) if path else None
    try:
        polygons = json.loads(cell)
        sound = all(len(points) > 2 and all(len(p) == 2 for p in points) for points in polygons)
        return datasets.polygons_text(polygons) if sound and polygons else None
    except (ValueError, TypeError):
        return None


def _annotated(table: pd.DataFrame, notes: list[str]) -> list:
    """Turn masks that are files of an annotation tool into polygons; NA where there is nothing."""
    cells, every, broken = [], [], {}
    for mask, image in zip(table[cohort.MASK], table[cohort.PATH], strict=True):
        if not isinstance(mask, str) or not mask.lower().endswith(ANNOTATIONS):
            cells.append(mask)
            continue
        try:
            shapes = outlines.read_file(Path(mask), None if pd.isna(image) else image)
        except (OSError, ValueError) as error:
            broken[Path(mask).name] = str(error)
            shapes = []
        every += shapes
        cells.append(outlines.cell(shapes) or pd.NA)
    notes += outlines.open_notes(every) + outlines.faults(broken)
    return cells


def _guess(cells: pd.Series) -> pd.Series:
    """Make numbers of a column that holds nothing else; "007" is a name."""
    known = cells.dropna()
    numbers = pd.to_numeric(known, errors="coerce")
    if known.empty or numbers.isna().any() or any(re.match(r"0\d", cell) for cell in known):
        return cells
    whole = all(re.fullmatch(r"[+-]?\d+", cell) for cell in known)
    return pd.to_numeric(cells).astype("Int64" if whole else "float64")
