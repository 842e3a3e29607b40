"""How readers find the files of a data set, and read its tables and texts."""

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bonelib import tables
from bonelib.datasets.sentences import counted

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


def read_table(
    file: Path, notes: list[str], *, header: bool = True, numbers: bool = False
) -> pd.DataFrame:
    """Read a table of a published set by ``tables.read``, its rows numbered from 0.

    Args:
        header: The first row holds the names of the columns; else they are 0, 1, ….
        numbers: Make numbers of the columns that hold nothing else; ids stay text.
        notes: Gains what had to be assumed.

    Raises:
        ValueError: It is no table, or a package to read Excel files is missing.
    """
    frame = tables.read(file, notes, header=header).reset_index(drop=True)
    for column in frame.columns.difference(tables.TEXTS) if numbers else ():
        values = pd.to_numeric(frame[column], errors="coerce")
        if values.notna().equals(frame[column].notna()):
            frame[column] = values
    return frame


def text_of(file: Path, notes: list[str]) -> str:
    """Decode a text file as ``tables.decode`` does; ``notes`` gains a sentence for a guess.

    Raises:
        ValueError: Its bytes are no text.
    """
    try:
        text, assumed = tables.decode(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} {error}") from error
    notes += [f"{file.name} {assumed}"] if assumed else []
    return text
