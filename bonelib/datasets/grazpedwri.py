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
from bonelib.datasets import outlines

VIEWS = {"1": "frontal", "2": "lateral", "3": "oblique"}
SIDES = {"L": "left", "R": "right"}
FLAGS = ("initial_exam", "cast", "diagnosis_uncertain", "osteopenia", "fracture_visible", "metal")
NEEDED = ("filestem", "patient_id", "study_number", "gender", "age", "laterality", "projection")
FRACTURE = (
    "3",
    "fracture",
)  # of boneanomaly, bonelesion, foreignbody, fracture, metal, periostealreaction, …
STEM = re.compile(r"\d+_\d+_\d+_WRI-([LR])(\d)_([MFO])\d+$")


def read(root: Path, notes: list[str]) -> pd.DataFrame:
    """Read ``dataset.csv`` with the images, and the boxes where they lie, anywhere below it.

    Returns:
        The cohort table with ``fracture`` (fractured where one is visible), ``hardware`` (metal),
        patient, study, side, view, age, sex, the flags ``cast``, ``osteopenia``, … as 0/1,
        ``ao_classification``, ``device``, and in ``mask`` the fracture boxes as polygons.

    Raises:
        FileNotFoundError: No ``dataset.csv`` is there.
        ValueError: Columns or values are not those of the release; all problems are listed.
    """
    file = datasets.locate(root, ("dataset.csv",), inner="GRAZPEDWRI-DX")
    csv = _metadata(file, notes)
    files = datasets.tree(file.parent, notes)
    pictures = {path.stem: path for path in reversed(datasets.pictures(files).values())}
    boxes = {
        path.stem: path
        for kind in ((".xml", "pascalvoc"), (".txt", "labels"))  # the latter is finer
        for path in reversed(files.values())
        if (path.suffix, path.parent.name) == kind
    }
    stems = csv["filestem"]

    table = cohort.empty(len(csv))
    table[cohort.IMAGE_ID] = stems
    table[cohort.PATH] = datasets.paths(stems, pictures)
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

    notes += datasets.counted(sorted(set(pictures) - set(stems)), datasets.NO_ROW)
    table[cohort.MASK] = _outlines(table, boxes, notes)
    notes += _contradictions(datasets.with_file(table))
    return table


def _metadata(file: Path, notes: list[str]) -> pd.DataFrame:
    csv = datasets.read_table(file, notes)
    problems = datasets.lacking(csv, (*NEEDED, *FLAGS))
    datasets.refuse(problems, file)
    # A spreadsheet that saved the file anew writes 1.0 beside empty cells.
    csv = csv.apply(lambda cells: cells.str.strip().str.replace(r"^(\d+)\.0$", r"\1", regex=True))
    allowed = dict.fromkeys(FLAGS, ("1", "0")) | {"laterality": tuple(SIDES)}
    for column, values in (allowed | {"gender": cohort.SEXES}).items():
        fit = csv[column].isna() | csv[column].isin(values)
        problems += datasets.misfits(csv[column], fit, f"{', '.join(values)} or nothing")
    number = pd.to_numeric(csv["age"], errors="coerce").notna()
    problems += datasets.misfits(csv["age"], number | csv["age"].isna(), "a number")
    problems += datasets.misfits(csv["filestem"], csv["filestem"].notna(), "a name")
    datasets.refuse(problems, file)
    odd = csv.loc[~csv["projection"].isin(list(VIEWS)), "filestem"]
    notes += datasets.counted(
        odd, "{n} rows have a projection other than 1, 2, 3; their view is ()."
    )
    named = csv["filestem"].str.extract(STEM)
    given = csv[["laterality", "projection", "gender"]].set_axis(named.columns, axis=1)
    differ = csv["filestem"][(named.notna() & given.notna() & (named != given)).any(axis=1)]
    notes += datasets.counted(
        differ,
        "In {n} rows the name of the file gives another side, projection or sex than the columns, "
        "e.g. {names}; the columns are kept.",
    )
    return csv


def _outlines(table: pd.DataFrame, boxes: dict[str, Path], notes: list[str]) -> list:
    """Turn the boxes of fractures into polygons in pixels of the image."""
    cells, broken = [], {}
    for stem, path in zip(table[cohort.IMAGE_ID], table[cohort.PATH], strict=True):
        cell = None
        if stem in boxes and pd.notna(path):
            try:
                shapes = outlines.read_file(boxes[stem], path)
                cell = outlines.cell(shape for shape in shapes if shape.label in FRACTURE)
            except (OSError, ValueError) as error:  # OSError: the size of the image
                broken[stem] = str(error)
        cells.append(cell or pd.NA)
    if not boxes:
        notes.append("No yolov5/labels/ and no pascalvoc/: no fracture has a box.")
    text = "{n} files of boxes, or their images, can't be read: {names}."
    notes += datasets.counted(broken, text)
    return cells


def _contradictions(table: pd.DataFrame) -> list[str]:
    intact, fractured = (table["fracture"] == name for name in cohort.task("fracture").classes)
    ids, boxed = table[cohort.IMAGE_ID], table[cohort.MASK].notna()
    classed = table.get("ao_classification", pd.Series(pd.NA, table.index)).notna()
    found = datasets.counted(
        ids[intact & classed],
        "{n} images without a visible fracture carry an AO class: it belongs to the study. They "
        "count as intact.",
    )
    for which, text in (
        (intact & boxed, "images without a visible fracture have a fracture box"),
        (fractured & ~boxed & boxed.any(), "fractured images have no box"),
    ):
        found += datasets.counted(ids[which], f"{{n}} {text}, e.g. {{names}}.")
    for column, what in ((cohort.HARDWARE, "metal"), ("cast", "a cast")):
        has = table[column] == 1
        if has.any() and not has.all():
            rate, other = fractured[has].mean(), fractured[~has].mean()
            found.append(
                f"Of {int(has.sum())} images with {what} {rate:.0%} are fractured, of the others "
                f"{other:.0%}."
            )
    return found
