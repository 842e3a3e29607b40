"""Copy radiographs and reports without identities; what undoes it is kept apart."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bonelib.commands.telling import say, tenths, write

if TYPE_CHECKING:
    pass


def deidentify_dicom(source: Path, out: Path, ledger: Path, report: Path | None) -> int:
    """Copy a DICOM export without identities."""
    from bonelib import cohort, datasets, dicom, figures, runs

    if report is not None and report.absolute().is_relative_to(out.absolute()):
        raise ValueError(f"The report {report} names the originals. Put it outside {out}.")
    copies = dicom.deidentify(source, out, ledger=ledger, progress=tenths())
    for note in copies.notes:
        say(f"  note: {note}")
    count = copies.files["status"].value_counts()
    say(", ".join(f"{number} {status}" for status, number in count.items()) or "no files")
    for reason, names in copies.files.dropna(subset=["reason"]).groupby("reason")["file"]:
        say(f"  {len(names)} refused, e.g. {names.iloc[0]}: {reason}")
    if (copies.files["status"] != "refused").any():
        table = datasets.read("dicom", source)
        places = copies.files.set_index("file")["output"]
        labels = table[[cohort.IMAGE_ID, *(task.column for task in cohort.labelled(table))]]
        labels = labels.assign(image_id=labels[cohort.IMAGE_ID].map(places))
        labels = labels.dropna(subset=[cohort.IMAGE_ID])
        if labels.shape[1] > 1:  # keyed anew, without whatever else stood in the table
            write(labels, out / "labels.csv")
            say(f"{len(labels)} labels written to {out / 'labels.csv'}")
    if report is not None:
        for name in ("files", "elements"):
            write(getattr(copies, name), report / f"{name}.csv")
        if len(copies.suspects):
            sheet = figures.contact_sheet(copies.suspects, copies.titles, columns=6)
            with runs.replacing(report / "burnt_in.png") as temporary:
                sheet.savefig(temporary)
            say(f"{len(copies.suspects)} pictures may hold text: look at burnt_in.png")
        say(f"What was removed and kept stands in {report}")
    return 0


def deidentify(
    source: Path,
    out: Path,
    language: str,
    mode: str,
    column: str,
    keep: list[str],
    index: Path | None,
    ledger: Path | None,
    days: list[int] | None,
) -> int:
    """Write safe reports to ``out``, and what undoes it (key, removals, names) to ``ledger``."""
    import contextlib
    import csv
    import secrets
    from collections import Counter

    from bonelib import reports, runs

    ledger = ledger or out.with_name(f"{out.stem}-ledger")
    _apart(source, out, ledger)
    tongue = reports.language(language)
    key_file = ledger / "key"
    if not key_file.exists():
        with runs.replacing(key_file) as temporary:
            temporary.write_text(secrets.token_hex(32))
    key_file.chmod(0o600)
    options = {"mode": mode, "key": bytes.fromhex(key_file.read_text())}
    options |= {"days": tuple(days)} if days else {}
    sources = reports.read(source, column=column, index=index)
    columns = [c for c in keep if c not in ("report", column)]
    held: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    number = 0
    with contextlib.ExitStack() as stack:

        def table(name: str, header: list[str]) -> Any:
            path = stack.enter_context(runs.replacing(ledger / name))
            writer = csv.writer(stack.enter_context(path.open("w", newline="", encoding="utf-8")))
            writer.writerow(header)
            return writer

        names = table("reports.csv", ["number", "report", "patient", "held"])
        removals = table("removals.csv", ["number", *reports.Removal._fields])
        write = _safe_writer(stack, source.is_dir(), out, [*columns, column])
        for number, one in enumerate(sources, 1):
            outcome = reports.deidentify(
                one.text, tongue, known=one.known, patient=one.patient, **options
            )
            name = f"r{number:07d}"  # file names hold patients' names too
            names.writerow([name, one.name, one.patient, outcome.held])
            removals.writerows([name, *removal] for removal in outcome.removals)
            removed.update(removal.type for removal in outcome.removals)
            if outcome.held:
                held[outcome.held.partition(":")[0]] += 1
            else:
                write(name, [*(str(one.row.get(c) or "") for c in columns), outcome.text])
    say(f"{number - held.total()} of {number} reports written to {out}; the key is in {ledger}")
    for name, count in removed.most_common():
        say(f"  {name} {count}")
    for reason, count in held.most_common():
        say(f"  held back, {reason}: {count}")
    return 0


def _apart(source: Path, out: Path, ledger: Path) -> None:
    """Refuse a place where safe reports, their key and their source would lie together."""
    places = {"IN": source.resolve(), "OUT": out.resolve(), "the ledger": ledger.resolve()}
    inside = [
        f"{a} ({places[a]}) lies in {b} ({places[b]})"
        for a in places
        for b in places
        if a != b and places[a].is_relative_to(places[b])
    ]
    if inside:
        raise ValueError(f"Keep input, output and key apart: {'; '.join(inside)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists. Choose a new OUT: safe and unsafe reports must not mix.")


def _safe_writer(
    stack: Any, folder: bool, out: Path, columns: list[str]
) -> Callable[[str, list[str]], None]:
    """Return what writes one safe report: a file of a folder, or a row of a table."""
    from bonelib import runs

    if folder:

        def write(name: str, values: list[str]) -> None:
            with runs.replacing(out / f"{name}.txt") as temporary:
                temporary.write_text(values[-1], encoding="utf-8")

        return write
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"OUT must end in .csv or .parquet for a table, found {out.name!r}.")
    path = stack.enter_context(runs.replacing(out))
    if out.suffix == ".csv":
        import csv

        rows = csv.writer(stack.enter_context(path.open("w", newline="", encoding="utf-8")))
        rows.writerow(["report", *columns])
        return lambda name, values: rows.writerow([name, *values])
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema([(column, pa.string()) for column in ["report", *columns]])
    file = stack.enter_context(parquet.ParquetWriter(path, schema))
    waiting: list[dict[str, str]] = []

    def flush() -> None:
        file.write_table(pa.Table.from_pylist(waiting, schema=schema))
        waiting.clear()

    stack.callback(lambda: flush() if waiting else None)

    def write_row(name: str, values: list[str]) -> None:
        waiting.append(dict(zip(["report", *columns], [name, *values], strict=True)))
        if len(waiting) >= 1000:
            flush()

    return write_row
