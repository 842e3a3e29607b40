"""Write a synthetic cohort in BTXRD's own layout, with its truth beside it.

``images/``, ``Annotations/`` (LabelMe 5.4.1, tumours only) and ``dataset.csv`` follow BTXRD to the
letter (Yao et al. 2025, Scientific Data 12:88); what BTXRD lacks stands in ``cohort_extra.csv`` and
``masks/``. An unlabelled ``archive/`` for pretraining comes with its facts, and each study with its
report (``reports.py``). ``phantom.json`` is written last and says that the folder is complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from bonelib import cohort

from .acquisition import Radiograph, check_size, describe, take
from .files import FINISHED, check, finish, in_processes, save, save_table, start
from .marginals import ENTITY_NAMES, SITES, term
from .reports import LANGUAGES, check_reports, write_reports
from .sampling import Case, archive_case, plan

VERSION = 2  # raised whenever the same settings would give other pixels
FEWEST = 8  # images: fewer can't hold every class twice
COLUMNS = (
    "image_id", "center", "age", "gender", *SITES, "tumor", "benign", "malignant", *ENTITY_NAMES,
    "upper limb", "lower limb", "pelvis", *cohort.VIEWS,
)  # fmt: skip
EXTRA_COLUMNS = (
    "image_id", "patient", "study", "side", "site", "view", *cohort.SIGNS, "entity", "kind", "mask",
    "distractor",
)  # fmt: skip


def write(
    folder: str | Path,
    *,
    images: int,
    archive: int = 0,
    seed: int = 0,
    size: int = 512,
    workers: int = 1,
    reports: bool = True,
    languages: Sequence[str] = LANGUAGES,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a folder of synthetic radiographs that any BTXRD reader can read.

    The same settings give the same bytes for any number of workers. A call that was interrupted is
    continued by the same call; a finished folder is returned as it is.

    Args:
        images: Labelled images, about half of them normal, 41 % benign, 9 % malignant.
        archive: Unlabelled images for pretraining, in ``archive/``.
        size: Longer side of the largest pictures in pixels.
        workers: Processes that draw.
        reports: Write a report for each study, also of the archive (``reports/``); a finished
            folder that has none gets them.
        languages: Of the reports.
        progress: Called with (finished, all) images.

    Returns:
        The folder.

    Raises:
        ValueError: The request is impossible, or the folder holds a cohort with other settings.
    """
    folder = Path(folder)
    telling = {"seed": seed, "images": images, "archive": archive}
    settings = {"synthetic": True, "version": VERSION, **telling, "size": size}
    least = {"images": (images, FEWEST), "archive": (archive, 0), "seed": (seed, 0)}
    least |= {"workers": (workers, 1)}
    check(folder, settings, check_size(size), least=least, holds=("dataset.csv", "images"))
    telling["languages"] = languages
    if reports:
        check_reports(folder, **telling)
    if (folder / FINISHED).exists():
        if progress:
            progress(images + archive, images + archive)
        return write_reports(folder, **telling) if reports else folder
    folders = ("images", "Annotations", "masks", "archive/images")[: None if archive else 3]
    start(folder, settings, folders)

    rows = [(folder, name, case, size) for name, case in _names(plan(images, seed))]
    rows += [
        (folder / "archive", f"ARC{i + 1:06d}.jpeg", archive_case(seed, i), size)
        for i in range(archive)
    ]
    facts = list(in_processes(_one, rows, workers, progress))
    save_table(folder / "dataset.csv", [_row(n, c) for _, n, c, _ in rows[:images]], COLUMNS)
    save_table(folder / "cohort_extra.csv", facts[:images], EXTRA_COLUMNS)
    if archive:
        columns = [c for c in EXTRA_COLUMNS if c != "mask"] + ["center", "age", "gender"]
        save_table(folder / "archive" / "facts.csv", facts[images:], columns)
    if reports:
        write_reports(folder, **telling)
    finish(folder, settings)
    return folder


def dataset(images: int, seed: int) -> pd.DataFrame:
    """The rows that ``dataset.csv`` would have, of a cohort that need not be drawn."""
    rows = [_row(name, case) for name, case in _names(plan(images, seed))]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _names(cases: list[Case]) -> Iterator[tuple[str, Case]]:
    """File names as in BTXRD: the normals of centre 3 end in .jpg, all others in .jpeg."""
    for number, case in enumerate(cases, start=1):
        ending = "jpg" if case.label == "normal" and case.center == 3 else "jpeg"
        yield f"IMG{number:06d}.{ending}", case


def _one(row: tuple[Path, str, Case, int]) -> dict:
    """Draw one image unless it is there; return its facts. The image itself is saved last."""
    folder, name, case, size = row
    stem = name.split(".")[0]
    outlined = case.entity and folder.name != "archive"
    target = folder / "images" / name
    if target.exists():
        seen = describe(case)
    else:
        radiograph = take(case, size=size)
        seen = {**radiograph.signs, "kind": radiograph.kind}
        if outlined:
            mask = radiograph.mask.astype("uint8") * 255
            save(folder / "masks" / f"{stem}.png", cv2.imencode(".png", mask)[1].tobytes())
            note = json.dumps(_labelme(name, radiograph), indent=2)
            save(folder / "Annotations" / f"{stem}.json", note.encode())
        quality = [cv2.IMWRITE_JPEG_QUALITY, radiograph.quality]
        save(target, cv2.imencode(".jpg", radiograph.image, quality)[1].tobytes())
    return {
        "image_id": name,
        "patient": case.patient,
        "study": case.study,
        "side": case.side,
        "site": ";".join(case.sites),
        "view": case.view,
        **seen,
        "entity": case.entity or "none",
        "mask": f"masks/{stem}.png" if outlined else "",
        "distractor": case.distractor,
        "center": case.center,
        "age": case.age,
        "gender": case.sex,
    }


def _labelme(name: str, radiograph: Radiograph) -> dict:
    blank = {"group_id": None, "description": "", "shape_type": "", "flags": {}, "mask": None}
    shapes = []
    for shape in radiograph.shapes:
        corners = np.reshape(shape.box, (2, 2))  # left, top, right, bottom
        for kind, points in (("rectangle", corners), ("polygon", shape.polygon)):
            outline = {"label": shape.label, "points": points.tolist()}
            shapes.append(outline | blank | {"shape_type": kind})
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": radiograph.image.shape[0],
        "imageWidth": radiograph.image.shape[1],
    }


def _row(name: str, case: Case) -> dict:
    row = dict.fromkeys(COLUMNS, 0)
    row |= {"image_id": name, "center": case.center, "age": case.age, "gender": case.sex}
    if case.entity:  # as in BTXRD, a normal's site is not told
        row |= dict.fromkeys(case.sites, 1)
        row |= {"tumor": 1, case.label: 1, case.entity: 1}
    row[cohort.region((term(case.sites[0]),))] = 1
    row[case.view] = 1
    return row
