"""Apply a trained model to radiographs: a table of probabilities, and heat maps if asked."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bonelib.commands.printing import say, tenths, write

if TYPE_CHECKING:
    import pandas as pd

    from bonelib.experiments.predict import Predictor

SUFFIXES = (".csv", ".parquet")
RESEARCH = "For research only: no medical device, no clinical claim."


def predict(
    bundle: Path,
    inputs: list[Path],
    out: Path,
    heatmaps: Path | None,
    paths: bool | None,
    **options: Any,
) -> int:
    """Predict files, folders, DICOM exports or tables of paths, and write a row for each file.

    What can't be used is refused, all at once, before a file is read. A file that can't be
    predicted is named at the end and in the table, and the exit code is 1.

    Args:
        options: Of ``bonelib.load``.
    """
    import pandas as pd

    from bonelib.experiments.predict import gather, load, without_empty

    faults = [] if out.suffix in SUFFIXES else [f"--out must end in .csv or .parquet: {out.name}"]
    faults += [f"--out is a folder: {out}"] if out.is_dir() else _unwritable(out.parent)
    faults += _unwritable(heatmaps) if heatmaps is not None else []
    files = _kept(lambda: gather(inputs), faults)
    model = _kept(lambda: load(bundle, **options), faults)
    if model is not None and heatmaps is not None:
        _kept(model.check_heatmaps, faults)
    if faults:
        raise ValueError("\n".join(faults))
    say(RESEARCH)
    say(_described(model))
    for note in (*model.notes, *files.attrs["notes"]):
        say(f"  note: {note}")
    parts, problems = [], []
    with tenths("predicting") as show:
        for part in model.batches(files, heatmaps=heatmaps, named=paths, problems=problems):
            parts.append(part)
            show(sum(map(len, parts)), len(files))
    table = without_empty(pd.concat(parts, ignore_index=True))
    _write(model, table, out)
    for note, count in table["note"].str.split("; ").explode().value_counts().items():
        if note:
            say(f"  {count} files: {note}")
    if heatmaps is not None:
        say(f"Heat maps lie in {heatmaps}; the column heatmap names them")
    if problems:
        say(f"{len(problems)} of {len(files)} files have no prediction:")
        for line in problems:
            say(f"  {line}")
    return 1 if problems else 0


def _kept(step: Callable[[], Any], faults: list[str]) -> Any:
    """Return what a step makes, or None where it is refused: ``faults`` gains why."""
    try:
        return step()
    except (ValueError, FileNotFoundError) as error:
        faults.append(str(error))
        return None


def _unwritable(folder: Path) -> list[str]:
    """Say that nothing can be written into a folder, by trying; it is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        told = error.strerror or error
        return [f"Nothing can be written into {folder} ({told}). Choose another folder."]


def _described(model: "Predictor") -> str:
    task, size, found = model.task, model.size, ""
    if model.threshold is not None:
        found = f"; {task.positive} from p = {model.threshold:.3g} on"
    what = ", ".join(task.classes) or f"a value in {task.unit}"
    shape = {"pad": "padded", "squash": "squashed"}[model.fit]
    return f"{model.folder}: {task.name} ({what}), images {shape} to {size} px{found}"


def _write(model: "Predictor", table: "pd.DataFrame", out: Path) -> None:
    """Write the table by rename, and beside it that of the studies if there are any."""
    write(table, out)
    good = table[table["problem"] == ""]
    counts = good["call"].value_counts() if "call" in good else {}
    called = "".join(f", {n} {name}" for name, n in counts.items())
    say(f"{len(table)} files, {len(good)} predicted{called}; written to {out}")
    if "study" in good and good["study"].notna().any():
        beside = out.with_stem(f"{out.stem}_studies")
        studies = model.per_study(table)
        write(studies, beside)
        say(f"{len(studies)} studies, the mean over the images of each; written to {beside}")
