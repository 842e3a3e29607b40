"""FracAtlas: radiographs of hand, leg, hip and shoulder, with or without a fracture.

Source: Abedeen I. et al., Scientific Data 10:521 (2023), doi 10.1038/s41597-023-02432-4; data
doi 10.6084/m9.figshare.22363012, licence CC BY 4.0. 4,083 images, labelled by two radiologists and
an orthopaedist: fracture, body part, view, hardware; outlines of the fractures as polygons.

Known faults: no patient ids; 59 truncated JPEGs among the intact (``images.cache`` names and leaves
them out); IMG0003298 lies in ``Fractured/`` with one outlined fracture, but its row says 0; a few
JPEGs are turned by EXIF and outlined as shown; hardware goes with a fracture almost always, hip and
shoulder hardly ever.
"""

import json
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

PARTS = ("hand", "leg", "hip", "shoulder")
FOLDERS = {"Fractured": 1, "Non_fractured": 0}
COCO = Path("Annotations", "COCO JSON", "COCO_fracture_masks.json")


def read(root: str | Path, *, require_images: bool = False) -> pd.DataFrame:
    """Read the FracAtlas folder; the label is that of ``dataset.csv``, not of the folder.

    Args:
        require_images: Raise where a row has no file instead of leaving it out with a note.

    Returns:
        The cohort table with ``fracture`` (intact, fractured), ``fracture_count``, ``hardware``
        (0/1), and ``mask``: the outlines as JSON polygons in pixels of the stored image.

    Raises:
        FileNotFoundError: No ``dataset.csv`` or no image is there.
        ValueError: Columns or values are not those of the release; all problems are listed.
    """
    file = datasets.locate(root, ("dataset.csv",), inner="FracAtlas")
    root = file.parent
    csv = pd.read_csv(file, encoding="utf-8-sig")
    flags = (*PARTS, *cohort.VIEWS, "hardware", "fractured")
    problems = datasets.flag_problems(csv, flags)
    if "image_id" not in csv:
        problems.append("The column 'image_id' is missing.")
    datasets.refuse(problems, file)

    notes: list[str] = []
    files = datasets.files_below(*(root / "images" / name for name in FOLDERS))
    masks = _outlines(root / COCO, notes)
    ids = csv["image_id"].astype(str)

    table = cohort.empty(len(csv))
    table[cohort.IMAGE_ID] = ids
    table[cohort.PATH] = [str(files[i]) if i in files else pd.NA for i in ids]
    table[cohort.SOURCE] = "fracatlas"
    table[cohort.SITE] = datasets.terms(csv, {part: part for part in PARTS})
    table[cohort.VIEW] = datasets.terms(csv, {view: view for view in cohort.VIEWS})
    table[cohort.MASK] = [masks.get(i, pd.NA) for i in ids]
    table[cohort.HARDWARE] = csv["hardware"].astype("Int64")
    table["fracture"] = csv["fractured"].map(dict(enumerate(cohort.task("fracture").classes)))
    if "fracture_count" in csv:
        table["fracture_count"] = csv["fracture_count"].astype("Int64")

    notes += _contradictions(table, files)
    table = datasets.keep_existing(table, required=require_images, notes=notes)
    table.attrs["notes"] = notes
    return table


def _outlines(file: Path, notes: list[str]) -> dict[str, str]:
    """Collect the polygons of each image from the COCO file, whatever its categories are called."""
    if not file.is_file():
        notes.append(f"No {file.name} beside the images: no fracture has an outline.")
        return {}
    coco = json.loads(file.read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    polygons: dict[str, list] = {}
    skipped = 0
    for annotation in coco["annotations"]:
        rings = annotation.get("segmentation")
        if not isinstance(rings, list) or annotation["image_id"] not in names:
            skipped += 1  # run-length masks don't occur in the release
            continue
        points = [list(zip(ring[::2], ring[1::2], strict=True)) for ring in rings]
        polygons.setdefault(names[annotation["image_id"]], []).extend(points)
    if skipped:
        notes.append(f"{skipped} annotations of {file.name} are not polygons of a listed image.")
    return {name: datasets.polygons_text(points) for name, points in polygons.items() if points}


def _contradictions(table: pd.DataFrame, files: dict[str, Path]) -> list[str]:
    notes = []
    strangers = sorted(set(files) - set(table[cohort.IMAGE_ID]))
    if strangers:
        notes.append(
            f"{len(strangers)} image files have no row in dataset.csv and are left out, "
            f"e.g. {', '.join(strangers[:3])}."
        )
    names = cohort.task("fracture").classes
    for image, path, label in zip(
        table[cohort.IMAGE_ID], table[cohort.PATH], table["fracture"], strict=True
    ):
        folder = Path(path).parent.name if pd.notna(path) else None
        if folder in FOLDERS and names[FOLDERS[folder]] != label:
            notes.append(f"{image} lies in {folder}/ but dataset.csv calls it {label}; so do we.")
    bare = table.loc[(table["fracture"] == names[1]) & table[cohort.MASK].isna(), cohort.IMAGE_ID]
    if len(bare) and table[cohort.MASK].notna().any():
        notes.append(f"{len(bare)} fractured images have no outline, e.g. {', '.join(bare[:3])}.")
    outlined = table.loc[
        (table["fracture"] == names[0]) & table[cohort.MASK].notna(), cohort.IMAGE_ID
    ]
    if len(outlined):
        notes.append(f"{len(outlined)} intact images have an outline: {', '.join(outlined[:3])}.")
    if table[cohort.PATIENT].isna().all():
        notes.append("FracAtlas names no patients: groups can only be found from the images.")
    hardware = table[table[cohort.HARDWARE] == 1]
    if len(hardware) and (hardware["fracture"] == names[1]).all():
        notes.append(
            f"All {len(hardware)} images with hardware are fractured: it gives the label away."
        )
    return notes
