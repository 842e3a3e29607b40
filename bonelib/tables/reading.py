"""Rows of a CSV or an Excel sheet, each with its line: separator and decimal sign are found."""

import csv
import io
import itertools
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bonelib.tables.letters import Encoding, encoding, mended

if TYPE_CHECKING:
    import pandas as pd

# A header that could be parted by two of them is parted by the first here.
SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}
# What pandas takes for missing in a CSV.
MISSING = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|"
    "null|".split("|")
)
TEXTS = ("image_id", "path", "patient", "study", "accession", "report", "text")  # never numbers
SAMPLE = 50  # rows by which the separator is found
END = "\x1eend of the file\x1e"
DECIMAL = re.compile(r"[+-]?\d+,\d+")
NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")


def beside(folder: str | Path, stem: str) -> Path:
    """Return the table ``stem`` in a folder: ``.csv``, else ``.tsv`` or ``.xlsx``; it may lack."""
    files = [Path(folder, stem + suffix) for suffix in (".csv", ".tsv", ".xlsx")]
    return next(filter(Path.is_file, files), files[0])


def records(file: str | Path, notes: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, one at a time, with the line on which it begins.

    Args:
        file: A CSV parted by commas, semicolons, tabs or bars, or an Excel sheet (``.xlsx``),
            whatever its name says.
        notes: Gains a sentence for what was assumed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no table, or a package to read Excel files is missing.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    with file.open("rb") as stream:
        head = stream.read(4)
        if head.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
            yield from _sheet(file, notes)
            return
        stream.seek(0)
        found = encoding(head, stream)
    if found.assumed:
        notes.append(f"{file.name} {found.assumed}")
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a report or an outline may be long
    separator = _separator(file, found)
    if separator != ",":
        notes.append(f"{file.name}: cells are parted by {SEPARATORS[separator]}.")
    first, blank, waiting = True, 0, 0
    for number, row in _parted(file, found, separator):
        if first and _hint(row):
            continue
        if not "".join(row).strip():
            waiting += not first
            continue
        first, blank, waiting = False, blank + waiting, 0
        yield number, row
    if blank:
        notes.append(f"{blank} lines of {file.name} are blank and passed over.")


def _hint(row: list[str]) -> str:
    """Return the separator that Excel tells itself in a first line ``sep=;``."""
    told = re.fullmatch(r"sep=([,;|\t]?)", row[0].strip("\ufeff ")) if row else None
    return (told[1] or ",") if told and not "".join(row[1:]) else ""


def _parted(file: Path, found: Encoding, separator: str) -> Iterator[tuple[int, list[str]]]:
    with file.open(encoding=found.name, errors=found.errors, newline="") as stream:
        lines = map(mended, stream) if found.errors == "surrogateescape" else stream
        rows = csv.reader(
            itertools.chain(lines, [END]), delimiter=separator, skipinitialspace=separator != "\t"
        )
        begin = 1
        try:
            for row in rows:
                if row and END in row[-1]:
                    if row != [END]:
                        raise ValueError(
                            f"{file}, line {begin}: a quotation mark is opened and never closed. "
                            'Close it, or write "" for a quotation mark inside of a cell.'
                        )
                    return
                yield begin, row
                begin = rows.line_num + 1
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{file}, line {begin}: it is no table ({error}). Save it as CSV, UTF-8."
            ) from error


def _separator(file: Path, found: Encoding) -> str:
    """Choose the sign by which most rows have as many cells as the header, and the header most."""
    best, most = ",", (0.0, 1)
    for separator in SEPARATORS:
        rows = (row for _, row in _parted(file, found, separator) if any(map(str.strip, row)))
        try:
            sample = list(itertools.islice(rows, SAMPLE))
        except ValueError:  # a quotation mark that only another separator understands
            continue
        if sample and (told := _hint(sample[0])):
            return told
        width = len(sample[0]) if sample else 0
        agree = sum(len(row) == width for row in sample) / max(len(sample), 1)
        if width > 1 and (agree, width) > most:
            best, most = separator, (agree, width)
    return best


def _sheet(file: Path, notes: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of the first sheet, numbers and dates as text."""
    cure = f"or save the sheet as {file.stem}.csv (UTF-8)."
    try:
        import openpyxl

        # Opened here: by a name that does not end in .xlsx it would be refused.
        book = openpyxl.load_workbook(io.BytesIO(file.read_bytes()), read_only=True, data_only=True)
    except ImportError as error:
        raise ValueError(
            f"{file.name} needs a reader for Excel files: `pip install openpyxl`, {cure}"
        ) from error
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ValueError(
            f"{file} is no .xlsx workbook ({error}). Save it as one, {cure}"
        ) from error
    if len(book.worksheets) > 1:
        others = len(book.worksheets) - 1
        notes.append(f"{file.name}: the first sheet was read, {others} others were not.")
    for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True), 1):
        cells = ["" if cell is None else _written(cell) for cell in row]
        if any(map(str.strip, cells)):
            yield number, cells


def _written(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime):
        return cell.isoformat(" ") if cell.time().isoformat() != "00:00:00" else str(cell.date())
    return str(cell)


def _names(lines: Iterator[tuple[int, list[str]]], file: str | Path) -> list[str]:
    """Take the header off; a column without a name is called after its place, as pandas does."""
    names = [name.strip() for name in next(lines, (0, []))[1]]
    again = sorted({name for name in names if name and names.count(name) > 1})
    if again:  # the labels of the second would be lost
        raise ValueError(f"{file}: the columns {', '.join(again)} occur more than once.")
    return [name or f"Unnamed: {place}" for place, name in enumerate(names)]


def _fitted(row: list[str], names: list[str], file: str | Path, number: int) -> list[str]:
    """Return a row as long as the header; blank cells behind it say nothing."""
    if len(row) == len(names):
        return row
    if "".join(row[len(names) :]).strip():
        raise ValueError(
            f"{file}, line {number}: it is no row of this table; expected {len(names)} cells, "
            f"found {len(row)}. Put a cell that holds the separator between quotation marks."
        )
    return [*row[: len(names)], *[""] * (len(names) - len(row))]


def rows(
    file: str | Path, notes: list[str], *, needed: Iterable[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row by the names of the header, with its line; cells keep their blanks.

    Args:
        needed: Names of columns that must be there.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for `records`; a column is missing or stands twice, or a row has more cells
            than the header.
    """
    lines = records(file, notes)
    names = _names(lines, file)
    if missing := [name for name in needed if name not in names]:
        raise ValueError(
            f"{file} lacks the columns {', '.join(missing)}; it has {', '.join(names)}."
        )
    for number, row in lines:
        yield number, dict(zip(names, _fitted(row, names, file, number), strict=True))


def read(file: str | Path, notes: list[str], *, header: bool = True) -> "pd.DataFrame":
    """Read a table as text without blanks around it, NA where a cell is empty or says ``NA``.

    Decimal commas of a column of numbers become points. The index is the line in the file.

    Args:
        header: The first row holds the names of the columns; else they are 0, 1, ….
        notes: Gains what was assumed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for `rows`, or the file is empty.
    """
    import pandas as pd

    lines = records(file, notes)
    names: list = _names(lines, file) if header else []
    found = list(lines)
    if not header:
        names = list(range(max((len(row) for _, row in found), default=0)))
    if not names:
        raise ValueError(f"{file} is not a table: it is empty. Save it again, as CSV, UTF-8.")
    cells = [
        [cell if (cell := c.strip()) and cell not in MISSING else None for c in row]
        for row in (_fitted(row, names, file, number) for number, row in found)
    ]
    index = [number for number, _ in found]
    frame = pd.DataFrame(cells, index=index, columns=names, dtype="str")
    # What separators at the ends of lines leave.
    bare = [c for c in names if str(c).startswith("Unnamed: ") and frame[c].isna().all()]
    return _points(frame.drop(columns=bare), Path(file).name, notes)


def _points(frame: "pd.DataFrame", name: str, notes: list[str]) -> "pd.DataFrame":
    """Write decimal commas as points where most cells of a column are numbers with one sign."""
    changed, count = [], 0
    for column in frame.columns.difference(TEXTS, sort=False):
        known = frame[column].dropna()
        if not known.str.contains(",", regex=False).any():
            continue
        commas = known.str.fullmatch(DECIMAL)
        if not commas.any() or known.str.fullmatch(NUMBER).mean() <= 0.5:
            continue
        # "1,500" can be fifteen hundred: of columns where every comma is such, nothing is known.
        if known.str.contains(".", regex=False).any() or known[commas].str[-4].eq(",").all():
            notes.append(f"{name}: column {column} holds commas that may part thousands; kept.")
            continue
        frame.loc[commas.index[commas], column] = known[commas].str.replace(",", ".")
        changed.append(str(column))
        count += int(commas.sum())
    if changed:
        notes.append(f"{name}: {count} decimal commas were read as points ({', '.join(changed)}).")
    return frame
