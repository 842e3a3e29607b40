"""FracAtlas: radiographs of hand, leg, hip and shoulder, with or without a fracture.

Source: Abedeen I. et al., Scientific Data 10:521 (2023), doi 10.1038/s41597-023-02432-4; data
doi 10.6084/m9.figshare.22363012, licence CC BY 4.0. 4,083 images, labelled by two radiologists and
an orthopaedist: fracture, body part, view, hardware; outlines of the fractures as polygons (COCO,
VGG) and boxes (YOLO, Pascal VOC). COCO's are read; the boxes agree with them.

Known faults: no patient ids; 59 truncated JPEGs among the intact (``images.cache`` names and leaves
them out); IMG0003298 lies in ``Fractured/`` with one outlined fracture, but its row says 0; a few
JPEGs are turned by EXIF and outlined as shown; VGG lacks outlines that the other formats have in
IMG0000851, 2086, 2395 and 2471, and draws one of IMG0002614 elsewhere; hardware goes with a
fracture almost always, hip and shoulder hardly ever.
"""

import json
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

PARTS = ("hand", "leg", "hip", "shoulder")
FOLDERS = {"Fractured": 1, "Non_fractured": 0}
COCO = Path("Annotations", "COCO JSON", "COCO_fracture_masks.json")


def read(root: Path, notes: list[str]) -> pd.DataFrame:
    """Read the FracAtlas folder; the label is that of ``dataset.csv``, not of the folder.

    Returns:
        The cohort table with ``fracture`` (intact, fractured), ``fracture_count``, ``hardware``
        (0/1), and ``mask``: the outlines as JSON polygons in pixels of the stored image.

    Raises:
        FileNotFoundError: No ``dataset.csv`` is there.
        ValueError: Columns or values are not those of the release; all problems are listed.
    """
    file = datasets.locate(root, ("dataset.csv",), inner="FracAtlas")
    root = file.parent
    csv = datasets.read_table(file, notes)
    flags = (*PARTS, *cohort.VIEWS, "hardware", "fractured")
    problems = datasets.lacking(csv, ["image_id"]) + datasets.flag_problems(csv, flags)
    datasets.refuse(problems, file)

    files = datasets.files_below(*(root / "images" / name for name in FOLDERS))
    masks = _outlines(root / COCO, notes)
    ids = csv["image_id"].astype(str)

    table = cohort.empty(len(csv))
    table[cohort.IMAGE_ID] = ids
    table[cohort.PATH] = datasets.paths(ids, files)
    table[cohort.SITE] = datasets.terms(csv, {part: part for part in PARTS})
    table[cohort.VIEW] = datasets.terms(csv, {view: view for view in cohort.VIEWS})
    table[cohort.MASK] = [masks.get(i, pd.NA) for i in ids]
    table[cohort.HARDWARE] = csv["hardware"].astype("Int64")
    table["fracture"] = csv["fractured"].map(dict(enumerate(cohort.task("fracture").classes)))
    if "fracture_count" in csv:
        table["fracture_count"] = csv["fracture_count"].astype("Int64")

    notes += _contradictions(table, files)
    return table


def _outlines(file: Path, notes: list[str]) -> dict[str, str]:
    """Collect from the COCO file each image's polygons, as JSON text."""
    if not file.is_file():
        notes.append(f"No {file.name} beside the images: no fracture has an outline.")
        return {}
    coco = json.loads(file.read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    polygons: dict[str, list] = {}
    skipped = 0
    for annotation in coco["annotations"]:  # whatever its category is called
        rings = annotation.get("segmentation")
        if not isinstance(rings, list) or annotation["image_id"] not in names:
            skipped += 1  # run-length masks don't occur in the release
            continue
        points = [list(zip(ring[::2], ring[1::2], strict=True)) for ring in rings]
        polygons.setdefault(names[annotation["image_id"]], []).extend(points)
    if skipped:
        notes.append(f"{skipped} annotations of {file.name} are not polygons of a listed image.")
    return {name: datasets.polygons_text(points) for name, points in polygons.items()}


def _contradictions(table: pd.DataFrame, files: dict[str, Path]) -> list[str]:
    ids, label, outlined = table[cohort.IMAGE_ID], table["fracture"], table[cohort.MASK].notna()
    intact, fractured = (label == name for name in cohort.task("fracture").classes)
    notes = datasets.counted(sorted(set(files) - set(ids)), datasets.NO_ROW)
    names = cohort.task("fracture").classes
    for image, path, name in zip(ids, table[cohort.PATH], label, strict=True):
        folder = Path(path).parent.name if pd.notna(path) else None
        if folder in FOLDERS and names[FOLDERS[folder]] != name:
            notes.append(f"{image} lies in {folder}/ but dataset.csv calls it {name}; so do we.")
    for which, text in (
        (fractured & ~outlined & outlined.any(), "fractured images have no outline"),
        (intact & outlined, "intact images have an outline"),
    ):
        notes += datasets.counted(ids[which], f"{{n}} {text}, e.g. {{names}}.")
    hardware = table[cohort.HARDWARE] == 1
    if fractured[hardware].all():
        text = "All {n} images with hardware are fractured: it gives the label away."
        notes += datasets.counted(ids[hardware], text)
    return notes
