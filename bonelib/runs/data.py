"""The content of a data set as one hash, by which a run knows that what it read has changed.

The name of a data set and its folder come in; sixteen hex digits go out. Neither where the files
lie nor when they were written counts, so a copy is the same data; a flipped label, a picture
replaced or deleted is not.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bonelib.runs.files import cache_folder, hashes
from bonelib.runs.paths import csv_rows, data_files, data_root, is_drawn, task_files

NAMED = ("path", "mask", "report")  # columns of a CSV that may hold the path of a file
WORKERS = min(8, os.cpu_count() or 1)  # threads that read files


def content(paths: Iterable[str | Path]) -> list[str]:
    """Return the sha256 of each file, empty where it is missing; known files aren't read again.

    The index is that of the image cache, which asks for the same files.
    """
    return hashes(list(paths), index=cache_folder("images") / "hashes.json", workers=WORKERS)


def fingerprint(data: str, root: str = "") -> str:
    """Hash the content of a data set, or return an empty text for a cohort that is only drawn.

    Of a folder all files below it that are not hidden count, with their relative names; of a CSV
    its rows, with the content of the files they name in place of their paths, and its tasks.toml.

    Args:
        data: The name of a set, several as ``a+b``, or the path of a CSV.
        root: As in ``data_root``; of the synthetic cohort the folder it was drawn into.

    Raises:
        FileNotFoundError: The data are not here.
    """
    if is_drawn(data) and not root:
        return ""
    where = data_root(data, root)
    if data.endswith(".csv"):
        facts = _rows(Path(data), where)
        facts += content(task_files(data, root))  # an order of classes changes every label
    else:
        files = data_files(data, where)
        facts = list(zip(files, content(files.values()), strict=True))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _rows(file: Path, root: Path) -> list[list[tuple[str, str]]]:
    rows, paths = csv_rows(file), {}
    for cell in {row[c] for row in rows for c in NAMED if row.get(c)}:
        places = (file.parent / cell, root / cell)  # an absolute path stays itself
        if path := next(filter(os.path.isfile, places), None):
            paths[cell] = path
    contents = dict(zip(paths, content(paths.values()), strict=True))
    return [
        [(c, contents.get(cell, cell) if c in NAMED else cell) for c, cell in row.items()]
        for row in rows
    ]


def file_contents(files: Mapping[str, str | Path]) -> dict[str, dict[str, str]]:
    """Describe the further files of a run: where each lies, and its content.

    Raises:
        FileNotFoundError: Some are not there; all are named.
    """
    paths = {name: Path(path).absolute() for name, path in files.items()}
    missing = [f"{name} ({path})" for name, path in paths.items() if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"There is no file for {', '.join(missing)}.")
    found = zip(paths.items(), content(paths.values()), strict=True)
    return {name: {"path": str(path), "hash": digest[:16]} for (name, path), digest in found}
