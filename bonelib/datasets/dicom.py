"""A hospital's export: a tree of DICOM files or a DICOMDIR, with reports and labels beside it.

Source, licence and labels are those of whoever exported it. Patients, studies, dates, views, sides,
ages and sexes come from the headers where they stand; what is no radiograph, a copy, or broken is
named and left out. Two files may lie in the root:

- ``reports.csv`` with ``accession``, or ``patient`` and ``date``, and ``text`` or the ``path`` of a
  text file below the root: joined by accession number, else by patient and date;
- ``labels.csv`` with a column per task and one of ``image_id``, ``accession``, ``patient``; beside
  ``image_id``, ``patient`` replaces the header's: an export may name all alike.

Known faults of such exports: body parts are named freely or not at all ("EXTREMITY"); sides stand
in either of two elements; a report may belong to several studies; the same instance comes twice.
"""

import re
from functools import cache
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets, dicom, tables
from bonelib.datasets import patients
from bonelib.datasets import table as own_csv

BESIDE = ("reports", "labels")
RAW = "the raw picture (FOR PROCESSING) of an exposure whose processed picture is there too"


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
    files.loc[superseded(files), "reason"] = RAW
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
        notes.append(f"{len(names)} files: {note}, e.g. {', '.join(names[:3])}.")
    burned = found.loc[found["burned_in"] == "YES", "file"]
    notes += datasets.counted(burned, "{n} headers say that text is burnt in, e.g. {names}.")
    unknown = sorted({p for p in found["body_part"].dropna() if not _site(p)})
    notes += datasets.counted(unknown, "{n} body parts have no site of the cohort, e.g. {names}.")
    folder = root if root.is_dir() else root.parent
    table = _with_labels(_with_reports(table, folder, notes), folder, notes)
    table.attrs["refused"] = refused.to_dict("records")
    return table


def superseded(files: pd.DataFrame) -> list[int]:
    """Find raw pictures whose exposure is there as a processed picture as well: their rows.

    One exposure: the processed picture names the raw one in its Source Image Sequence, or both
    have one Irradiation Event UID, or one patient, study, view, side and second of acquisition.
    Acquisition Number is not asked: many machines write 1 in all.
    """
    good = files[files["reason"].isna()]
    shown, raw = good[good["raw"].eq(False)], good[good["raw"].eq(True)]
    sources = set(shown["sources"].explode().dropna())
    events = set(shown["event"].dropna())
    same = ["patient", "study", "acquired", "view", "side"]
    moments = set(shown.dropna(subset=["study", "acquired"])[same].itertuples(index=False))
    return [
        row.Index
        for row in raw.itertuples()
        if row.instance in sources
        or row.event in events
        or tuple(getattr(row, name) for name in same) in moments
    ]


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


def _with_reports(table: pd.DataFrame, folder: Path, notes: list[str]) -> pd.DataFrame:
    """Join ``reports.csv`` by accession number, else by patient and date; never by a guess."""
    file = tables.beside(folder, BESIDE[0])
    if not file.is_file():
        notes.append("There is no reports.csv: no radiograph has a report.")
        return table
    cells = tables.read(file, notes)
    problems = []
    if not {"text", "path"} & set(cells):
        problems.append("It needs a column 'text', or 'path' of text files.")
    if "accession" not in cells and not {"patient", "date"} <= set(cells):
        problems.append("It needs a column 'accession', or 'patient' and 'date'.")
    datasets.refuse(problems, file, cure="Add the columns.")
    cells = cells.reindex(columns=["accession", "patient", "date", "text", "path"])
    odd: dict[str, list[str]] = {}
    texts = [_text(folder, row, odd) for row in cells.itertuples()]
    for what, names in odd.items():
        notes.append(f"{len(names)} reports, e.g. {names[0]}: {what}")
    dates = tables.dates(cells["date"], notes, where=f"{file.name}, date")
    keys: dict[tuple, dict[str, int]] = {}
    for number, (row, date, text) in enumerate(zip(cells.itertuples(), dates, texts, strict=True)):
        if text is None:
            continue
        if pd.notna(row.accession):
            keys.setdefault(("accession", patients.key(row.accession)), {})[text] = number
        if pd.notna(row.patient) and pd.notna(date):
            keys.setdefault(("visit", patients.key(row.patient), date), {})[text] = number
    reports, used, unclear = [], set(), []
    for row in table.itertuples():
        visit = ("visit", patients.key(row.patient), row.date)
        choice = keys.get(("accession", patients.key(row.accession))) or keys.get(visit)
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


def _text(folder: Path, row: tuple, odd: dict[str, list[str]]) -> str | None:
    """Return the report of a row; ``odd`` gains its path under what is odd about it."""
    if pd.notna(row.text) or pd.isna(row.path):
        return row.text if pd.notna(row.text) else None
    path, text = (folder / row.path).resolve(), None
    if not path.is_relative_to(folder.resolve()):
        what = "it lies outside the folder and is not read."
    elif not path.is_file():
        what = "there is no such file."
    else:
        try:
            text, what = tables.decode(path.read_bytes())
        except ValueError as error:
            what = str(error)
    if what:
        odd.setdefault(what, []).append(row.path)
    return text


def _with_labels(table: pd.DataFrame, folder: Path, notes: list[str]) -> pd.DataFrame:
    """Join ``labels.csv`` by the first of its keys; a key that says two things says nothing."""
    file = tables.beside(folder, BESIDE[1])
    if not file.is_file():
        return table
    cells = tables.read(file, notes)
    keys = [k for k in (cohort.IMAGE_ID, "accession", cohort.PATIENT) if k in cells]
    names = [task.column for task in cohort.TASKS.values() if task.column in cells]
    problems = [] if keys else ["It needs a column image_id, accession or patient."]
    problems += [] if names else [f"It has no column of a task ({', '.join(cohort.TASKS)})."]
    datasets.refuse(problems, file, cure="Add the columns.")
    for name in names:
        cells[name] = own_csv.labels(cells[name], cohort.task(name), problems, notes)
    datasets.refuse(problems, file, cure="Correct these lines and read it again.")
    key = keys[0]
    if key == cohort.IMAGE_ID and cohort.PATIENT in cells:
        table = _with_patients(table, cells, notes)
    equal = patients.key if key != cohort.IMAGE_ID else str
    cells[key], joined = (part[key].map(equal, na_action="ignore") for part in (cells, table))
    groups = cells.dropna(subset=[key]).groupby(key)[names]
    unclear = groups.nunique().max(axis=1)
    torn = set(unclear.index[unclear > 1])
    labels = groups.first().drop(index=list(torn))
    for name in names:
        table[name] = joined.map(labels[name])
    text = f"{{n}} values of {key} have contradicting labels and have none."
    notes += datasets.counted(torn, text)
    strange = set(labels.index) - set(joined.dropna())
    notes += datasets.counted(strange, "{n} rows of labels.csv belong to no radiograph here.")
    return table


def _with_patients(table: pd.DataFrame, cells: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Take the patients that ``labels.csv`` names for images, where the headers name another."""
    told = cells.dropna(subset=[cohort.IMAGE_ID]).drop_duplicates(cohort.IMAGE_ID)
    told = table[cohort.IMAGE_ID].map(told.set_index(cohort.IMAGE_ID)[cohort.PATIENT])
    changed = told.notna() & (told != table[cohort.PATIENT].astype("object"))
    notes += datasets.counted(
        table.loc[changed, cohort.IMAGE_ID],
        "{n} radiographs have their patient from labels.csv, not from the header, e.g. {names}.",
    )
    return table.assign(**{cohort.PATIENT: told.where(changed, table[cohort.PATIENT])})
