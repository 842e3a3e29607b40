"""A hospital's export: a tree of DICOM files or a DICOMDIR, with reports and labels beside it.

Source, licence and labels are those of whoever exported it. Patients, studies, dates, views, sides,
ages and sexes come from the headers where they stand; what is no radiograph, a copy, or broken is
named and left out. Two files may lie in the root:

- ``reports.csv`` with ``accession``, or ``patient`` and ``date``, and ``text`` or the ``path`` of a
  text file below the root: joined by accession number, else by patient and date;
- ``labels.csv`` with a column per task and one of ``image_id``, ``accession``, ``patient``.

Known faults of such exports: body parts are named freely or not at all ("EXTREMITY"); sides stand
in either of two elements; a report may belong to several studies; the same instance comes twice.
"""

import re
from functools import cache
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets, dicom

BESIDE = ("reports.csv", "labels.csv")


def read(root: Path, notes: list[str]) -> pd.DataFrame:
    """Read the headers of an export.

    Args:
        root: The folder, or a DICOMDIR in it.

    Returns:
        The cohort table with ``series``, ``instance``, ``accession``, ``date`` (YYYY-MM-DD),
        ``body_part``, ``spacing_mm`` and what ``labels.csv`` holds; ``image_id`` is the path below
        the root, ``center`` the institution. ``attrs["refused"]`` lists ``file`` and ``reason`` of
        what was left out.

    Raises:
        FileNotFoundError: There is no radiograph.
        ValueError: ``reports.csv`` or ``labels.csv`` can't be used; all problems are listed.
    """
    files, odd = dicom.walk(root)
    notes += odd
    refused = files.loc[files["reason"].notna(), ["file", "reason"]].reset_index(drop=True)
    for reason, names in refused.groupby("reason")["file"]:
        notes.append(f"{len(names)} files are left out, e.g. {names.iloc[0]}: {reason}.")
    found = files[files["reason"].isna()].reset_index(drop=True)
    if found.empty:
        raise FileNotFoundError(
            f"{len(refused)} of {len(files)} files in {root} are no radiographs that can be read"
            + "".join(f"\n  - {note}" for note in notes)
        )

    table = cohort.empty(len(found))
    table[cohort.IMAGE_ID], table[cohort.PATH] = found["file"], found["path"]
    drawn = found["manufacturer"].eq("Synthetic")  # what the phantom's export says of itself
    table[cohort.SOURCE] = drawn.map({True: "phantom", False: "dicom"})
    if drawn.any():
        notes.append(f"{int(drawn.sum())} of {len(found)} radiographs say that they are synthetic.")
    table[cohort.PATIENT] = _patients(found)
    for column, given in ((cohort.STUDY, "study"), (cohort.CENTER, "institution")):
        table[column] = found[given].astype("object").where(found[given].notna(), pd.NA)
    table[cohort.SITE] = [_site(part) for part in found["body_part"]]
    table[cohort.VIEW] = [(view,) if isinstance(view, str) else () for view in found["view"]]
    table[cohort.SIDE], table[cohort.SEX] = found["side"], found["sex"]
    age = pd.to_numeric(found["age"], errors="coerce")
    table[cohort.AGE] = age.where(age.between(0, 120))
    for column in ("series", "instance", "accession", "body_part"):
        table[column] = found[column]
    table["date"] = [
        f"{d[:4]}-{d[4:6]}-{d[6:]}" if isinstance(d, str) else pd.NA for d in found["date"]
    ]
    table["spacing_mm"] = [s[0] if isinstance(s, tuple) else pd.NA for s in found["spacing"]]

    told = found[["file", "notes"]].explode("notes").dropna()
    for note, names in told.groupby("notes")["file"]:
        notes.append(f"{len(names)} files: {note}, e.g. {names.iloc[0]}.")
    burned = found.loc[found["burned_in"] == "YES", "file"]
    notes += datasets.counted(burned, "{n} headers say that text is burnt in, e.g. {names}.")
    unknown = sorted({p for p in found["body_part"].dropna() if not _site(p)})
    notes += datasets.counted(unknown, "{n} body parts have no site of the cohort, e.g. {names}.")
    folder = root if root.is_dir() else root.parent
    table = _with_labels(_with_reports(table, folder, notes), folder, notes)
    table.attrs["refused"] = refused.to_dict("records")
    return table


def _patients(found: pd.DataFrame) -> list:
    """Name patients by id, and by its issuer where the export has several."""
    issuers = found["issuer"].dropna().nunique() > 1
    return [
        pd.NA if pd.isna(p) else f"{p}@{i}" if issuers and pd.notna(i) else p
        for p, i in zip(found["patient"], found["issuer"], strict=True)
    ]


@cache
def _body_parts() -> dict[str, set[str]]:
    """Return the sites of each Body Part Examined (PS3.16 Annex L, and what machines write)."""
    rows = pd.read_csv(Path(__file__).with_name("body_parts.csv"), dtype=str)
    return rows.groupby("body_part")["site"].agg(set).to_dict()


def _site(part: str | None) -> tuple[str, ...]:
    if not isinstance(part, str):
        return ()
    words = {re.sub(r"[^A-Z]", "", part.upper()), *re.findall(r"[A-Z]+", part.upper())}
    return tuple(sorted(set().union(*(_body_parts().get(word, ()) for word in words))))


def _date(cell: str | None) -> str | None:
    """Write a date as YYYY-MM-DD; None where it is neither ISO's nor DICOM's."""
    match = re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ].*)?", cell.strip()) if cell else None
    return "-".join(match.groups()) if match else None


def _cells(file: Path, notes: list[str]) -> pd.DataFrame:
    cells = datasets.read_table(file, notes, dtype=str)
    cells = cells.apply(lambda column: column.str.strip())
    return cells.mask(cells == "")


def _with_reports(table: pd.DataFrame, folder: Path, notes: list[str]) -> pd.DataFrame:
    """Join ``reports.csv`` by accession number, else by patient and date; never by a guess."""
    file = folder / BESIDE[0]
    if not file.is_file():
        notes.append("There is no reports.csv: no radiograph has a report.")
        return table
    cells = _cells(file, notes)
    problems = []
    if not {"text", "path"} & set(cells):
        problems.append("It needs a column 'text', or 'path' of text files.")
    if "accession" not in cells and not {"patient", "date"} <= set(cells):
        problems.append("It needs a column 'accession', or 'patient' and 'date'.")
    datasets.refuse(problems, file, cure="Add the columns.")
    cells = cells.reindex(columns=["accession", "patient", "date", "text", "path"])
    texts = [_text(folder, row, notes) for row in cells.itertuples()]
    dates = [_date(cell) if pd.notna(cell) else None for cell in cells["date"]]
    odd = [
        cell for cell, date in zip(cells["date"], dates, strict=True) if pd.notna(cell) and not date
    ]
    notes += datasets.counted(odd, "{n} dates of reports are not YYYY-MM-DD, e.g. {names}.")
    keys: dict[tuple, dict[str, int]] = {}
    for number, (row, date, text) in enumerate(zip(cells.itertuples(), dates, texts, strict=True)):
        if text is None:
            continue
        if pd.notna(row.accession):
            keys.setdefault(("accession", row.accession), {})[text] = number
        if pd.notna(row.patient) and date:
            keys.setdefault(("visit", row.patient, date), {})[text] = number
    reports, used, unclear = [], set(), []
    for row in table.itertuples():
        choice = keys.get(("accession", row.accession)) or keys.get(
            ("visit", row.patient, row.date)
        )
        if choice and len(choice) > 1:
            unclear.append(row.image_id)
        one = next(iter(choice.items())) if choice and len(choice) == 1 else (pd.NA, None)
        reports.append(one[0])
        used |= set() if one[1] is None else {one[1]}
    table[cohort.REPORT] = reports
    joined = int(table[cohort.REPORT].notna().sum())
    notes.append(f"{joined} of {len(table)} radiographs have a report, {len(used)} reports in use.")
    left = sum(text is not None for text in texts) - len(used)
    if left:
        notes.append(f"{left} reports belong to no radiograph here, or to none for certain.")
    notes += datasets.counted(
        unclear,
        "{n} radiographs fit several reports of one accession or day and have none, e.g. {names}.",
    )
    return table


def _text(folder: Path, row: tuple, notes: list[str]) -> str | None:
    if pd.notna(row.text):
        return row.text
    if pd.isna(row.path):
        return None
    path = (folder / row.path).resolve()
    if not path.is_relative_to(folder.resolve()):
        notes.append(f"The report {row.path} lies outside the folder and is not read.")
        return None
    if not path.is_file():
        notes.append(f"There is no report {row.path}.")
        return None
    return datasets.text_of(path, notes)


def _with_labels(table: pd.DataFrame, folder: Path, notes: list[str]) -> pd.DataFrame:
    """Join ``labels.csv`` by the first of its keys; a key that says two things says nothing."""
    file = folder / BESIDE[1]
    if not file.is_file():
        return table
    cells = _cells(file, notes)
    keys = [k for k in (cohort.IMAGE_ID, "accession", cohort.PATIENT) if k in cells]
    names = [task.column for task in cohort.TASKS.values() if task.column in cells]
    problems = [] if keys else ["It needs a column image_id, accession or patient."]
    problems += [] if names else [f"It has no column of a task ({', '.join(cohort.TASKS)})."]
    datasets.refuse(problems, file, cure="Add the columns.")
    key = keys[0]
    groups = cells.dropna(subset=[key]).groupby(key)[names]
    unclear = groups.nunique().max(axis=1)
    torn = set(unclear.index[unclear > 1])
    labels = groups.first().drop(index=list(torn))
    for name in names:
        values = (
            pd.to_numeric(labels[name]) if cohort.task(name).kind == "regression" else labels[name]
        )
        table[name] = table[key].map(values)
    text = f"{{n}} values of {key} have contradicting labels and have none."
    notes += datasets.counted(torn, text)
    strange = set(labels.index) - set(table[key].dropna())
    notes += datasets.counted(strange, "{n} rows of labels.csv belong to no radiograph here.")
    return table
