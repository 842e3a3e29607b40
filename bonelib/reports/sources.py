"""Where reports come from: a folder of text files, a column of a CSV or Parquet table.

Read one at a time, so that 100,000 reports need the memory of one. What an index knows of a report
(``report, patient, name, birth_date, accession, language``) stands in the table itself or in a CSV
beside.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

from bonelib import tables

SUFFIXES = (".txt", ".text", ".html", ".htm", ".rtf")
INDEX = ("report", "patient", "name", "birth_date", "accession", "language")


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


def read(
    path: Path,
    *,
    column: str = "text",
    index: Path | None = None,
    notes: list[str] | None = None,
) -> Iterator[Source]:
    """Yield the reports under ``path``, in order.

    A report whose patient no index names stands for its own patient.

    Args:
        path: A folder (its text files, at any depth), or a ``.csv`` or ``.parquet`` file.
        column: The column of a table that holds the reports.
        index: CSV with the columns of ``INDEX`` that are known; ``report`` is the file name without
            its suffix, or the row's ``report``.
        notes: Gains what was assumed of the tables (``tables.read``); complete at the end.

    Raises:
        FileNotFoundError: Nothing there. ValueError: No such column, or another kind of file.
    """
    notes = [] if notes is None else notes
    indexed = _index(index, notes) if index else {}
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not files:
            raise FileNotFoundError(f"No report ({', '.join(SUFFIXES)}) under {path}.")
        for file in files:
            row = indexed.get(file.stem, indexed.get(file.name, {}))
            yield _source(file.relative_to(path).as_posix(), file.read_bytes(), row)
        names = {name for file in files for name in (file.stem, file.name)}
        notes += _strangers(indexed, names, index)
        return
    if not path.exists():
        raise FileNotFoundError(f"{path} is no folder and no file.")
    lost, names = 0, set()
    for number, row in enumerate(_rows(path, column, notes)):
        name = row.get("report") or str(number)
        names.add(name)
        text = row.get(column)
        one = _source(name, "" if text is None else str(text), {**indexed.get(name, {}), **row})
        lost += bool(one.row.get("birth_date")) and one.index.birth is None
        yield one
    if lost:
        notes.append(f"{path.name}, birth_date: {lost} dates were not understood.")
    notes += _strangers(indexed, names, index)


def _strangers(indexed: dict[str, dict], names: set[str], index: Path | None) -> list[str]:
    """Say how many rows of an index belong to no report: their names are looked for nowhere."""
    lost = len(set(indexed) - names)
    text = f"{lost} of {len(indexed)} rows belong to no report here: compare the column 'report'."
    return [f"{index.name}: {text}"] if lost else []


def _source(name: str, text: str | bytes, row: dict[str, str]) -> Source:
    names = tuple(n for n in (row.get("name"),) if n)
    ids = tuple(n for n in (row.get("accession"), row.get("patient")) if n and _searchable(n))
    birth = tables.parse_date(str(row.get("birth_date") or ""))
    birth = date.fromisoformat(birth) if birth else None
    index = PatientIndex(names=tuple(map(str, names)), birth=birth, ids=tuple(map(str, ids)))
    return Source(name, text, str(row.get("patient") or name), index, row)


def _searchable(value: str) -> bool:
    """Whether a number is long enough to be searched for: "12" stands in every report."""
    return sum(map(str.isalnum, str(value))) > 4


def _index(path: Path, notes: list[str]) -> dict[str, dict[str, str]]:
    rows = tables.read(path, notes)
    if "report" not in rows:
        raise ValueError(f"{path} lacks the column 'report'; an index has {', '.join(INDEX)}.")
    if "birth_date" in rows:
        dates = tables.dates(rows["birth_date"], notes, where=f"{path.name}, birth_date")
        rows["birth_date"] = dates
    rows = rows.dropna(subset="report").reindex(columns=list(INDEX)).astype("object")
    return {
        row["report"]: {k: v for k, v in row.items() if v == v} for row in rows.to_dict("records")
    }


def _rows(path: Path, column: str, notes: list[str]) -> Iterator[dict[str, str]]:
    if path.suffix in (".csv", ".tsv", ".xlsx"):
        yield from (row for _, row in tables.rows(path, notes, needed=(column,)))
    elif path.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            _check(column, file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    else:
        raise ValueError(f"{path.name} is neither a folder nor a .csv, .xlsx or .parquet file.")


def _check(column: str, names: list[str], path: Path) -> None:
    if column not in names:
        raise ValueError(f"{path.name} has no column {column!r}; it has {', '.join(names)}.")
