"""Readers that turn a published folder into the cohort table; one file per data set.

A folder comes in, a table with the columns of ``cohort`` goes out, one row per radiograph. Readers
open metadata and annotations, never pixels. Faults that make the table wrong are raised, all at
once; what can be lived with (rows without a file, contradictions) is kept as sentences in
``table.attrs["notes"]``, to be shown in the first notebook.

The functions other than ``read`` are what several readers share; ``texts.report_texts`` reads the
reports of a finished table.
"""

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bonelib import cohort

NAMES = (
    "btxrd",
    "fracatlas",
    "grazpedwri",
    "knee_kl",
    "rsna_bone_age",
    "mura",
    "lera",
    "roco",
    "phantom",
    "folder",
    "roboflow",
    "dicom",
    "table",
)
BY_NAME = ("folder", "roboflow")  # whose labels are names of folders or columns, whatever they are
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm")
# What becomes of rows without a file; see `keep_existing`.
LEAVE_OUT, KEEP, REFUSE = "leave out", "keep", "refuse"
# A split that came with the data is noted in this column and never trusted: most leak.
PUBLISHED_SPLIT = "published_split"
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "auto_test": "auto_test",
}


def read(
    name: str,
    root: str | Path,
    *,
    task: str = "",
    classes: dict[str, str] | None = None,
    **options,
) -> pd.DataFrame:
    """Read a data set by name; a name that ends in ``.csv`` is a file for the ``table`` reader.

    Names joined by ``+`` are read together, see ``datasets.together``.

    Args:
        root: The unpacked folder of the data set.
        task: What names of folders or columns are classes of, for ``folder`` and ``roboflow``; the
            other formats say so themselves.
        classes: Class of the task for each name that these two don't know; see `class_names`.
        options: Those of the reader's own ``read``, e.g. ``missing="refuse"``.

    Returns:
        The cohort table, checked; ``attrs["notes"]`` lists in sentences what is odd about it.

    Raises:
        ValueError: The name is unknown, or the folder breaks its format; all problems are listed.
        FileNotFoundError: The folder or its table is not there.
    """
    if "+" in name and not name.endswith(".csv"):
        from bonelib.datasets import together

        options |= {"task": task, "classes": classes}
        return cohort.check(together.read(name, root, **options))
    if name in BY_NAME:
        options = {"task": task, "classes": classes} | options
    # Written out, so that reading one data set imports one reader.
    if name == "fracatlas":
        from bonelib.datasets import fracatlas as reader
    elif name == "btxrd":
        from bonelib.datasets import btxrd as reader
    elif name == "phantom":
        from bonelib.datasets import btxrd as reader

        options = {"extras": True} | options
    elif name == "grazpedwri":
        from bonelib.datasets import grazpedwri as reader
    elif name == "knee_kl":
        from bonelib.datasets import knee_kl as reader
    elif name == "rsna_bone_age":
        from bonelib.datasets import rsna_bone_age as reader
    elif name == "mura":
        from bonelib.datasets import mura as reader
    elif name == "lera":
        from bonelib.datasets import lera as reader
    elif name == "roco":
        from bonelib.datasets import roco as reader
    elif name == "folder":
        from bonelib.datasets import folder as reader
    elif name == "roboflow":
        from bonelib.datasets import roboflow as reader
    elif name == "dicom":
        from bonelib.datasets import dicom as reader
    elif name == "table" or name.endswith(".csv"):
        from bonelib.datasets import table as reader

        if name != "table":
            options = {"file": name} | options
    else:
        raise ValueError(
            f"Unknown data set {name!r}. Choose one of {', '.join(NAMES)}, or the path of a CSV."
        )
    return cohort.check(reader.read(root, **options))


def class_names(text: str) -> dict[str, str]:
    """Read ``found=class; found=class``: what names of folders or columns stand for.

    Raises:
        ValueError: A part is no such pair.
    """
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    known = {name.strip(): value.strip() for name, _, value in pairs}
    if not all(known) or not all(known.values()):
        raise ValueError(f"Found {text!r}; expected pairs 'found=class; found=class'.")
    return known


def locate(root: str | Path, names: tuple[str, ...], *, inner: str = "") -> Path:
    """Find the metadata table in ``root``, or one level down where an archive doubles its folder.

    Args:
        names: File names, the preferred one first.
        inner: Name of the folder that an archive may add, e.g. ``BTXRD``.

    Raises:
        FileNotFoundError: The message says what was looked for and what lies there instead.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}. Set DATA_ROOT to the unpacked data set.")
    for folder in (root, root / inner):
        for name in names:
            if (folder / name).is_file():
                return (folder / name).absolute()
    have = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
    raise FileNotFoundError(
        f"No {' or '.join(names)} in {root} (it holds {have}). "
        "Set DATA_ROOT to the folder in which that file lies."
    )


def files_below(*folders: Path) -> dict[str, Path]:
    """Map file names to paths over some folders; hidden files are left out."""
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            names = sorted(name for name in os.listdir(folder) if name[0] != ".")
            found |= {name: folder / name for name in names if (folder / name).is_file()}
    return found


def tree(root: str | Path, notes: list[str]) -> dict[str, Path]:
    """Map relative paths, ``train/0/a.png``, to all files below ``root``, sorted.

    Hidden files are left out. Links are followed, each real folder is read once: a link that leads
    back ends there, with a note, and so do links that lead nowhere or out of ``root``.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}. Set DATA_ROOT to the unpacked data set.")
    top, found, seen = root.resolve(), {}, set()
    odd: dict[str, list[str]] = {"again": [], "lost": [], "out": [], "shut": []}
    folders, links = [""], []
    while folders or links:
        # Links wait until all real folders are read, so that those keep their own names.
        prefix = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(root / prefix)
        if real in seen:
            odd["again"].append(prefix)
            continue
        seen.add(real)
        try:
            names = [name for name in os.listdir(root / prefix) if name[0] != "."]
        except PermissionError:
            odd["shut"].append(prefix)
            continue
        for name in names:
            inner = f"{prefix}/{name}" if prefix else name
            path = root / inner
            link = path.is_symlink()
            if link and not path.exists():  # also where links point at each other
                odd["lost"].append(inner)
                continue
            if link and not path.resolve().is_relative_to(top):
                odd["out"].append(inner)
            if path.is_dir():
                (links if link else folders).append(inner)
            elif path.is_file():  # no pipe or device: opening one would wait for ever
                found[inner] = path
    told = {
        "again": "links lead to a folder that was read already and were not entered again",
        "lost": "links lead nowhere or in a circle and are left out",
        "out": "links lead out of the folder and were followed",
        "shut": "folders may not be read and are left out",
    }
    notes += [
        f"{len(odd[k])} {text}, e.g. {sorted(odd[k])[0]}." for k, text in told.items() if odd[k]
    ]
    return dict(sorted(found.items()))


def read_table(file: Path, notes: list[str], **options) -> pd.DataFrame:
    """Read a CSV in whatever encoding, or an Excel sheet; names of columns lose their blanks.

    Args:
        notes: Gains a sentence where the encoding had to be guessed.
        options: Those of ``pandas.read_csv``.

    Raises:
        ValueError: It is no table, or a package to read Excel files is missing.
    """
    if file.suffix.lower() == ".xlsx":
        try:
            frame = pd.read_excel(file, dtype=options.get("dtype"))
        except ImportError as error:
            raise ValueError(
                f"{file.name} needs a reader for Excel files. Install it with "
                f"`pip install openpyxl`, or save the sheet as {file.stem}.csv beside it."
            ) from error
    else:
        text = text_of(file, notes)
        try:
            frame = pd.read_csv(io.StringIO(text), **options)
            header = {k: options[k] for k in ("sep", "skiprows") if k in options}
            header = pd.read_csv(io.StringIO(text), header=None, nrows=1, dtype=str, **header)
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            told = str(error).strip()
            raise ValueError(f"{file} is not a table: {told}. Save it as CSV, UTF-8.") from error
        names = header.iloc[0].dropna().str.strip()
        again = sorted(set(names[names.duplicated()]) - {""})
        if again:  # pandas would call the second "tumor.1", and its labels would be lost
            refuse([f"The columns {', '.join(again)} occur more than once."], file)
    frame.columns = [str(column).strip() for column in frame.columns]
    return frame


def text_of(file: Path, notes: list[str]) -> str:
    """Decode a text file: UTF-8 with or without a BOM, UTF-16, else the western code page.

    Only the last is a guess, as any bytes would fit it; ``notes`` gains a sentence then.
    """
    content = file.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        name = "utf-16"
    elif b"\0" in content[:4] and len(content) % 2 == 0:  # plain text holds no zero byte
        name = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    else:
        name = "utf-8-sig"
    try:
        return content.decode(name)
    except UnicodeDecodeError:
        notes.append(
            f"{file.name} is not UTF-8: it was read as Windows-1252 (western European); "
            "check names with accents."
        )
        return content.decode("cp1252", errors="replace")


def published_split(parts: Iterable[str]) -> str | None:
    """Name the split (train, val, test, auto_test) of a file from the folders it lies in."""
    return next((SPLITS[p.lower()] for p in reversed(list(parts)) if p.lower() in SPLITS), None)


def split_notes(table: pd.DataFrame, unit: str = cohort.PATIENT) -> list[str]:
    """Say which published splits there are, and whether a patient or study lies in several."""
    known = table[PUBLISHED_SPLIT].dropna()
    if known.empty:
        return []
    count = ", ".join(f"{name} {n}" for name, n in known.value_counts().items())
    found = [
        f"The published split ({count}) is kept in {PUBLISHED_SPLIT!r} and not trusted: "
        "splits are made anew from groups."
    ]
    spread = table.dropna(subset=[unit]).groupby(unit)[PUBLISHED_SPLIT].nunique()
    across = sorted(spread.index[spread > 1].astype(str))
    if across:
        noun = "patients" if unit == cohort.PATIENT else "source images"
        found.append(
            f"{len(across)} {noun} lie in more than one published split, "
            f"e.g. {', '.join(across[:3])}: that split leaks."
        )
    return found


def flag_problems(frame: pd.DataFrame, columns: tuple[str, ...]) -> list[str]:
    """List, in sentences, missing columns and cells that are not 0 or 1."""
    missing = [c for c in columns if c not in frame]
    found = [f"The columns {', '.join(map(repr, missing))} are missing."] if missing else []
    for column in (c for c in columns if c in frame):
        wrong = frame.loc[~frame[column].isin([0, 1]), column]
        if len(wrong):
            values = sorted({str(v) for v in wrong})[:3]
            found.append(f"{len(wrong)} cells of {column!r} are not 0 or 1, e.g. {values}.")
    return found


def refuse(
    problems: list[str],
    file: Path,
    *,
    cure: str = "Compare it with the published file, or unpack the data set again.",
) -> None:
    """Raise one ValueError that lists all problems of a file; do nothing where there is none."""
    if problems:
        lines = "\n".join(f"  - {line}" for line in problems)
        raise ValueError(f"{file} has {len(problems)} problem(s):\n{lines}\n{cure}")


def keep_existing(table: pd.DataFrame, *, missing: str, notes: list[str]) -> pd.DataFrame:
    """Decide on the rows whose file is not there, which have NA as ``path``; a note counts them.

    Args:
        missing: ``leave out`` drops them; ``keep`` keeps them, for what the table alone can answer;
            ``refuse`` raises.

    Raises:
        ValueError: ``missing`` is none of these.
        FileNotFoundError: Rows lack a file and are refused, or left out until none is left.
    """
    if missing not in (LEAVE_OUT, KEEP, REFUSE):
        raise ValueError(f"missing={missing!r}; expected {LEAVE_OUT!r}, {KEEP!r} or {REFUSE!r}.")
    without = table.loc[table[cohort.PATH].isna(), cohort.IMAGE_ID]
    if without.empty:
        return table
    sentence = (
        f"{len(without)} of {len(table)} rows have no image file, e.g. {', '.join(without[:3])}"
    )
    if missing == REFUSE or (missing == LEAVE_OUT and len(without) == len(table)):
        raise FileNotFoundError(f"{sentence}. Unpack the images beside the table.")
    if missing == KEEP:
        notes.append(f"{sentence}.")
        return table
    notes.append(f"{sentence}; they are left out.")
    return table[table[cohort.PATH].notna()].reset_index(drop=True)


def polygons_text(polygons: list) -> str:
    """Write polygons ``[[[x, y], …], …]`` in pixels as the JSON text of a ``mask`` cell."""
    return json.dumps([[[round(x, 2), round(y, 2)] for x, y in points] for points in polygons])


def terms(frame: pd.DataFrame, names: dict[str, str]) -> list[tuple[str, ...]]:
    """Turn 0/1 columns into one sorted tuple of terms per row.

    Args:
        names: For each column, the term it stands for.
    """
    values = frame[list(names)].to_numpy() == 1
    words = list(names.values())
    return [tuple(sorted(w for w, on in zip(words, row, strict=True) if on)) for row in values]
