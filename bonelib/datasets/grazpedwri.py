"""GRAZPEDWRI-DX: radiographs of children's wrists after an injury.

Source: Nagy E. et al., Scientific Data 9:222 (2022), doi 10.1038/s41597-022-01328-z; data
doi 10.6084/m9.figshare.14825193, licence CC BY 4.0. 20,327 images of 6,091 patients of one
hospital: fracture seen or not, AO class of the study, metal, cast, osteopenia, age, sex, side,
projection; boxes of nine kinds of finding.

Known faults: ``dataset.csv`` begins with a BOM; a flag is 1 or empty, never 0; the PNGs are 16-bit,
which naive code turns white; the AO class belongs to the study, so images without a visible
fracture carry one; several images a study and studies a patient: only patients may be split; a
cast or metal gives the fracture away. Projections 1, 2, 3 are read as frontal, lateral and oblique.
"""

import re
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

VIEWS = {"1": "frontal", "2": "lateral", "3": "oblique"}
SIDES = {"L": "left", "R": "right"}
FLAGS = ("initial_exam", "cast", "diagnosis_uncertain", "osteopenia", "fracture_visible", "metal")
NEEDED = ("filestem", "patient_id", "study_number", "gender", "age", "laterality", "projection")
FRACTURE = 3  # of boneanomaly, bonelesion, foreignbody, fracture, metal, periostealreaction, …
STEM = re.compile(r"\d+_\d+_\d+_WRI-([LR])(\d)_([MFO])\d+$")


def read(root: str | Path, *, missing: str = datasets.LEAVE_OUT) -> pd.DataFrame:
    """Read ``dataset.csv`` with the images, and the boxes where they lie, anywhere below it.

    Args:
        missing: Rows without a file, as in ``datasets.keep_existing``.

    Returns:
        The cohort table with ``fracture`` (fractured where one is visible), ``hardware`` (metal),
        patient, study, side, view, age, sex, the flags ``cast``, ``osteopenia``, … as 0/1,
        ``ao_classification``, ``device``, and in ``mask`` the fracture boxes as polygons.

    Raises:
        FileNotFoundError: No ``dataset.csv`` or no image is there.
        ValueError: Columns or values are not those of the release; all problems are listed.
    """
    file = datasets.locate(root, ("dataset.csv",), inner="GRAZPEDWRI-DX")
    notes: list[str] = []
    csv = _metadata(file, notes)
    files = datasets.tree(file.parent, notes)
    pictures: dict[str, Path] = {}
    boxes: dict[str, Path] = {}
    for path in files.values():
        if path.suffix.lower() in datasets.PICTURES:
            pictures.setdefault(path.stem, path)
        elif path.suffix == ".txt" and path.parent.name == "labels":
            boxes.setdefault(path.stem, path)
    stems = csv["filestem"]

    table = cohort.empty(len(csv))
    table[cohort.IMAGE_ID] = stems
    table[cohort.PATH] = [str(pictures[s]) if s in pictures else pd.NA for s in stems]
    table[cohort.SOURCE] = "grazpedwri"
    table[cohort.PATIENT] = csv["patient_id"]
    table[cohort.STUDY] = csv["patient_id"] + "-" + csv["study_number"]
    table[cohort.SITE] = [("wrist",)] * len(csv)
    table[cohort.VIEW] = [(VIEWS[p],) if p in VIEWS else () for p in csv["projection"]]
    table[cohort.SIDE] = csv["laterality"].map(SIDES)
    table[cohort.AGE] = pd.to_numeric(csv["age"])
    table[cohort.SEX] = csv["gender"]
    for flag in FLAGS:
        table[flag] = (csv[flag] == "1").astype("Int64")
    table[cohort.HARDWARE] = table.pop("metal")
    names = cohort.task("fracture").classes
    table["fracture"] = table.pop("fracture_visible").map(dict(enumerate(names)))
    for column, given in (("ao_classification",) * 2, ("device", "device_manufacturer")):
        if given in csv:
            table[column] = csv[given]

    strangers = sorted(set(pictures) - set(stems))
    if strangers:
        notes.append(
            f"{len(strangers)} image files have no row in dataset.csv and are left out, "
            f"e.g. {', '.join(strangers[:3])}."
        )
    table = datasets.keep_existing(table, missing=missing, notes=notes)
    table[cohort.MASK] = _outlines(table, boxes, notes)
    notes += _contradictions(table)
    table.attrs["notes"] = notes
    return table


def _metadata(file: Path, notes: list[str]) -> pd.DataFrame:
    csv = datasets.read_table(file, notes, dtype=str)
    missing = [c for c in (*NEEDED, *FLAGS) if c not in csv]
    problems = [f"The columns {', '.join(map(repr, missing))} are missing."] if missing else []
    # A spreadsheet that saved the file anew writes 1.0 beside empty cells.
    csv = csv.apply(lambda cells: cells.str.strip().str.replace(r"^(\d+)\.0$", r"\1", regex=True))
    allowed = dict.fromkeys(FLAGS, ("1", "0")) | {"laterality": tuple(SIDES)}
    for column, values in (allowed | {"gender": cohort.SEXES}).items():
        if column in csv:
            wrong = csv[column][csv[column].notna() & ~csv[column].isin(values)]
            if len(wrong):
                problems.append(
                    f"{len(wrong)} cells of {column!r} are not {', '.join(values)} or empty, "
                    f"e.g. {wrong.iloc[0]!r} in line {wrong.index[0] + 2}."
                )
    if not missing:
        age = pd.to_numeric(csv["age"], errors="coerce")
        wrong = csv["age"][csv["age"].notna() & age.isna()]
        if len(wrong):
            problems.append(f"{len(wrong)} cells of 'age' are not numbers, e.g. {wrong.iloc[0]!r}.")
        if csv["filestem"].isna().any():
            problems.append(f"{int(csv['filestem'].isna().sum())} cells of 'filestem' are empty.")
    datasets.refuse(problems, file)
    odd = csv["projection"][~csv["projection"].isin(list(VIEWS))]
    if len(odd):
        notes.append(f"{len(odd)} rows have a projection other than 1, 2, 3; their view is ().")
    named = csv["filestem"].str.extract(STEM)
    given = csv[["laterality", "projection", "gender"]].set_axis(named.columns, axis=1)
    differ = csv["filestem"][(named.notna() & given.notna() & (named != given)).any(axis=1)]
    if len(differ):
        notes.append(
            f"In {len(differ)} rows the name of the file gives another side, projection or sex "
            f"than the columns, e.g. {differ.iloc[0]}; the columns are kept."
        )
    return csv


def _outlines(table: pd.DataFrame, boxes: dict[str, Path], notes: list[str]) -> list:
    """Turn the fracture boxes, in shares of the image, into polygons in its pixels."""
    from PIL import Image

    cells, broken = [], []
    for stem, path in zip(table[cohort.IMAGE_ID], table[cohort.PATH], strict=True):
        polygons = []
        if stem in boxes:
            try:
                lines = [line.split() for line in boxes[stem].read_text().splitlines()]
                found = [tuple(map(float, line[1:5])) for line in lines if line]
                kinds = [int(line[0]) for line in lines if line]
                size = Image.open(path).size if FRACTURE in kinds else (0, 0)  # the header alone
                for kind, (x, y, wide, high) in zip(kinds, found, strict=True):
                    if kind == FRACTURE:
                        left, right = ((x + s * wide / 2) * size[0] for s in (-1, 1))
                        top, bottom = ((y + s * high / 2) * size[1] for s in (-1, 1))
                        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
                        polygons.append(corners)
            except (OSError, ValueError):  # ValueError: a line that is not five numbers
                broken.append(stem)
        cells.append(datasets.polygons_text(polygons) if polygons else pd.NA)
    if not boxes:
        notes.append("No yolov5/labels/: no fracture has a box.")
    if broken:
        notes.append(
            f"{len(broken)} files of boxes, or their images, can't be read: "
            f"{', '.join(broken[:3])}."
        )
    return cells


def _contradictions(table: pd.DataFrame) -> list[str]:
    intact, fractured = (table["fracture"] == name for name in cohort.task("fracture").classes)
    found = []
    if "ao_classification" in table:
        named = int((intact & table["ao_classification"].notna()).sum())
        if named:
            found.append(
                f"{named} images without a visible fracture carry an AO class: it belongs to the "
                "study. They count as intact."
            )
    boxed = table[cohort.MASK].notna()
    for which, text in (
        (intact & boxed, "images without a visible fracture have a fracture box"),
        (fractured & ~boxed, "fractured images have no box"),
    ):
        if which.any() and boxed.any():
            names = ", ".join(table.loc[which, cohort.IMAGE_ID][:3])
            found.append(f"{int(which.sum())} {text}, e.g. {names}.")
    for column, what in ((cohort.HARDWARE, "metal"), ("cast", "a cast")):
        has = table[column] == 1
        if has.any() and not has.all():
            rate, other = fractured[has].mean(), fractured[~has].mean()
            found.append(
                f"Of {int(has.sum())} images with {what} {rate:.0%} are fractured, of the others "
                f"{other:.0%}."
            )
    return found
