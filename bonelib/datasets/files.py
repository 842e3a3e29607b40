"""How readers find the files of a data set, and read tables whatever program saved them."""

import io
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bonelib.datasets.sentences import counted, refuse

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm")


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
    for kind, text in (
        ("again", "links lead to a folder that was read already and were not entered again"),
        ("lost", "links lead nowhere or in a circle and are left out"),
        ("out", "links lead out of the folder and were followed"),
        ("shut", "folders may not be read and are left out"),
    ):
        notes += counted(sorted(odd[kind]), f"{{n}} {text}, e.g. {{names}}.")
    return dict(sorted(found.items()))


def pictures(files: dict[str, Path]) -> dict[str, Path]:
    """Keep the files that are images by their names."""
    return {name: path for name, path in files.items() if path.suffix.lower() in PICTURES}


def paths(ids: Iterable[str], files: dict[str, Path]) -> list:
    """Return the path of each image as text, NA where there is none."""
    return [str(files[name]) if name in files else pd.NA for name in ids]


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
