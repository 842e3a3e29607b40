"""Every file of a hospital's export, named: radiographs with their facts, the rest with a reason.

A folder or a DICOMDIR comes in; a table with one row per file goes out. Headers are read, pixels
are not. Nothing is followed out of the folder, and no file stops the walk.

DICOMDIR: PS3.3 Annex F, PS3.10 8.6.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bonelib.dicom import elements, facts, reading

if TYPE_CHECKING:
    import pandas as pd

NOT_DICOM = (".csv", ".txt", ".json", ".xml", ".html", ".htm", ".pdf", ".jpg", ".jpeg", ".png")
NOT_DICOM += (".zip", ".exe", ".inf", ".md", ".parquet", ".ini", ".js", ".css", ".dll", ".gif")
COLUMNS = ("path", "file", "reason")
LISTING = "dicomdir"  # in any case, with an extension or an ISO 9660 version behind it


def walk(
    root: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> tuple["pd.DataFrame", list[str]]:
    """List the files of an export, sorted by name.

    Args:
        root: A folder, of which all files are looked at, or a DICOMDIR, of which those it names.
        progress: Called with (files done, files in all).

    Returns:
        One row per file with ``path`` (absolute), ``file`` (below the root), ``reason`` (None for a
        radiograph) and the columns of ``facts``; and notes, in sentences: files that are not DICOM,
        links, what a DICOMDIR names in vain.

    Raises:
        FileNotFoundError: There is no such folder or DICOMDIR.
        ValueError: The DICOMDIR can't be read.
    """
    import pandas as pd

    root, notes = Path(root).absolute(), []
    if root.is_file():
        folder, found = root.parent, _listed(root, notes)
    elif root.is_dir():
        folder, found = root, list(_files(root, notes))
        listing = next((p for p in found if p.parent == root and _plain(p.name) == LISTING), None)
        if listing is not None:
            _compare(listing, found, notes)
    else:
        raise FileNotFoundError(f"No folder or DICOMDIR {root}. Set DATA_ROOT to the export.")
    others = [path for path in found if path.suffix.lower() in NOT_DICOM]
    if others:
        kinds = ", ".join(sorted({path.suffix.lower() for path in others}))
        notes.append(f"{len(others)} files are of other kinds ({kinds}) and are left out.")
    left = [p for p in found if p.suffix.lower() not in NOT_DICOM and _plain(p.name) != LISTING]
    rows, seen = [], {}
    for done, path in enumerate(left, 1):
        row = {"path": str(path), "file": path.relative_to(folder).as_posix()} | _look(path)
        instance = row.get("instance")
        if row["reason"] is None and instance:
            first = seen.setdefault(instance, path)
            if first is not path:
                same = "a copy of" if _digest(first) == _digest(path) else "another content than"
                name = first.relative_to(folder).as_posix()
                row["reason"] = f"{same} {name}, with the same SOP Instance UID"
        rows.append(row)
        if progress is not None:
            progress(done, len(left))
    names = list(facts.FACTS)
    return pd.DataFrame(rows, columns=[*COLUMNS, *names]), notes


def _look(path: Path) -> dict:
    """Read the facts of a file's header, and why it is no radiograph that can be read."""
    try:
        header, _ = reading.parse(path, pixels=False)
        problems = reading.problems(header)
        return {"reason": elements.printable("; ".join(problems)) or None} | facts.read(header)
    except elements.broken() as error:
        return {"reason": elements.reason_of(error)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files(root: Path, notes: list[str]) -> Iterator[Path]:
    """Yield all files below ``root`` in the order of their names; links are named, not followed."""
    links, shut = [], []
    for folder, folders, names in os.walk(root, onerror=lambda e: shut.append(str(e.filename))):
        folders.sort()
        for name in sorted(names + [f for f in folders if os.path.islink(os.path.join(folder, f))]):
            path = Path(folder, name)
            if path.is_symlink():
                links.append(path)
            elif name[0] != ".":
                yield path
    for paths, text in (
        (links, "links are not followed"),
        (shut, "folders may not be read and are left out"),
    ):
        if paths:
            notes.append(f"{len(paths)} {text}, e.g. {os.path.relpath(min(paths), root)}.")


def _listed(file: Path, notes: list[str]) -> list[Path]:
    """Find the files that a DICOMDIR names; those outside its folder or missing are named.

    Copying a disc changes names: their case, ``.dcm`` or ``;1`` behind them. Where a name is not
    there, the one file is taken whose name differs by no more than that.
    """
    folder = file.parent
    found, outside, missing, renamed = [], [], [], []
    alike: dict[tuple[str, ...], list[Path]] = {}
    for parts in _references(file):
        path, name = folder.joinpath(*parts), "/".join(parts)
        if not path.resolve().is_relative_to(folder.resolve()):
            outside.append(name)
            continue
        if not path.is_file():
            if not alike:
                for other in _files(folder, []):
                    alike.setdefault(_key(other.relative_to(folder).parts), []).append(other)
            others = alike.get(_key(parts), [])
            if len(others) != 1:
                missing.append(name)
                continue
            renamed.append(name)
            path = others[0]
        found.append(path)
    for names, text in (
        (outside, "files outside its folder, which are not read"),
        (missing, "files that are not there"),
        (renamed, "files that are there under another case or extension, and are read"),
    ):
        if names:
            notes.append(f"The DICOMDIR names {len(names)} {text}, e.g. {names[0]}.")
    return sorted(set(found))


def _plain(name: str) -> str:
    """Return a file's name in lower case without version and extension of DICOM files."""
    return re.sub(r"(\.(dcm|dicom|dic|ima|img)|\.)?(;\d+)?$", "", name.lower())


def _key(parts: tuple[str, ...]) -> tuple[str, ...]:
    *folders, name = parts
    return (*(folder.lower() for folder in folders), _plain(name))


def _compare(listing: Path, found: list[Path], notes: list[str]) -> None:
    """Hold the folder's own DICOMDIR against the files that are there; all of them are read."""
    try:
        named = set(_listed(listing, notes))
    except ValueError as error:
        notes.append(f"{error} All files of the folder are read.")
        return
    extra = [p for p in found if _plain(p.name) != LISTING and p.suffix.lower() not in NOT_DICOM]
    extra = [path for path in extra if path not in named]
    if extra:
        notes.append(
            f"{len(extra)} files are not named in the DICOMDIR and are read all the same, "
            f"e.g. {extra[0].relative_to(listing.parent).as_posix()}."
        )


def _references(file: Path) -> list[tuple[str, ...]]:
    try:
        header, _ = reading.parse(file)
        if "DirectoryRecordSequence" not in header:
            raise ValueError("it names no files; give the folder of the radiographs")
        records = header.DirectoryRecordSequence or ()
        found = [record.get("ReferencedFileID") for record in records]
    except elements.broken() as error:
        raise ValueError(f"The DICOMDIR {file} can't be read ({error}).") from error
    named = [(v,) if isinstance(v, str) else tuple(map(str, v)) for v in found if v]
    # Some writers put the whole path, with their own separator, into the first component.
    return [tuple("/".join(parts).replace("\\", "/").split("/")) for parts in named]
