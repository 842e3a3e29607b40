"""LERA: radiographs of the lower limb, each case called normal or abnormal.

Source: Varma M. et al., Nature Machine Intelligence 1:578–583 (2019),
doi 10.1038/s42256-019-0126-0. Licence: research use agreement of Stanford AIMI. 182 patients, one
study each. Written from the published description and one project that reads it; not run on the
set: the spellings of the exams behind ``XR`` (HIP, KNEE, ANKLE, FOOT) are inferred.

``labels.csv`` without a header: case number, exam, 0 or 1; images in ``<case>/ST-1/*.png``.

Known faults: the label belongs to the case, so that a single image may look normal: average the
predictions of a case (``evaluation.pool``); no age, sex or side.
"""

from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

SITES = {"HIP": ("hip",), "KNEE": ("knee",), "ANKLE": ("ankle",), "FOOT": ("foot",)}


def read(root: Path, notes: list[str]) -> pd.DataFrame:
    """Read the cases and, in the folder of each, its images.

    Args:
        root: The folder ``LERA Dataset`` or the one it lies in.

    Returns:
        The cohort table with ``anomaly`` (of the case), patient, study (both the case) and site.

    Raises:
        FileNotFoundError: ``labels.csv`` is missing.
        ValueError: The table is not in the published form; all problems are listed.
    """
    file = datasets.locate(root, ("labels.csv",), inner="LERA Dataset")
    cases = _cases(file, notes)
    files = datasets.pictures(datasets.tree(file.parent, notes))
    pictures: dict[str, list[str]] = {}
    for name in files:
        pictures.setdefault(name.split("/")[0], []).append(name)
    rows = [
        (case, exam, label, name)
        for case, exam, label in cases.itertuples(index=False)
        for name in pictures.get(case, [None])
    ]
    found = pd.DataFrame(rows, columns=["case", "exam", "label", "name"], dtype="object")

    table = cohort.empty(len(found))
    table[cohort.IMAGE_ID] = found["name"].fillna(found["case"])
    table[cohort.PATH] = datasets.paths(found["name"], files)
    table[cohort.PATIENT] = table[cohort.STUDY] = found["case"]
    exams = found["exam"].str.upper().str.removeprefix("XR").str.strip(" _")
    table[cohort.SITE] = [SITES.get(exam, ()) for exam in exams]
    table["anomaly"] = found["label"].map(
        dict(zip("01", cohort.task("anomaly").classes, strict=True))
    )

    notes += datasets.counted(
        sorted(set(found["exam"][~exams.isin(list(SITES))])),
        "{n} exams have no site of the cohort: {names}.",
    )
    notes += datasets.counted(
        sorted(set(pictures) - set(cases["case"])),
        "{n} folders with pictures have no row in labels.csv and are left out, e.g. {names}.",
    )
    notes.append("The label is the case's: average the predictions of a case's images.")
    return table


def _cases(file: Path, notes: list[str]) -> pd.DataFrame:
    cells = datasets.read_table(file, notes, header=False)
    problems = [] if cells.shape[1] == 3 else [f"Expected three columns, found {cells.shape[1]}."]
    if not problems:
        cells.columns = ["case", "exam", "label"]
        cells = cells.apply(lambda column: column.str.strip())
        fit = cells["label"].isin(["0", "1"]) & cells["case"].notna() & cells["exam"].notna()
        odd = cells[~fit].agg(list, axis=1)
        problems += datasets.counted(odd, "{n} rows are no case, exam and 0 or 1, e.g. {names}.")
        again = cells["case"][cells["case"].duplicated()]
        problems += datasets.counted(again, "{n} cases occur more than once, e.g. {names}.")
    datasets.refuse(problems, file)
    return cells
