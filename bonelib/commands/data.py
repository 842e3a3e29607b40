"""Draw the synthetic cohort, read a data set and say what is in it."""

from pathlib import Path

from bonelib.commands.printing import say, summary, tenths, write

KINDS = ("tumors", "hands", "knees", "fractures")  # the first stands in for BTXRD


def phantom(folder: Path, kind: str, archive: int, dicom: Path | None, **options: int) -> int:
    """Draw a synthetic set into a folder."""
    from bonelib import phantom as drawing

    name = "phantom" if kind == KINDS[0] else f"phantom_{kind}"
    if kind == KINDS[0]:
        with tenths("drawing") as show:
            drawing.write(folder, archive=archive, **options, progress=show)
    elif archive or dicom:
        raise ValueError(f"--archive and --dicom are for {KINDS[0]}; {kind} have neither.")
    else:
        with tenths("drawing") as show:
            drawing.write_task(folder, kind=kind, **options, progress=show)
    say(f"Written to {folder}. Read it with: bonelib data {name} {folder}")
    if dicom is not None:
        drawing.write_dicom(folder, dicom)
        say(f"Written to {dicom}. Read it with: bonelib data dicom {dicom}")
    return 0


def data(name: str, root: Path, task: str, classes: str, decode: int, out: Path | None) -> int:
    """Read a data set, check its files, and write its table if asked."""
    from bonelib import datasets, images, runs
    from bonelib.datasets import own_tasks

    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"--out must end in .parquet or .csv, found {out.name!r}.")
    if (task or classes) and name not in datasets.BY_NAME:
        known = " and ".join(datasets.BY_NAME)
        raise ValueError(f"--task and --classes are for {known}; {name} knows its tasks.")
    if "+" in name and not name.endswith(".csv"):
        root = runs.data_root(name, str(root))
    named = (str(root), "") if root.suffix == ".csv" else (name, str(root))
    own_tasks.declare(runs.task_files(*named))
    table = datasets.read(name, root, task=task, classes=datasets.class_names(classes))
    say(summary(table))
    left: dict[str, list[str]] = {}
    for row in table.attrs.get("refused", []):  # of a DICOM export: no rows of the table
        left.setdefault(row["reason"], []).append(row["file"])
    for reason, files in left.items():
        more = f" and {len(files) - 5} more" if len(files) > 5 else ""
        say(f"  left out: {', '.join(files[:5])}{more}: {reason}")
    if decode:
        folder = runs.cache_folder("images")
        with tenths("decoding") as show:
            cache = images.cache(table, size=decode, folder=folder, progress=show)
        unreadable, notes = cache.excluded, cache.notes
    else:
        with tenths("reading") as show:
            unreadable = images.verify(table, progress=show)
        notes = unreadable.attrs["notes"]
    for note in notes:
        if note in table.attrs.get("notes", []):  # the header alone said so
            continue
        say(f"  note: {note}")
    say(f"{len(unreadable)} of {len(table)} files can't be read" + (":" if len(unreadable) else ""))
    for row in unreadable.itertuples():
        say(f"  {row.image_id} ({row.path}): {row.reason}")
    if len(unreadable):  # the decision to leave them out is the reader's of the table
        reasons = unreadable.set_index("image_id")["reason"]
        table["unreadable"] = table["image_id"].map(reasons)
    if out is not None:
        write(table, out)
        say(f"{len(table)} rows written to {out}")
    return 0
