"""Which files a user means: pictures, folders, a DICOM export, a cohort table.

Paths come in; one row a file goes out, in order, each file once. No pixel is read here, and what is
no radiograph is named with the reason.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets, dicom, tables
from bonelib.datasets.dicom import RAW, superseded
from bonelib.dicom.tree import LISTING, NOT_DICOM

TABLES = (".csv", ".tsv", ".xlsx")
PICTURES = tuple(suffix for suffix in datasets.files.PICTURES if suffix != ".dcm")
COLUMNS = (cohort.PATH, "file", cohort.IMAGE_ID, cohort.STUDY, "problem", "secret")
AGAIN = "{n} files were given more than once and are predicted once, e.g. {names}."
PASSED = "{n} files are no images by their names and were passed over, e.g. {names}."


def gather(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Find the files that paths lead to.

    Args:
        paths: Files; folders, with all below them; a DICOMDIR; tables (``.csv``, ``.tsv``,
            ``.xlsx``) with a column ``path`` and perhaps ``image_id`` and ``study``.

    Returns:
        A row a file: ``path`` (absolute, "" where a table names none), ``file`` (below the folder
        that was given, else as given), ``image_id``, ``study`` (of a cohort table or a header) and
        its ``number`` ("study 0001"), ``problem`` ("" or why it can't be predicted), ``secret``:
        its name may be that of a person, as it lies among DICOM files or is no picture by its name,
        ``secret_study``: a file of it is. ``attrs["notes"]``: what was passed over or assumed.

    Raises:
        ValueError: A path leads nowhere, a folder holds no images, or a table has no column
            ``path``; all of them are listed.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    rows, notes, faults = [], [], []
    for path in map(Path, given):
        try:
            rows += _found(path, notes)
        except (ValueError, OSError) as error:
            faults.append(str(error))
    if not given:
        faults.append("No path was given. Give image files, folders or a CSV.")
    if faults:
        lines = "\n".join(f"  - {line}" for line in faults)
        raise ValueError(f"{len(faults)} paths can't be used:\n{lines}")
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=object).astype({"secret": bool})
    real = table[cohort.PATH].map(lambda path: os.path.realpath(path) if path else None)
    again = real.duplicated() & real.notna()
    notes += datasets.counted(sorted(set(table.loc[again, "file"])), AGAIN)
    table = table[~again].reset_index(drop=True)
    study = table[cohort.STUDY]
    table["number"] = [f"study {n:04d}" if n else pd.NA for n in pd.factorize(study)[0] + 1]
    table["secret_study"] = study.isin(study[table["secret"]].dropna())
    table.attrs["notes"] = list(dict.fromkeys(notes))
    return table


def _found(path: Path, notes: list[str]) -> list[dict[str, object]]:
    """Return the rows of one path that was given."""
    if path.is_dir():
        return _folder(path, notes)
    if not path.exists():
        raise ValueError(f"There is no file and no folder {path}. Check how it is written.")
    if path.suffix.lower() in TABLES:
        return _table(path, notes)
    if path.name.lower().partition(".")[0] == LISTING:
        return _export(path, notes)
    return [_row(path, str(path))]


def _row(path: str | Path, file: str, **more: object) -> dict[str, object]:
    secret = not file.lower().endswith(PICTURES)
    known = {cohort.PATH: os.path.abspath(path), "file": file, "problem": "", "secret": secret}
    return known | more


def _folder(root: Path, notes: list[str]) -> list[dict[str, object]]:
    """Take pictures by their names; where a file is DICOM, all others as an export."""
    files = datasets.tree(root, notes)
    others = {name: path for name, path in files.items() if not name.lower().endswith(PICTURES)}
    rows = [_row(path, name) for name, path in files.items() if name not in others]
    if any(_is_dicom(path) for path in others.values()):
        rows = [row | {"secret": True} for row in rows] + _export(root, notes)
        rows.sort(key=lambda row: str(row["file"]))
        others = [name for name, path in others.items() if path.suffix.lower() in NOT_DICOM]
    notes += datasets.counted(others, PASSED)
    if not rows:
        have = ", ".join(list(files)[:5]) or "nothing"
        raise ValueError(
            f"{root} holds no images (it holds {have}). Give a folder of JPEG, PNG, TIFF or DICOM "
            "files."
        )
    return rows


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return path.suffix.lower() == ".dcm" or dicom.is_dicom(stream.read(256))
    except OSError:
        return False


def _export(root: Path, notes: list[str]) -> list[dict[str, object]]:
    """Return the files of a DICOM export with their studies, and why some are not predicted."""
    files, said = dicom.walk(root)
    # What is of another kind by its name is told by the caller, who takes pictures.
    notes += [note for note in said if "are of other kinds" not in note]
    files.loc[superseded(files), "reason"] = RAW
    files["reason"] = files["reason"].fillna("")
    return [
        _row(row.path, row.file, study=row.study, problem=row.reason, secret=True)
        for row in files.itertuples()
    ]


def _table(file: Path, notes: list[str]) -> list[dict[str, object]]:
    """Return the rows of a cohort table; paths count from its folder."""
    raw = tables.read(file, notes)
    if cohort.PATH not in raw or raw.empty:
        have = f"the columns {', '.join(raw.columns)}" if len(raw) else "no rows"
        raise ValueError(
            f"{file} has {have}. It needs a row an image, with the path of the file in a column "
            f"{cohort.PATH!r}; {cohort.IMAGE_ID!r} and {cohort.STUDY!r} may stand beside it."
        )
    bare, raw = raw[cohort.PATH].isna(), raw.reindex(columns=COLUMNS[:4])
    lines = pd.Series([f"row {line} of {file.name}" for line in raw.index], raw.index)
    raw["file"] = raw[cohort.PATH].fillna(raw[cohort.IMAGE_ID]).fillna(lines)
    rows = [
        _row(file.parent / name, name, image_id=row.image_id, study=row.study)
        for name, row in zip(raw["file"], raw.itertuples(), strict=True)
    ]
    # What a row without a file would be, nobody knows: it is secret where another one is.
    secret = any(row["secret"] for row, lacks in zip(rows, bare, strict=True) if not lacks)
    empty = {cohort.PATH: "", "problem": "the table names no file", "secret": secret}
    return [row | empty if lacks else row for row, lacks in zip(rows, bare, strict=True)]
