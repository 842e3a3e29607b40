"""Safe copies of many reports: a folder of texts or a column of a table, in the memory of one."""

import contextlib
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bonelib.deidentify import texts
from bonelib.deidentify.ledger import check_places, open_ledger
from bonelib.deidentify.surrogates import DAYS
from bonelib.reports import Language, sources

Write = Callable[[str, list[str]], object]


@dataclass
class SafeReports:
    """How many reports there were, identities removed by type, reports held back by reason."""

    number: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)


def reports(
    source: str | Path,
    out: str | Path,
    language: Language,
    *,
    ledger: str | Path,
    mode: str = "tags",
    column: str = "text",
    keep: Sequence[str] = (),
    index: Path | None = None,
    days: tuple[int, int] = DAYS,
) -> SafeReports:
    """Write safe copies of reports, and what undoes them (removals, names) to the ledger.

    File names and keys may be names too: copies are ``r0000001``, ``r0000002``, …

    Args:
        source: A folder of texts, or a ``.csv`` or ``.parquet`` file. out: Of the same kind, new.
        ledger: As for ``ledger.open_ledger``.
        mode: ``tags`` or ``surrogates``. days: Range of the offset of dates.
        column: Of a table, where the reports stand. keep: Its columns that are passed on.
        index: CSV with what is known of each report (``reports.sources.INDEX``).

    Raises:
        ValueError: Places in one another, an OUT that exists or is of another kind, an unknown mode
            or column. FileNotFoundError: No reports there.
    """
    source, out, ledger = (Path(p).absolute() for p in (source, out, ledger))
    check_places(source, out, ledger)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists. Choose a new OUT: safe and unsafe reports must not mix.")
    if not source.is_dir() and out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"OUT must end in .csv or .parquet for a table, found {out.name!r}.")
    book = open_ledger(ledger)
    options = {"mode": mode, "key": bytes.fromhex(book.secret), "days": days}
    columns = [name for name in keep if name not in ("report", column)]
    done = SafeReports()
    with (
        book.table("reports.csv", ["number", "report", "patient", "held"]) as names,
        book.table("removals.csv", ["number", *texts.Removal._fields]) as removals,
        _writer(source.is_dir(), out, ["report", *columns, column]) as write,
    ):
        for one in sources.read(source, column=column, index=index):
            outcome = texts.report(
                one.text, language, index=one.index, patient=one.patient, **options
            )
            done.number += 1
            name = f"r{done.number:07d}"
            names.writerow([name, one.name, one.patient, outcome.held])
            removals.writerows([name, *removal] for removal in outcome.removals)
            done.removed.update(removal.type for removal in outcome.removals)
            if outcome.held:
                done.held[outcome.held.partition(":")[0]] += 1
            else:
                write(name, [*(str(one.row.get(c) or "") for c in columns), outcome.text])
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
