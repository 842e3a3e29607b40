"""Roboflow's export for classification: ``train/_classes.csv`` beside its pictures.

Source, licence and labels are the uploader's; read them in ``README.dataset.txt`` and doubt them:
for the "bone cancer" sets in circulation, the pictures of cancer are photographs of films with
hospitals' strips and scraped pages, the normal ones come from FracAtlas, so that a model learns the
source. Don't use those.

Known faults of the format: blanks after the commas; a source image is exported several times, each
copy altered, as ``name_jpg.rf.<hash>.jpg``, and copies may lie in different splits. Copies share a
``study`` here, so that they stay in one group; the published split is noted and not trusted.
"""

from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets
from bonelib.datasets import folder

TABLE = "_classes.csv"


def read(
    root: Path, notes: list[str], *, task: str = "", classes: dict[str, str] | None = None
) -> pd.DataFrame:
    """Read the export's splits into one table.

    Args:
        task: Name of the task; by default the one to which all columns belong.
        classes: Class of the task for each column that is not recognised.

    Returns:
        The cohort table with the task's column, ``study`` (the source image) and
        ``published_split``; ``image_id`` is the path below ``root``.

    Raises:
        FileNotFoundError: No ``_classes.csv`` is there.
        ValueError: The tables differ in their columns, or these are not classes of one task.
    """
    root = root.absolute()
    places = [
        p for p in (root, *(root / name for name in datasets.SPLITS)) if (p / TABLE).is_file()
    ]
    if not places:
        have = ", ".join(sorted(p.name for p in root.iterdir())[:8]) if root.is_dir() else "nothing"
        raise FileNotFoundError(
            f"No {TABLE} in {root} or its folders train, valid and test (found {have}). Set "
            "DATA_ROOT to the unpacked export, made for multi-class or multi-label classification."
        )
    parts, problems = [], []
    for place in places:
        csv = datasets.read_table(place / TABLE, notes, numbers=True)
        name = "" if place == root else f"{place.name}/"
        flags = tuple(column for column in csv if column != "filename")
        wrong = datasets.lacking(csv, ["filename"])
        problems += [
            f"{name}{TABLE}: {line}" for line in wrong or datasets.flag_problems(csv, flags)
        ]
        if wrong:
            continue
        parts.append(_rows(csv, place, name))
    columns = {tuple(sorted(set(part) - {"id", "name", "file", "split"})) for part in parts}
    if len(columns) > 1:
        problems.append(f"The tables have different classes: {' / '.join(map(str, columns))}.")
    datasets.refuse(problems, root, cure="Export the set again, or correct these tables.")
    rows = pd.concat(parts, ignore_index=True)
    known = folder.recognise(set(*columns), task, classes, notes, where=TABLE)

    rows = _inside(rows, notes)
    table = cohort.empty(len(rows))
    table[cohort.IMAGE_ID] = rows["id"]
    table[cohort.PATH] = [str(f) if f.is_file() else pd.NA for f in rows["file"]]
    table[cohort.SOURCE] = root.name
    table[cohort.STUDY] = [folder.source_image(path.name) for path in rows["file"]]
    table[known.name] = _labels(rows, known, notes)
    table[datasets.PUBLISHED_SPLIT] = rows["split"]
    notes += folder.copies(datasets.with_file(table), known.name)
    listed = set(rows["file"])
    strangers = [
        path.name
        for place in places
        for path in datasets.pictures(datasets.files_below(place)).values()
        if path not in listed
    ]
    notes += datasets.counted(strangers, datasets.NO_ROW)
    return table


def _rows(csv: pd.DataFrame, place: Path, prefix: str) -> pd.DataFrame:
    names = csv.pop("filename").astype(str).str.strip()
    csv["id"] = prefix + names
    csv["name"] = names
    csv["file"] = [place / name for name in names]
    csv["split"] = datasets.published_split([place.name]) if prefix else pd.NA
    return csv


def _inside(rows: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Leave out rows whose name leads out of the split's folder, and repeated rows, with a note."""
    names = map(Path, rows["name"])
    out = pd.Series([name.is_absolute() or ".." in name.parts for name in names], dtype=bool)
    again = rows["id"].duplicated() & ~out
    notes += datasets.counted(
        rows["id"][out], "{n} names lead out of their folder and are left out, e.g. {names}."
    )
    notes += datasets.counted(
        rows["id"][again], "{n} files have more than one row, e.g. {names}; the first is kept."
    )
    return rows[~out & ~again].reset_index(drop=True)


def _labels(rows: pd.DataFrame, known: folder.Known, notes: list[str]) -> list:
    """Name the class of each row; NA where none or several are marked."""
    marked = datasets.terms(rows, known.classes)
    odd = [i for i, names in zip(rows["id"], marked, strict=True) if len(set(names)) != 1]
    notes += datasets.counted(
        odd, "{n} rows mark none or several classes, e.g. {names}; their label is missing."
    )
    return [names[0] if len(set(names)) == 1 else pd.NA for names in marked]
