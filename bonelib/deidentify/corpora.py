"""Safe copies of many reports: a folder of texts or a column of a table, in the memory of one."""

import contextlib
import csv
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bonelib.deidentify import texts
from bonelib.deidentify.ledger import check_places, open_ledger
from bonelib.deidentify.surrogates import DAYS
from bonelib.reports import Language, sources
from bonelib.reports import language as load
from bonelib.reports import names as languages

KEYS = ("accession", "patient", "language")  # what joins a report to its radiographs
# Columns that say who it was: a real day beside shifted ones undoes the shift.
NAMING = ("name", "birth_date", "date", "study", "study_date")
Write = Callable[[str, list[str]], object]


@dataclass
class SafeReports:
    """How many reports there were, identities removed by type, held back by reason; notes."""

    number: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def reports(
    source: str | Path,
    out: str | Path,
    language: Language | None = None,
    *,
    ledger: str | Path,
    mode: str = "tags",
    column: str = "text",
    keep: Sequence[str] = (),
    index: Path | None = None,
    days: tuple[int, int] = DAYS,
) -> SafeReports:
    """Write safe copies of reports, and what undoes them (removals, names) to the ledger.

    File names and keys may be names too: copies are ``r0000001``, ``r0000002``, … Where accession
    numbers are told, a table carries their pseudonyms and those of the patients: the same as in the
    DICOM copies of the same ledger, beside which it can lie as ``reports.csv``.

    Args:
        source: A folder of texts, or a ``.csv`` or ``.parquet`` file.
        out: A new folder, or a new table; of a table a table.
        language: Of the reports whose row or index names none.
        ledger: As for ``ledger.open_ledger``.
        mode: ``tags`` or ``surrogates``. days: Range of the offset of dates.
        column: Of a table, where the reports stand.
        keep: Its columns that are passed on as they are, but ``patient`` and ``accession``: of
            these the pseudonyms.
        index: CSV with what is known of each report (``reports.sources.INDEX``).

    Raises:
        ValueError: Places in one another, an OUT that exists or is of another kind, an unknown mode
            or column, columns to keep that identify, no language. FileNotFoundError: No reports.
    """
    source, out, ledger = (Path(p).absolute() for p in (source, out, ledger))
    check_places(source, out, ledger)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists. Choose a new OUT: safe and unsafe reports must not mix.")
    table = out.suffix in (".csv", ".parquet")
    if not source.is_dir() and not table:
        raise ValueError(f"OUT must end in .csv or .parquet for a table, found {out.name!r}.")
    if bare := sorted(set(keep) & set(NAMING)):
        raise ValueError(f"{', '.join(bare)} can't be kept: they identify. Leave them out.")
    done = SafeReports()
    came = sources.read(source, column=column, index=index, notes=done.notes)
    first = list(itertools.islice(came, 1))
    row = first[0].row if first else {}
    if language is None and first and not row.get("language"):
        named = " or ".join(f"--language {name}" for name in languages())
        raise ValueError(f"{source} holds reports. Say in which language: {named}.")
    book = open_ledger(ledger)
    options = {"mode": mode, "key": bytes.fromhex(book.secret), "days": days}
    joined = KEYS if index or "accession" in row else [k for k in KEYS if k in keep]
    columns = [name for name in keep if name not in ("report", column, *joined)]
    if columns and table:
        done.notes.append(f"Passed on as they are: {', '.join(columns)}.")
    if joined:
        told = "has pseudonyms for accession and patient, as DICOM copies of the same ledger have"
        done.notes.append(f"OUT {told}." if table else f"Name a .csv as OUT: a table {told}.")
    with (
        book.table("reports.csv", ["number", "report", "patient", "held"]) as who,
        book.table("removals.csv", ["number", *texts.Removal._fields]) as removals,
        _writer(not table, out, ["report", *joined, *columns, column]) as write,
    ):
        for one in itertools.chain(first, came):
            told = str(one.row.get("language") or "").lower()[:2]  # fr-BE is fr
            own = load(told) if told in languages() else None if told else language
            keys = {"patient": one.row.get("patient"), "accession": one.row.get("accession")}
            keys = {k: getattr(book, k)(str(v)) if v else "" for k, v in keys.items()}
            outcome = texts.Outcome("", held=f"language: {told or 'none'} is told")
            if own is not None:
                known = {"index": one.index, "patient": one.patient}
                outcome = texts.report(one.text, own, **known, **options)
                keys["language"] = own.name
            done.number += 1
            name = f"r{done.number:07d}"
            who.writerow([name, one.name, one.patient, outcome.held])
            removals.writerows([name, *removal] for removal in outcome.removals)
            done.removed.update(removal.type for removal in outcome.removals)
            if outcome.held:
                done.held[outcome.held.partition(":")[0]] += 1
            else:
                kept = [*(keys[c] for c in joined), *(str(one.row.get(c) or "") for c in columns)]
                write(name, [*kept, outcome.text])
    return done


@contextlib.contextmanager
def _writer(folder: bool, out: Path, columns: list[str]) -> Iterator[Write]:
    """Give what writes one safe report: a file of a folder, or a row of a table."""
    from bonelib import runs

    def file(name: str, values: list[str]) -> None:
        with runs.replacing(out / f"{name}.txt") as temporary:
            temporary.write_text(values[-1], encoding="utf-8")

    if folder:
        yield file
        return
    with runs.replacing(out) as path:
        if out.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as stream:
                rows = csv.writer(stream)
                rows.writerow(columns)
                yield lambda name, values: rows.writerow([name, *values])
        else:
            with _parquet(path, columns) as write:
                yield write


@contextlib.contextmanager
def _parquet(path: Path, columns: list[str]) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema([(column, pa.string()) for column in columns])
    waiting: list[dict[str, str]] = []
    with parquet.ParquetWriter(path, schema) as file:

        def flush() -> None:
            file.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def write(name: str, values: list[str]) -> None:
            waiting.append(dict(zip(columns, [name, *values], strict=True)))
            if len(waiting) >= 1000:
                flush()

        yield write
        flush()
