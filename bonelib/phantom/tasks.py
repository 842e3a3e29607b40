"""Small drawn sets for the other bone tasks, each in the layout of the real set it stands in for.

Their readers read them. Each kind is a module with ``plan`` (its cases), ``take`` (the picture of a
case), ``paths`` (the files that hold each picture), ``FOLDERS`` and ``tables`` (what the layout
holds beside pictures). ``phantom.json`` is written last; it says that the folder is complete and
that nothing in it was ever a patient.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from . import fractures, hands, knees
from .acquisition import check_size
from .files import FINISHED, check, finish, in_processes, save, start

KINDS = {"hands": hands, "knees": knees, "fractures": fractures}
VERSION = 1  # raised whenever the same settings would give other pixels
FEWEST = 20  # images: fewer can't hold every class and part


def write_task(
    folder: str | Path,
    *,
    kind: str,
    images: int,
    seed: int = 0,
    size: int = 512,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a folder of synthetic radiographs for one of the other bone tasks.

    As with ``write``, the same settings give the same bytes for any number of workers, a call that
    was interrupted is continued by the same call, and a finished folder is returned as it is.

    Args:
        kind: ``hands`` (bone age, 1 to 18 years), ``knees`` (grades 0 to 4 of two readers) or
            ``fractures`` (fractured or intact, with outlines).
        images: Half of the hands are boys', a fifth of the knees has each grade, half of the bones
            are fractured.
        size: Longer side of the largest pictures in pixels.
        workers: Processes that draw.
        progress: Called with (finished, all) images.

    Returns:
        The folder.

    Raises:
        ValueError: The request is impossible, or the folder holds something else.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown kind {kind!r}. Choose one of {', '.join(KINDS)}.")
    folder, drawing = Path(folder), KINDS[kind]
    settings = {"synthetic": True, "kind": kind, "version": VERSION}
    settings |= {"seed": seed, "images": images, "size": size}
    least = {"images": (images, FEWEST), "seed": (seed, 0), "workers": (workers, 1)}
    check(folder, settings, check_size(size), least=least, holds=drawing.FOLDERS)
    if (folder / FINISHED).exists():
        if progress:
            progress(images, images)
        return folder
    start(folder, settings, drawing.FOLDERS)
    cases = drawing.plan(images, seed)
    paths = drawing.paths(cases)
    rows = [(kind, folder, *row, size) for row in zip(cases, paths, strict=True)]
    drawing.tables(folder, cases, paths, list(in_processes(_one, rows, workers, progress)))
    finish(folder, settings)
    return folder


def _one(row: tuple[str, Path, Any, list[str], int]) -> Any:
    """Draw one picture unless it is there, its first file last; return what tables say of it."""
    kind, folder, case, paths, size = row
    if not (folder / paths[0]).exists():
        picture, quality = KINDS[kind].take(case, size)
        options = [cv2.IMWRITE_JPEG_QUALITY, quality] if paths[0].endswith("jpg") else []
        content = cv2.imencode(Path(paths[0]).suffix, picture, options)[1].tobytes()
        for path in reversed(paths):
            save(folder / path, content)
    return fractures.outlined(case, size) if kind == "fractures" else None
