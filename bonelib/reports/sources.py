"""Where reports come from: a folder of text files, a column of a CSV or Parquet table.

Read one at a time, so that 100,000 reports need the memory of one. What an index knows of a report
(``report, patient, name, birth_date, accession``) stands in the table itself or in a CSV beside.
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".txt", ".text", ".html", ".htm", ".rtf")
INDEX = ("report", "patient", "name", "birth_date", "accession")


@dataclass(frozen=True)
class PatientIndex:
    """What an index or the DICOM header says of the patient of a report.

    Attributes:
        names: Of the patient, in any order; the carets of DICOM names are read as spaces.
        others: Names of doctors and relatives. birth: Birth date. ids: Record numbers.
    """

    names: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    birth: date | None = None
    ids: tuple[str, ...] = ()


class Source(NamedTuple):
    """One report: its name, its text or bytes, what names its patient, what is known of him."""

    name: str
    text: str | bytes
    patient: str
    index: PatientIndex
    row: dict[str, str]


def read(path: Path, *, column: str = "text", index: Path | None = None) -> Iterator[Source]:
    """Yield the reports under ``path``, in order.

    A report whose patient no index names stands for its own patient.

    Args:
        path: A folder (its text files, at any depth), or a ``.csv`` or ``.parquet`` file.
        column: The column of a table that holds the reports.
        index: CSV with the columns of ``INDEX`` that are known; ``report`` is the file name without
            its suffix, or the row's ``report``.

    Raises:
        FileNotFoundError: Nothing there. ValueError: No such column, or another kind of file.
    """
    indexed = _index(index) if index else {}
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not files:
            raise FileNotFoundError(f"No report ({', '.join(SUFFIXES)}) under {path}.")
        for file in files:
            row = indexed.get(file.stem, {})
            yield _source(file.relative_to(path).as_posix(), file.read_bytes(), row)
        return
    if not path.exists():
        raise FileNotFoundError(f"{path} is no folder and no file.")
    for number, row in enumerate(_rows(path, column)):
        name = row.get("report") or str(number)
        text = row.get(column)
        yield _source(name, "" if text is None else str(text), {**indexed.get(name, {}), **row})


def _source(name: str, text: str | bytes, row: dict[str, str]) -> Source:
    names = tuple(n for n in (row.get("name"),) if n)
    ids = tuple(n for n in (row.get("accession"), row.get("patient")) if n and _searchable(n))
    try:
        birth = date.fromisoformat(str(row.get("birth_date") or "")[:10])
    except ValueError:
        birth = None
    index = PatientIndex(names=tuple(map(str, names)), birth=birth, ids=tuple(map(str, ids)))
    return Source(name, text, str(row.get("patient") or name), index, row)


def _searchable(value: str) -> bool:
    """Whether a number is long enough to be searched for: "12" stands in every report."""
    return sum(map(str.isalnum, str(value))) > 4


def _index(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if "report" not in (rows.fieldnames or ()):
            raise ValueError(f"{path} lacks the column 'report'; an index has {', '.join(INDEX)}.")
        return {row["report"]: {k: row[k] for k in INDEX if row.get(k)} for row in rows}


def _rows(path: Path, column: str) -> Iterator[dict[str, str]]:
    if path.suffix == ".csv":
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses long reports
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.DictReader(file)
            _check(column, rows.fieldnames or (), path)
            yield from rows
    elif path.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            _check(column, file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    else:
        raise ValueError(f"{path.name} is neither a folder nor a .csv or .parquet file.")


def _check(column: str, names: list[str], path: Path) -> None:
    if column not in names:
        raise ValueError(f"{path.name} has no column {column!r}; it has {', '.join(names)}.")
