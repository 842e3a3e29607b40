"""Copy reports or radiographs without identities; what undoes it is kept apart."""

from pathlib import Path
from typing import Any

from bonelib.commands.printing import say, tenths, write

# Options that one kind of input has and the other has not.
OPTIONS = {
    "reports": ("language", "mode", "column", "keep", "index", "days"),
    "dicom": ("report",),
}
NAMES = {"reports": "reports", "dicom": "DICOM files"}


def deidentify(source: Path, out: Path, ledger: Path | None, **options: Any) -> int:
    """Copy what ``source`` holds without identities: reports or a DICOM export, by its content."""
    kind = kind_of(source)
    given = {name: value for name, value in options.items() if value is not None}
    other = [f"--{name}" for name in given if name not in OPTIONS[kind]]
    if other:
        allowed = ", ".join(f"--{name}" for name in OPTIONS[kind])
        raise ValueError(
            f"{source} holds {NAMES[kind]}, for which {', '.join(other)} can't be. Leave it out: "
            f"{NAMES[kind]} take {allowed} and --ledger."
        )
    ledger = ledger or out.with_name(f"{out.stem}-ledger")
    copy = _reports if kind == "reports" else _radiographs
    return copy(source, out, ledger, **given)


def kind_of(source: Path) -> str:
    """Tell ``dicom`` from ``reports`` by the first bytes of files, not by their names.

    A folder with one DICOM file is an export, whatever else lies in it.

    Raises:
        FileNotFoundError: There is no such source, or nothing of either kind in it.
    """
    from bonelib import dicom
    from bonelib.reports.sources import SUFFIXES

    def is_dicom(path: Path) -> bool:
        with path.open("rb") as stream:
            return dicom.is_dicom(stream.read(256))

    if not source.exists():
        raise FileNotFoundError(f"No folder and no file {source}.")
    if source.is_file():
        return "dicom" if is_dicom(source) else "reports"
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    texts = {path for path in files if path.suffix.lower() in SUFFIXES}
    if any(is_dicom(path) for path in files if path not in texts):
        return "dicom"
    if not texts:
        raise FileNotFoundError(
            f"Neither DICOM files nor reports ({', '.join(SUFFIXES)}) under {source}."
        )
    return "reports"


def _reports(source: Path, out: Path, ledger: Path, language: str = "", **options: Any) -> int:
    from bonelib import deidentify, reports

    told = reports.language(language) if language else None
    done = deidentify.reports(source, out, told, ledger=ledger, **options)
    passed = done.number - done.held.total()
    for note in done.notes:
        say(f"  note: {note}")
    say(f"{passed} of {done.number} reports written to {out}; the key is in {ledger}")
    for note in done.notes:
        say(f"  note: {note}")
    for name, count in done.removed.most_common():
        say(f"  {name} {count}")
    for reason, count in done.held.most_common():
        say(f"  held back, {reason}: {count}")
    return 0


def _radiographs(source: Path, out: Path, ledger: Path, report: Path | None = None) -> int:
    from bonelib import cohort, datasets, deidentify, figures, runs
    from bonelib.dicom import burnt_in

    deidentify.check_places(source, out, ledger, report)
    try:
        ocr = burnt_in.reader()
    except ImportError as error:
        ocr = None
        say(f"  note: burnt-in characters are estimated, not read. {error}")
    with tenths("copying") as show:
        copies = deidentify.radiographs(source, out, ledger=ledger, ocr=ocr, progress=show)
    for note in copies.notes:
        say(f"  note: {note}")
    count = copies.files["status"].value_counts()
    say(", ".join(f"{number} {status}" for status, number in count.items()) or "no files")
    for reason, names in copies.files.dropna(subset=["reason"]).groupby("reason")["file"]:
        say(f"  {len(names)} refused, e.g. {names.iloc[0]}: {reason}")
    if (copies.files["status"] != "refused").any():
        table = datasets.read("dicom", source)
        outputs = copies.files.set_index("file")["output"]
        labels = table[[cohort.IMAGE_ID, *(task.column for task in cohort.labelled(table))]]
        labels = labels.assign(image_id=labels[cohort.IMAGE_ID].map(outputs))
        labels = labels.dropna(subset=[cohort.IMAGE_ID])
        if labels.shape[1] > 1:  # keyed anew, without whatever else stood in the table
            write(labels, out / "labels.csv")
            say(f"{len(labels)} labels written to {out / 'labels.csv'}")
    texts = (source if source.is_dir() else source.parent) / "reports.csv"
    if texts.is_file():
        say(f"{texts} is not copied. Make it safe with the same ledger:")
        say(f"  bonelib deidentify {texts} {out / 'reports.csv'} --ledger {ledger}")
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
        report.chmod(0o700)  # as a ledger: which copy is whose, and pictures with burnt-in text
        for name in ("files", "elements"):
            write(getattr(copies, name), report / f"{name}.csv")
        if len(copies.suspects):
            sheet = figures.contact_sheet(copies.suspects, copies.titles, columns=6)
            with runs.replacing(report / "burnt_in.png") as temporary:
                sheet.savefig(temporary)
            say(f"{len(copies.suspects)} pictures may hold text: look at burnt_in.png")
        say(f"What was removed and kept stands in {report}")
    return 0
