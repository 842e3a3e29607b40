"""Readers that turn a published folder into the cohort table; one file per data set.

A folder comes in, a table with the columns of ``cohort`` goes out, one row per radiograph. Readers
open metadata and annotations, never pixels. Faults that make the table wrong are raised, all at
once; what can be lived with (rows without a file, contradictions) is kept as sentences in
``table.attrs["notes"]``, to be shown in the first notebook.

Each reader is a function ``read(root, notes) -> table``, where rows without a file have NA as
``path``. What holds for every set is done here: rows without a file, notes on patients and on
splits that came with the data, the check. What several readers share is in ``files``, ``sentences``
and here; ``texts.report_texts`` reads the reports of a finished table.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bonelib import cohort
from bonelib.datasets.files import files_below, locate, paths, pictures, read_table, text_of, tree
from bonelib.datasets.sentences import counted, flag_problems, lacking, lines_of, misfits, refuse

NAMES = (
    "btxrd",
    "fracatlas",
    "grazpedwri",
    "knee_kl",
    "rsna_bone_age",
    "mura",
    "lera",
    "roco",
    "phantom",
    "phantom_hands",
    "phantom_knees",
    "phantom_fractures",
    "folder",
    "roboflow",
    "dicom",
    "table",
)
# The layout in which each synthetic set is written.
LAYOUTS = {
    "phantom": "btxrd",
    "phantom_hands": "rsna_bone_age",
    "phantom_knees": "knee_kl",
    "phantom_fractures": "fracatlas",
}
BY_NAME = ("folder", "roboflow")  # whose labels are names of folders or columns, whatever they are
# What becomes of rows without a file; see `read`.
LEAVE_OUT, KEEP = "leave out", "keep"
# Files that lie beside a table which does not name them.
NO_ROW = "{n} image files have no row in the table and are left out, e.g. {names}."
# A split that came with the data is noted in this column and never trusted: most leak.
PUBLISHED_SPLIT = "published_split"
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "auto_test": "auto_test",
}


def read(
    name: str,
    root: str | Path,
    *,
    task: str = "",
    classes: dict[str, str] | None = None,
    missing: str = LEAVE_OUT,
) -> pd.DataFrame:
    """Read a data set by name; a name that ends in ``.csv`` is a file for the ``table`` reader.

    Names joined by ``+`` are read together, see ``datasets.together``.

    Args:
        root: The unpacked folder of the data set.
        task: What names of folders or columns are classes of, for ``folder`` and ``roboflow``; the
            other formats say so themselves.
        classes: Class of the task for each name that these two don't know; see `class_names`.
        missing: Rows without a file: ``leave out`` drops them; ``keep`` keeps them, with NA as
            ``path``, for what the table alone can answer.

    Returns:
        The cohort table, checked; ``attrs["notes"]`` lists in sentences what is odd about it.

    Raises:
        ValueError: A name is unknown, or the folder breaks its format; all problems are listed.
        FileNotFoundError: The folder, its table or all of its images are not there.
    """
    from bonelib.datasets import (
        btxrd,
        dicom,
        folder,
        fracatlas,
        grazpedwri,
        knee_kl,
        lera,
        mura,
        patients,
        roboflow,
        roco,
        rsna_bone_age,
        table,
        together,
    )

    options = {"task": task, "classes": classes}
    own_csv = name.endswith(".csv")
    if "+" in name and not own_csv:
        return cohort.check(together.read(name, root, **options, missing=missing))
    if missing not in (LEAVE_OUT, KEEP):
        raise ValueError(f"missing={missing!r}; expected {LEAVE_OUT!r} or {KEEP!r}.")
    readers = dict(
        btxrd=btxrd, fracatlas=fracatlas, grazpedwri=grazpedwri, knee_kl=knee_kl, mura=mura,
        rsna_bone_age=rsna_bone_age, lera=lera, roco=roco, folder=folder, roboflow=roboflow,
        dicom=dicom, table=table,
    )  # fmt: skip
    layout = LAYOUTS.get(name, name)
    if not own_csv and layout not in readers:
        raise ValueError(
            f"Unknown data set {name!r}. Choose one of {', '.join(NAMES)}, or the path of a CSV."
        )
    options = options if name in BY_NAME else {}
    options |= {"file": name} if own_csv else {}
    options |= {"extras": True} if name == "phantom" else {}
    notes: list[str] = []
    found = readers["table" if own_csv else layout].read(Path(root), notes, **options)
    found = patients.settle(_keep_existing(found, missing=missing, notes=notes), notes)
    if found[cohort.SOURCE].isna().all():
        found[cohort.SOURCE] = source(layout, root)
    notes += _split_notes(found) + _patient_notes(found)
    found.attrs["notes"] = notes
    return cohort.check(found)


def source(layout: str, root: str | Path) -> str:
    """Name what a folder in a layout holds: the real set, or the synthetic one if it says so."""
    file = Path(root) / "phantom.json"
    if layout not in LAYOUTS.values() or not file.is_file():
        return layout
    kind = json.loads(file.read_text(encoding="utf-8")).get("kind")
    return f"phantom_{kind}" if kind else "phantom"


def class_names(text: str) -> dict[str, str]:
    """Read ``found=class; found=class``: what names of folders or columns stand for.

    Raises:
        ValueError: A part is no such pair.
    """
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    known = {name.strip(): value.strip() for name, _, value in pairs}
    if not all(known) or not all(known.values()):
        raise ValueError(f"Found {text!r}; expected pairs 'found=class; found=class'.")
    return known


def published_split(parts: Iterable[str]) -> str | None:
    """Name the split (train, val, test, auto_test) of a file from the folders it lies in."""
    return next((SPLITS[p.lower()] for p in reversed(list(parts)) if p.lower() in SPLITS), None)


def _split_notes(table: pd.DataFrame) -> list[str]:
    """Say which published splits there are, and whether a patient or study lies in several."""
    if PUBLISHED_SPLIT not in table or table[PUBLISHED_SPLIT].isna().all():
        return []
    count = ", ".join(f"{name} {n}" for name, n in table[PUBLISHED_SPLIT].value_counts().items())
    nameless = table[cohort.PATIENT].isna().all()
    unit = cohort.STUDY if nameless else cohort.PATIENT
    spread = table.dropna(subset=[unit]).groupby(unit)[PUBLISHED_SPLIT].nunique()
    across = f"{'source images' if nameless else 'patients'} lie in more than one published split"
    return [
        f"The published split ({count}) is kept in {PUBLISHED_SPLIT!r} and not trusted: "
        "splits are made anew from groups.",
        *counted(spread.index[spread > 1], f"{{n}} {across}, e.g. {{names}}: that split leaks."),
    ]


def _patient_notes(table: pd.DataFrame) -> list[str]:
    nameless, studies = table[cohort.PATIENT].isna(), table[cohort.STUDY].notna().any()
    who = "No patients are named" if nameless.all() else "{n} rows name no patient"
    beside = "studies and " if studies else ""
    text = f"{who}: groups can only be found from {beside}the images."
    return counted(table.loc[nameless, cohort.IMAGE_ID], text)


def _keep_existing(table: pd.DataFrame, *, missing: str, notes: list[str]) -> pd.DataFrame:
    """Decide on the rows whose file is not there, which have NA as ``path``; a note counts them."""
    there = with_file(table)
    text = f"{{n}} of {len(table)} rows have no image file, e.g. {{names}}"
    bare = counted(table.loc[table[cohort.PATH].isna(), cohort.IMAGE_ID], text)
    if not bare or missing == KEEP:
        notes += [f"{sentence}." for sentence in bare]
        return table
    if there.empty:
        raise FileNotFoundError(f"{bare[0]}. Unpack the images beside the table.")
    notes.append(f"{bare[0]}; they are left out.")
    return there.reset_index(drop=True)


def with_file(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose image is there."""
    return table[table[cohort.PATH].notna()]


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
