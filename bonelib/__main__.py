"""The command line: ``bonelib run | phantom | data | deidentify | runs``.

Arguments come in, one call to a room goes out per command; what the room returns is printed here
and nowhere else. Mistakes of the user end in one message and exit code 2, a failed notebook in 1.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 refused, 130 interrupted."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        return command(**arguments)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bonelib",
        description="Run the notebooks of the thesis, draw the synthetic cohort, look at data.",
        epilog="bonelib COMMAND --help shows the options and an example.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
        form = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(
            name, help=text, description=text, epilog=f"example: {example}", formatter_class=form
        )
        made.set_defaults(command=command)
        return made

    run = add(
        _run,
        "run",
        "execute the numbered notebooks in order",
        "bonelib run 01 04 --profile demo -p DATA fracatlas -p SEED 1",
    )
    run.add_argument("numbers", nargs="*", metavar="NN", help="notebooks, e.g. 01 04; default all")
    run.add_argument("--profile", default="tiny", help="tiny (default), demo or full")
    run.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a notebook parameter; repeat for more",
    )

    phantom = add(
        _phantom,
        "phantom",
        "draw the synthetic cohort into a folder",
        "bonelib phantom data/phantom --images 600 --archive 2000 --seed 0",
    )
    phantom.add_argument("folder", type=Path, metavar="OUT")
    phantom.add_argument("--images", type=int, default=600, help="labelled images (600)")
    phantom.add_argument("--archive", type=int, default=0, help="images without labels (0)")
    phantom.add_argument("--seed", type=int, default=0)
    phantom.add_argument("--size", type=int, default=512, help="longer side in pixels (512)")
    phantom.add_argument("--workers", type=int, default=1, help="processes; same images for any")

    data = add(
        _data,
        "data",
        "read a data set and say what is in it",
        "bonelib data fracatlas /path/to/FracAtlas --decode 224 --out table.parquet",
    )
    data.add_argument("name", metavar="NAME", help="btxrd, fracatlas, …; a wrong one lists them")
    data.add_argument("root", type=Path, metavar="ROOT", help="its unpacked folder")
    data.add_argument("--task", default="", help="of a folder or roboflow tree, if not plain")
    data.add_argument(
        "--decode",
        type=int,
        default=0,
        metavar="SIZE",
        help="decode into the cache of that size; default: check every file, keep nothing",
    )
    data.add_argument("--out", type=Path, help="write the table, .parquet or .csv")

    clean = add(
        _deidentify,
        "deidentify",
        "remove the identities of reports, keep the key apart",
        "bonelib deidentify reports safe --language fr --mode surrogates --index index.csv",
    )
    clean.add_argument("source", type=Path, metavar="IN", help="folder, .csv or .parquet")
    clean.add_argument("out", type=Path, metavar="OUT", help="folder, or table for a table")
    clean.add_argument("--language", required=True, help="fr or en")
    clean.add_argument("--mode", default="tags", help="tags (default) or surrogates")
    clean.add_argument("--column", default="text", help="of a table: where the reports stand")
    clean.add_argument(
        "--keep", nargs="*", default=[], metavar="COLUMN", help="of a table: columns passed on"
    )
    clean.add_argument("--index", type=Path, help="CSV: report,patient,name,birth_date,accession")
    clean.add_argument("--ledger", type=Path, help="folder of the key; default OUT-ledger")
    clean.add_argument(
        "--days",
        nargs=2,
        type=int,
        metavar=("LOW", "HIGH"),
        help="range dates move in (-1000 1000)",
    )

    listing = add(_runs, "runs", "list the finished runs", "bonelib runs --profile demo")
    listing.add_argument("--profile", default="", help="tiny, demo or full; default all")
    return parser


# ---------------------------------------------------------------------- one function per command
def _run(numbers: list[str], profile: str, parameters: list[list[str]]) -> int:
    from bonelib import cohort, datasets, headless

    names = [name for name, _ in parameters]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"-p gives {', '.join(twice)} more than once. Keep one value each.")
    # A batch system ends a job with SIGTERM: kept like Ctrl-C, with the partial copy.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes = headless.run(
        numbers,
        profile=profile,
        parameters=dict(parameters),
        allowed={"TASK": list(cohort.TASKS), "DATA": list(datasets.NAMES)},
        report=_say,
    )
    _say("")
    published = list(dict.fromkeys(path for outcome in outcomes for path in outcome.published))
    for path in published:
        _say(_short(path))
    for outcome in outcomes:
        if not published and not outcome.error:
            _say(_short(outcome.step.folder))
    failed = [o for o in outcomes if o.error]
    for outcome in failed:
        _say(f"{outcome.status}: {outcome.step.name}: {outcome.error.splitlines()[0]}")
    return 1 if failed else 0


def _phantom(folder: Path, **options: int) -> int:
    from bonelib import phantom

    phantom.write(folder, **options, progress=_tenths())
    _say(f"Written to {folder}. Read it with: bonelib data phantom {folder}")
    return 0


def _data(name: str, root: Path, task: str, decode: int, out: Path | None) -> int:
    from bonelib import datasets, images, runs

    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"--out must end in .parquet or .csv, found {out.name!r}.")
    if task and name not in ("folder", "roboflow"):
        raise ValueError(f"--task is for folder and roboflow; {name} knows its tasks.")
    table = datasets.read(name, root, **({"task": task} if task else {}))
    _say(_summary(table))
    if decode:
        folder = runs.cache_folder("images")
        cache = images.cache(table, size=decode, folder=folder, progress=_tenths())
        unreadable, notes = cache.excluded, cache.notes
    else:
        unreadable, notes = images.verify(table, progress=_tenths()), []
    for note in notes:
        _say(f"  note: {note}")
    _say(
        f"{len(unreadable)} of {len(table)} files can't be read" + (":" if len(unreadable) else "")
    )
    for row in unreadable.itertuples():
        _say(f"  {row.image_id} ({row.path}): {row.reason}")
    if len(unreadable):  # the decision to leave them out is the reader's of the table
        reasons = unreadable.set_index("image_id")["reason"]
        table["unreadable"] = table["image_id"].map(reasons)
    if out is not None:
        _write(table, out)
        _say(f"{len(table)} rows written to {out}")
    return 0


def _deidentify(
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
    _say(f"{number - held.total()} of {number} reports written to {out}; the key is in {ledger}")
    for name, count in removed.most_common():
        _say(f"  {name} {count}")
    for reason, count in held.most_common():
        _say(f"  held back, {reason}: {count}")
    return 0


def _runs(profile: str) -> int:
    from bonelib import headless, runs

    if profile and profile not in headless.PROFILES:
        known = ", ".join(headless.PROFILES)
        raise ValueError(f"Unknown profile {profile!r}. Choose one of {known}.")
    for name in [profile] if profile else headless.PROFILES:
        table = runs.collect(profile=name)
        _say(f"{name}: {len(table) or 'no'} finished runs in {runs.folder() / name}")
        if len(table):
            metrics = [column for column in table if column.startswith("metrics.")]
            table["metrics"] = [_metrics(row) for row in table[metrics].to_dict("records")]
            shown = table[["run", "seconds", "openings", "stale", "metrics"]].copy()
            short = shown["run"].str.removeprefix(f"{name}/")
            shown["run"] = short.str.ljust(short.str.len().max())
            _say(shown.to_string(index=False, justify="left", max_colwidth=100))
    return 0


# ---------------------------------------------------------------------- what is written
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


# ---------------------------------------------------------------------- what is printed
def _say(line: str) -> None:
    print(line, flush=True)


def _tenths() -> Callable[[int, int], None]:
    shown = 0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if done * 10 // max(total, 1) > shown:
            shown = done * 10 // total
            _say(f"  {done} of {total} images")

    return progress


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _metrics(row: dict[str, Any]) -> str:
    known = {k.removeprefix("metrics."): v for k, v in row.items() if v is not None and v == v}
    return "  ".join(
        f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in known.items()
    )


def _summary(table: "pd.DataFrame") -> str:
    """Count a cohort table: labels of every task, sites, views, centres, and the reader's notes."""
    from bonelib import cohort

    patients = table[cohort.PATIENT].nunique()
    lines = [f"{len(table)} radiographs, {patients or 'unknown number of'} patients"]
    for task in cohort.labelled(table):
        values = table[task.column].dropna()
        if task.kind == "regression":
            numbers = values.astype(float)
            text = f"{len(values)} values, {numbers.min():g} to {numbers.max():g}"
        else:
            count = values.astype(str).value_counts()
            text = ", ".join(f"{name} {count.get(name, 0)}" for name in task.classes)
        lines.append(f"  {task.name}: {text}")
    for column in (cohort.SITE, cohort.VIEW, cohort.CENTER):
        terms = table[column].explode() if column != cohort.CENTER else table[column]
        count = terms.dropna().astype(str).value_counts()
        if len(count):
            lines.append(f"  {column}: " + ", ".join(f"{k} {v}" for k, v in count.items()))
    return "\n".join([*lines, *(f"  note: {note}" for note in table.attrs.get("notes", []))])


def _write(table: "pd.DataFrame", path: Path) -> None:
    from bonelib import cohort, runs

    with runs.replacing(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
            return
        flat = table.copy()  # several terms in one cell: separated as datasets.table reads them
        for column in (cohort.SITE, cohort.VIEW):
            flat[column] = [";".join(terms) for terms in flat[column]]
        flat.to_csv(temporary, index=False)


if __name__ == "__main__":
    sys.exit(main())
