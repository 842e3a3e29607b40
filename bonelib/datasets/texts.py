"""The reports of a cohort table, one row each, with what an index beside the images knows of them.

The column ``report`` of a cohort table holds the path of a text file or the text itself. The index
is ``reports.csv`` in the root: ``study`` or ``accession`` joins a row to its report and brings the
``language``; ``patient`` brings every ``name`` and the ``birth_date``. Annotated identities may lie
beside a text file under the same name (``.ann``). What is returned holds identities: it is for
memory, never for a run folder.
"""

from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

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
        patient, accession, language, birth_date`` (NA where not known) and ``names`` (a tuple).
    """
    root = Path(root)
    index = _index((root if root.is_dir() else root.parent) / "reports.csv")
    told = table[table[cohort.REPORT].notna()]
    keys = [c for c in (cohort.STUDY, "accession") if c in told]
    listed = {c: index.dropna(subset=[c]).drop_duplicates(c).set_index(c) for c in keys}
    people = dict(list(index.groupby(cohort.PATIENT)))
    rows = []
    # Two patients may have the same words in their reports.
    parts = told.groupby([cohort.REPORT, cohort.PATIENT], sort=False, dropna=False)
    for number, ((cell, patient), part) in enumerate(parts, 1):
        row = dict.fromkeys(COLUMNS, pd.NA) | part.iloc[0][keys].to_dict()
        for key in keys:
            if row[key] in listed[key].index:
                row |= listed[key].loc[row[key]].reindex(["accession", "language"]).dropna()
        who = people.get(patient, index.head(0))
        row["names"] = tuple(who["name"].dropna().unique())
        row["birth_date"] = next(iter(who["birth_date"].dropna()), pd.NA)
        text, annotation = _text(str(cell))
        row |= {"report": f"r{number:05d}", "text": text, "annotation": annotation}
        rows.append(row | {cohort.PATIENT: patient, "images": tuple(part[cohort.IMAGE_ID])})
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="object")


def _index(file: Path) -> pd.DataFrame:
    columns = (cohort.STUDY, "accession", cohort.PATIENT, "language", "name", "birth_date")
    cells = datasets.read_table(file, [], dtype=str) if file.is_file() else pd.DataFrame()
    return cells.reindex(columns=list(columns))


def _text(cell: str) -> tuple[str | bytes, object]:
    """Return what a cell holds or leads to, and the annotation beside a file."""
    if "\n" in cell or not (cell.endswith(".txt") and Path(cell).is_file()):
        return cell, pd.NA
    beside = Path(cell).with_suffix(".ann")
    annotation = beside.read_text(encoding="utf-8") if beside.is_file() else pd.NA
    return Path(cell).read_bytes(), annotation
