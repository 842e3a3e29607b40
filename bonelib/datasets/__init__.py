"""Readers that turn a published folder into the cohort table; one file per data set.

A folder comes in, a table with the columns of ``cohort`` goes out, one row per radiograph. Readers
open metadata and annotations, never pixels. Faults that make the table wrong are raised, all at
once; what can be lived with (rows without a file, contradictions) is kept as sentences in
``table.attrs["notes"]``, to be shown in the first notebook.

The functions other than ``read`` are what several readers share.
"""

import json
import os
from pathlib import Path

import pandas as pd

from bonelib import cohort

NAMES = ("btxrd", "fracatlas", "phantom", "table")


def read(name: str, root: str | Path, **options) -> pd.DataFrame:
    """Read a data set by name; a name that ends in ``.csv`` is a file for the ``table`` reader.

    Args:
        root: The unpacked folder of the data set.
        options: Those of the reader's own ``read``, e.g. ``require_images=True``.

    Returns:
        The cohort table, checked; ``attrs["notes"]`` lists in sentences what is odd about it.

    Raises:
        ValueError: The name is unknown, or the folder breaks its format; all problems are listed.
        FileNotFoundError: The folder or its table is not there.
    """
    # Written out, so that reading one data set imports one reader.
    if name == "fracatlas":
        from bonelib.datasets import fracatlas as reader
    elif name == "btxrd":
        from bonelib.datasets import btxrd as reader
    elif name == "phantom":
        from bonelib.datasets import btxrd as reader

        options = {"extras": True} | options
    elif name == "table" or name.endswith(".csv"):
        from bonelib.datasets import table as reader

        if name != "table":
            options = {"file": name} | options
    else:
        raise ValueError(
            f"Unknown data set {name!r}. Choose one of {', '.join(NAMES)}, or the path of a CSV."
        )
    return cohort.check(reader.read(root, **options))


def locate(root: str | Path, names: tuple[str, ...], *, inner: str = "") -> Path:
    """Find the metadata table in ``root``, or one level down where an archive doubles its folder.

    Args:
        names: File names, the preferred one first.
        inner: Name of the folder that an archive may add, e.g. ``BTXRD``.

    Raises:
        FileNotFoundError: The message says what was looked for and what lies there instead.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}. Set DATA_ROOT to the unpacked data set.")
    for folder in (root, root / inner):
        for name in names:
            if (folder / name).is_file():
                return (folder / name).absolute()
    have = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
    raise FileNotFoundError(
        f"No {' or '.join(names)} in {root} (it holds {have}). "
        "Set DATA_ROOT to the folder in which that file lies."
    )


def files_below(*folders: Path) -> dict[str, Path]:
    """Map file names to paths over some folders; hidden files are left out."""
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            with os.scandir(folder) as entries:
                names = sorted(e.name for e in entries if e.is_file() and e.name[0] != ".")
            found |= {name: folder / name for name in names}
    return found


def flag_problems(frame: pd.DataFrame, columns: tuple[str, ...]) -> list[str]:
    """List, in sentences, missing columns and cells that are not 0 or 1."""
    missing = [c for c in columns if c not in frame]
    found = [f"The columns {', '.join(map(repr, missing))} are missing."] if missing else []
    for column in (c for c in columns if c in frame):
        wrong = frame.loc[~frame[column].isin([0, 1]), column]
        if len(wrong):
            values = sorted({str(v) for v in wrong})[:3]
            found.append(f"{len(wrong)} cells of {column!r} are not 0 or 1, e.g. {values}.")
    return found


def refuse(
    problems: list[str],
    file: Path,
    *,
    cure: str = "Compare it with the published file, or unpack the data set again.",
) -> None:
    """Raise one ValueError that lists all problems of a file; do nothing where there is none."""
    if problems:
        lines = "\n".join(f"  - {line}" for line in problems)
        raise ValueError(f"{file} has {len(problems)} problem(s):\n{lines}\n{cure}")


def keep_existing(table: pd.DataFrame, *, required: bool, notes: list[str]) -> pd.DataFrame:
    """Drop rows whose ``path`` is NA, with a note.

    Raises:
        FileNotFoundError: No row has a file, or some lack one and ``required`` is set.
    """
    missing = table.loc[table[cohort.PATH].isna(), cohort.IMAGE_ID]
    if missing.empty:
        return table
    sentence = (
        f"{len(missing)} of {len(table)} rows have no image file, e.g. {', '.join(missing[:3])}"
    )
    if required or len(missing) == len(table):
        raise FileNotFoundError(f"{sentence}. Unpack the images beside the table.")
    notes.append(f"{sentence}; they are left out.")
    return table[table[cohort.PATH].notna()].reset_index(drop=True)


def polygons_text(polygons: list) -> str:
    """Write polygons ``[[[x, y], …], …]`` in pixels as the JSON text of a ``mask`` cell."""
    return json.dumps([[[round(x, 2), round(y, 2)] for x, y in points] for points in polygons])


def terms(frame: pd.DataFrame, names: dict[str, str]) -> list[tuple[str, ...]]:
    """Turn 0/1 columns into one sorted tuple of terms per row.

    Args:
        names: For each column, the term it stands for.
    """
    values = frame[list(names)].to_numpy() == 1
    words = list(names.values())
    return [tuple(sorted(w for w, on in zip(words, row, strict=True) if on)) for row in values]
