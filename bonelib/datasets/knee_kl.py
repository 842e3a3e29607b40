"""Knee radiographs graded 0–4 after Kellgren and Lawrence: the OAI's on Kaggle, or two readers'.

The OAI's, ``knee-osteoarthritis-dataset-with-severity``: ``train/3/9003175L.png``, patient number
and side in the name, the grade in the folder; 224 px cuts, some releases also 299 px. The terms are
those of the Osteoarthritis Initiative (research, with registration). ``auto_test`` holds knees of
``test`` cut by a program: they are left out where the knee is there already.

Two readers': Gornale S., Patravali P., Digital Knee X-ray Images, Mendeley Data (2020), doi
10.17632/t9ndx37v5h.1, licence CC BY 4.0: ``MedicalExpert-I/0Normal/NormalG0 (1).png``, 1,650 files
a reader.

Known faults of the latter: both folders hold the same pictures, and projects have trained on one
and tested on the other. Here a picture is one row, found by its content: reader I gives the label,
reader II stands in ``kl_grade_reader2``. 17 files are copies; some pictures show both knees; 80 are
16-bit, which naive code turns white. No patients are named.
"""

import hashlib
import re
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

GRADES = cohort.task("kl_grade").classes
READER = re.compile(r"MedicalExpert[-_ ]?(II|I)$", re.I)
KNEE = re.compile(r"(\d{7})([LR])$", re.I)
SECOND = "kl_grade_reader2"


def read(root: Path, notes: list[str]) -> pd.DataFrame:
    """Read either layout; which one is seen from the names.

    Returns:
        The cohort table with ``kl_grade``; the OAI's with patient, side and ``published_split``,
        the other with ``kl_grade_reader2``.

    Raises:
        FileNotFoundError: Neither layout is there.
    """
    files = datasets.pictures(datasets.tree(root, notes))
    graded, astray = {}, []
    for name, path in files.items():
        grade = re.match(r"(?:grade|kl)?[ _-]?([0-4])(?!\d)", path.parent.name, re.I)
        readers = [m.group(1).upper() for part in name.split("/") if (m := READER.match(part))]
        if grade and (readers or KNEE.match(path.stem)):
            graded[name] = (readers[0] if readers else "", grade.group(1), path)
        else:
            astray.append(name)
    if not graded:
        have = ", ".join(list(files)[:3]) or "no picture"
        raise FileNotFoundError(
            f"Found neither train/0/9003175L.png nor MedicalExpert-I/0Normal/… below {root} (it "
            f"holds {have}). Set DATA_ROOT to the folder above; for other trees read 'folder'."
        )
    notes += datasets.counted(
        astray,
        "{n} pictures lie in no folder of a grade 0–4, or have another kind of name, e.g. {names}; "
        "they are left out.",
    )

    two = {name: entry for name, entry in graded.items() if entry[0]}
    table = _two_readers(two, notes) if two else _oai(graded, notes)
    table[cohort.SITE] = [("knee",)] * len(table)
    table[cohort.VIEW] = [("frontal",)] * len(table)
    return table


def _oai(graded: dict[str, tuple[str, str, Path]], notes: list[str]) -> pd.DataFrame:
    rows = []
    for name, (_, grade, path) in graded.items():
        number, side = KNEE.match(path.stem).groups()
        parts = name.split("/")[:-2]  # without grade and file
        split = datasets.published_split(parts)
        edition = "/".join(part for part in parts if part.lower() not in datasets.SPLITS)
        side = {"L": "left", "R": "right"}[side.upper()]
        rows.append((name, str(path), number, side, split, grade, edition))
    frame = pd.DataFrame(
        rows, columns=["name", "path", "number", "side", "split", "grade", "edition"]
    )
    sizes = frame["edition"].value_counts()
    chosen = min(sizes.index[sizes == sizes.max()])
    if len(sizes) > 1:
        others = ", ".join(f"{name or '.'} ({n})" for name, n in sizes.items() if name != chosen)
        notes.append(
            f"The set lies there more than once; {chosen or '.'} is read, left out: {others}."
        )
        frame = frame[frame["edition"] == chosen]
    knee = frame["number"] + frame["side"]
    known = set(knee[frame["split"] != "auto_test"])
    again = (frame["split"] == "auto_test") & knee.isin(known)
    notes += datasets.counted(
        frame["name"][again],
        "{n} pictures of auto_test show knees that are there already, cut by a program; they are "
        "left out.",
    )
    frame, knee = (part[~again].reset_index(drop=True) for part in (frame, knee))
    twice = knee[knee.duplicated()].unique()
    notes += datasets.counted(twice, "{n} knees occur more than once, e.g. {names}; all are kept.")
    grades = frame.groupby(knee)["grade"].nunique()
    notes += datasets.counted(
        grades.index[grades > 1],
        "{n} knees have different grades in different files, e.g. {names}.",
    )
    table = cohort.empty(len(frame))
    columns = (cohort.IMAGE_ID, cohort.PATH, cohort.PATIENT, cohort.SIDE)
    columns += (datasets.PUBLISHED_SPLIT, "kl_grade")
    table[list(columns)] = frame[["name", "path", "number", "side", "split", "grade"]]
    return table


def _two_readers(graded: dict[str, tuple[str, str, Path]], notes: list[str]) -> pd.DataFrame:
    """Make one row of all files with the same bytes: reader I's grade, reader II's beside it."""
    pictures: dict[str, dict] = {}
    for name, (reader, grade, path) in graded.items():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        picture = pictures.setdefault(content, {"I": set(), "II": set(), "files": []})
        picture[reader].add(grade)
        picture["files"].append((reader, name, path))
    rows, torn, copies = [], [], 0
    for picture in pictures.values():
        files = sorted(picture["files"])  # reader I's come first
        grades = [picture[r].pop() if len(picture[r]) == 1 else pd.NA for r in ("I", "II")]
        torn += [files[0][1]] if picture["I"] or picture["II"] else []  # several grades are left
        copies += max(0, sum(f[0] == "I" for f in files) - 1)
        rows.append((files[0][1], str(files[0][2]), *grades))
    frame = pd.DataFrame(rows, columns=["name", "path", "first", "second"])
    table = cohort.empty(len(frame))
    table[cohort.IMAGE_ID], table[cohort.PATH] = frame["name"], frame["path"]
    table["kl_grade"], table[SECOND] = frame["first"], frame["second"]
    both = frame.dropna()
    differ = both[both["first"] != both["second"]]
    notes.append(
        f"{len(graded)} files of two readers are {len(frame)} pictures; the label is reader I's. "
        f"Of {len(both)} pictures with both grades the readers differ on {len(differ)}"
        + (f", e.g. {differ['name'].iloc[0]}." if len(differ) else ".")
    )
    if copies:
        notes.append(f"{copies} files of reader I are copies of another of his; one row each.")
    notes += datasets.counted(
        torn,
        "In {n} pictures a reader gave copies different grades, e.g. {names}; that grade is "
        "missing.",
    )
    alone = len(frame) - len(both) - len(torn)
    if alone > 0:
        notes.append(f"{alone} pictures lie in one reader's folder only.")
    return table
