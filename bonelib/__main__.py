"""The command line: ``bonelib run | phantom | data | deidentify-dicom | runs``.

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

    train = add(
        _train,
        "train",
        "carry out the pretraining that notebook 04 planned, on one device or under torchrun",
        "torchrun --nproc-per-node 4 -m bonelib train runs/full/btxrd/any/pretraining/default-s0",
    )
    train.add_argument("folder", type=Path, metavar="RUN", help="the run folder with its plan.json")
    train.add_argument("--accelerator", default="auto", help="cpu, cuda, …; default what is there")

    study = add(
        _study,
        "study",
        "run the notebooks of a study, reusing what is finished",
        "bonelib study language",
    )
    study.add_argument("name", metavar="NAME", help="a section of notebooks/studies.toml")
    study.add_argument(
        "--list", action="store_true", help="print the runs instead of starting them"
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
    phantom.add_argument("--dicom", type=Path, help="write them as a hospital's DICOM tree as well")

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
        "--classes", default="", metavar="'FOUND=CLASS; …'", help="for names there that are unknown"
    )
    data.add_argument(
        "--decode",
        type=int,
        default=0,
        metavar="SIZE",
        help="decode into the cache of that size; default: check every file, keep nothing",
    )
    data.add_argument("--out", type=Path, help="write the table, .parquet or .csv")

    copies = add(
        _deidentify_dicom,
        "deidentify-dicom",
        "copy the radiographs of a DICOM export without identities",
        "bonelib deidentify-dicom /export /copies --ledger /safe/ledger.json --report /safe/report",
    )
    copies.add_argument("source", type=Path, metavar="IN", help="the folder, or its DICOMDIR")
    copies.add_argument("out", type=Path, metavar="OUT", help="another folder, for the copies")
    copies.add_argument("--ledger", type=Path, required=True, help="who is who: keep it apart")
    copies.add_argument("--report", type=Path, help="folder for files, elements, contact sheet")

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


def _train(folder: Path, accelerator: str) -> int:
    from bonelib import elsewhere

    elsewhere.train(folder, accelerator=accelerator, report=_say)
    _say(f"Trained: {_short(folder)}. Run notebook 04 again to evaluate it.")
    return 0


def _study(name: str, list: bool) -> int:  # noqa: A002 (the option's name)
    from bonelib import headless

    runs_of = headless.study(name)
    for number, (numbers, profile, parameters) in enumerate(runs_of, start=1):
        told = " ".join(f"{k}={v}" for k, v in parameters.items())
        _say(f"{number}/{len(runs_of)} {' '.join(numbers)} {profile} {told}")
        if not list:
            failed = _run([*numbers], profile, [[k, str(v)] for k, v in parameters.items()])
            if failed:
                return failed
    return 0


def _phantom(folder: Path, dicom: Path | None, **options: int) -> int:
    from bonelib import phantom

    phantom.write(folder, **options, progress=_tenths())
    _say(f"Written to {folder}. Read it with: bonelib data phantom {folder}")
    if dicom is not None:
        phantom.write_dicom(folder, dicom)
        _say(f"Written to {dicom}. Read it with: bonelib data dicom {dicom}")
    return 0


def _data(name: str, root: Path, task: str, classes: str, decode: int, out: Path | None) -> int:
    from bonelib import datasets, images, runs

    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"--out must end in .parquet or .csv, found {out.name!r}.")
    if (task or classes) and name not in datasets.BY_NAME:
        known = " and ".join(datasets.BY_NAME)
        raise ValueError(f"--task and --classes are for {known}; {name} knows its tasks.")
    table = datasets.read(name, root, task=task, classes=datasets.class_names(classes))
    _say(_summary(table))
    for row in table.attrs.get("refused", []):  # of a DICOM export: no rows of the table
        _say(f"  left out: {row['file']}: {row['reason']}")
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


def _deidentify_dicom(source: Path, out: Path, ledger: Path, report: Path | None) -> int:
    from bonelib import cohort, datasets, dicom, figures, runs

    if report is not None and report.absolute().is_relative_to(out.absolute()):
        raise ValueError(f"The report {report} names the originals. Put it outside {out}.")
    copies = dicom.deidentify(source, out, ledger=ledger, progress=_tenths())
    for note in copies.notes:
        _say(f"  note: {note}")
    count = copies.files["status"].value_counts()
    _say(", ".join(f"{number} {status}" for status, number in count.items()) or "no files")
    for reason, names in copies.files.dropna(subset=["reason"]).groupby("reason")["file"]:
        _say(f"  {len(names)} refused, e.g. {names.iloc[0]}: {reason}")
    if (copies.files["status"] != "refused").any():
        table = datasets.read("dicom", source)
        places = copies.files.set_index("file")["output"]
        labels = table[[cohort.IMAGE_ID, *(task.column for task in cohort.labelled(table))]]
        labels = labels.assign(image_id=labels[cohort.IMAGE_ID].map(places))
        labels = labels.dropna(subset=[cohort.IMAGE_ID])
        if labels.shape[1] > 1:  # keyed anew, without whatever else stood in the table
            _write(labels, out / "labels.csv")
            _say(f"{len(labels)} labels written to {out / 'labels.csv'}")
    if report is not None:
        for name in ("files", "elements"):
            _write(getattr(copies, name), report / f"{name}.csv")
        if len(copies.suspects):
            sheet = figures.contact_sheet(copies.suspects, copies.titles, columns=6)
            with runs.replacing(report / "burnt_in.png") as temporary:
                sheet.savefig(temporary)
            _say(f"{len(copies.suspects)} pictures may hold text: look at burnt_in.png")
        _say(f"What was removed and kept stands in {report}")
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
        for column in {cohort.SITE, cohort.VIEW} & set(flat):
            flat[column] = [";".join(terms) for terms in flat[column]]
        flat.to_csv(temporary, index=False)


if __name__ == "__main__":
    sys.exit(main())
