"""The reports of a cohort table, one row each, with what an index beside the images knows of them.

The column ``report`` of a cohort table holds the path of a text file or the text itself. The index
is ``reports.csv`` in the root: ``study`` or ``accession`` joins a row to its report and brings the
``language``; ``patient`` brings every ``name`` and the ``birth_date``. Annotated identities may lie
beside a text file under the same name (``.ann``). What is returned holds identities: it is for
memory, never for a run folder.
"""

from pathlib import Path

import pandas as pd

from bonelib import cohort, tables
from bonelib.datasets import patients

COLUMNS = (
    "report", "text", "annotation", "images", cohort.STUDY, cohort.PATIENT, "accession",
    "language", "names", "birth_date",
)  # fmt: skip


def report_texts(table: pd.DataFrame, root: str | Path) -> pd.DataFrame:
    """Return one row a report of the table.

    Args:
        table: A cohort table; rows without a report are passed over.
        root: The folder of the data set, or a DICOMDIR in it.

    Returns:
        ``report`` (a number, as file names can name people), ``text`` (bytes of a file, else str),
        ``annotation`` (BRAT lines, NA where there are none), ``images`` (their ids), ``study,
        patient, accession, language, birth_date`` (YYYY-MM-DD, NA where not known) and ``names`` (a
        tuple). ``attrs["notes"]`` says what was assumed of the index.
    """
    root = Path(root)
    notes: list[str] = []
    index = _index(tables.beside(root if root.is_dir() else root.parent, "reports"), notes)
    told = table[table[cohort.REPORT].notna()]
    keys = [c for c in (cohort.STUDY, "accession") if c in told]
    listed, people = {key: _listed(index, key) for key in keys}, _people(index)
    rows: dict[tuple, dict] = {}
    wanted = [cohort.IMAGE_ID, cohort.REPORT, cohort.PATIENT, *keys]
    for image in told[wanted].to_dict("records"):  # a table is too slow for 100,000 look-ups
        image_id, cell, patient = (image.pop(c) for c in wanted[:3])
        # Two patients may have the same words in their reports.
        place = (cell, "" if pd.isna(patient) else patient)
        if place in rows:
            rows[place]["images"] += (image_id,)
            continue
        row = dict.fromkeys(COLUMNS, pd.NA) | image
        for key in keys:
            row |= listed[key].get(row[key], {})
        row |= people.get("" if pd.isna(patient) else patients.key(patient), {"names": ()})
        text, annotation = _text(str(cell))
        row |= {"report": f"r{len(rows) + 1:05d}", "text": text, "annotation": annotation}
        rows[place] = row | {cohort.PATIENT: patient, "images": (image_id,)}
    found = pd.DataFrame(rows.values(), columns=list(COLUMNS), dtype="object")
    found.attrs["notes"] = notes
    return found


def _index(file: Path, notes: list[str]) -> pd.DataFrame:
    columns = (cohort.STUDY, "accession", cohort.PATIENT, "language", "name", "birth_date")
    cells = tables.read(file, notes) if file.is_file() else pd.DataFrame()
    cells = cells.reindex(columns=list(columns))
    cells["birth_date"] = tables.dates(cells["birth_date"], notes, where=f"{file.name}, birth_date")
    return cells


def _listed(index: pd.DataFrame, key: str) -> dict[str, dict[str, str]]:
    """Return what the index says of a report by study or accession; of several rows the first."""
    brought = [c for c in ("accession", "language") if c != key]
    known = index.dropna(subset=[key]).drop_duplicates(key)
    return {
        row[key]: {c: row[c] for c in brought if pd.notna(row[c])}
        for row in known.to_dict("records")
    }


def _people(index: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Return every name of a patient, and the first birth date that is noted."""
    people: dict[str, dict[str, object]] = {}
    for row in index.dropna(subset=[cohort.PATIENT]).to_dict("records"):
        key = patients.key(row[cohort.PATIENT])
        who = people.setdefault(key, {"names": (), "birth_date": pd.NA})
        if pd.notna(row["name"]) and row["name"] not in who["names"]:
            who["names"] += (row["name"],)
        if pd.isna(who["birth_date"]) and pd.notna(row["birth_date"]):
            who["birth_date"] = row["birth_date"]
    return people


def _text(cell: str) -> tuple[str | bytes, object]:
    """Return what a cell holds or leads to, and the annotation beside a file."""
    if "\n" in cell or not (cell.endswith(".txt") and Path(cell).is_file()):
        return cell, pd.NA
    beside = Path(cell).with_suffix(".ann")
    annotation = beside.read_text(encoding="utf-8") if beside.is_file() else pd.NA
    return Path(cell).read_bytes(), annotation
