"""FracAtlas: radiographs of hand, leg, hip and shoulder, with or without a fracture.

Source: Abedeen I. et al., Scientific Data 10:521 (2023), doi 10.1038/s41597-023-02432-4; data
doi 10.6084/m9.figshare.22363012, licence CC BY 4.0. 4,083 images, labelled by two radiologists and
an orthopaedist: fracture, body part, view, hardware; outlines of the fractures as polygons (COCO,
VGG) and boxes (YOLO, Pascal VOC). COCO's are read; the boxes agree with them.

Known faults: no patient ids; 59 truncated JPEGs among the intact (``images.cache`` names and leaves
them out); IMG0003298 lies in ``Fractured/`` with one outlined fracture, but its row says 0: its
label is missing until the row is corrected or the file moved; a few JPEGs are turned by EXIF and
outlined as shown; VGG lacks outlines that the other formats have in IMG0000851, 2086, 2395 and
2471, and draws one of IMG0002614 elsewhere (a test compares the four); hardware goes with a
fracture almost always, hip and shoulder hardly ever.
"""

from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets
from bonelib.datasets import outlines

PARTS = ("hand", "leg", "hip", "shoulder")
FOLDERS = {"Fractured": 1, "Non_fractured": 0}
COCO = Path("Annotations", "COCO JSON", "COCO_fracture_masks.json")
VGG = Path("Annotations", "VGG JSON", "VGG_fracture_masks.json")


def read(root: Path, notes: list[str]) -> pd.DataFrame:
    """Read the FracAtlas folder; the label is that of ``dataset.csv``, not of the folder.

    Returns:
        The cohort table with ``fracture`` (intact, fractured; NA where both folder and outline
        contradict the row), ``fracture_count``, ``hardware``
        (0/1), and ``mask``: the outlines as JSON polygons in pixels of the stored image.

    Raises:
        FileNotFoundError: No ``dataset.csv`` is there.
        ValueError: Columns or values are not those of the release; all problems are listed.
    """
    file = datasets.locate(root, ("dataset.csv",), inner="FracAtlas")
    root = file.parent
    csv = datasets.read_table(file, notes, numbers=True)
    flags = (*PARTS, *cohort.VIEWS, "hardware", "fractured")
    problems = datasets.lacking(csv, ["image_id"]) + datasets.flag_problems(csv, flags)
    datasets.refuse(problems, file)

    files = datasets.files_below(*(root / "images" / name for name in FOLDERS))
    masks = _outlines(root, notes)
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


def _outlines(root: Path, notes: list[str]) -> dict[str, str]:
    """Collect each image's polygons, as JSON text, from the COCO file or else from VGG's."""
    file = next((root / name for name in (COCO, VGG) if (root / name).is_file()), None)
    if file is None:
        notes.append(f"No {COCO.name} beside the images: no fracture has an outline.")
        return {}
    read = outlines.coco if file.name == COCO.name else outlines.via
    try:
        found = read(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: {error}. Unpack the data set again.") from error
    notes += outlines.open_notes(shape for shapes in found.values() for shape in shapes)
    if strangers := len(found.pop("", [])):
        notes.append(f"{strangers} annotations of {file.name} belong to no listed image.")
    cells = {name: outlines.cell(shapes) for name, shapes in found.items()}
    return {name: cell for name, cell in cells.items() if cell}


def _contradictions(table: pd.DataFrame, files: dict[str, Path]) -> list[str]:
    ids, label, outlined = table[cohort.IMAGE_ID], table["fracture"], table[cohort.MASK].notna()
    intact, fractured = (label == name for name in cohort.task("fracture").classes)
    notes = datasets.counted(sorted(set(files) - set(ids)), datasets.NO_ROW)
    names = cohort.task("fracture").classes
    for row, (image, path, name) in enumerate(zip(ids, table[cohort.PATH], label, strict=True)):
        folder = Path(path).parent.name if pd.notna(path) else None
        if folder not in FOLDERS or names[FOLDERS[folder]] == name:
            continue
        told = f"{image} lies in {folder}/ but dataset.csv calls it {name}"
        if outlined.any() and outlined[row] == FOLDERS[folder]:  # two of three against the row
            table.loc[row, "fracture"] = pd.NA
            told += f" and it has {'an' if outlined[row] else 'no'} outline: its label is missing. "
            notes.append(told + "Decide: correct its row, or move the file to the other folder.")
        else:
            notes.append(f"{told}; so do we.")
    torn = table["fracture"].isna()
    for which, text in (
        (fractured & ~outlined & outlined.any() & ~torn, "fractured images have no outline"),
        (intact & outlined & ~torn, "intact images have an outline"),
    ):
        notes += datasets.counted(ids[which], f"{{n}} {text}, e.g. {{names}}.")
    hardware = table[cohort.HARDWARE] == 1
    if fractured[hardware].all():
        text = "All {n} images with hardware are fractured: it gives the label away."
        notes += datasets.counted(ids[hardware], text)
    return notes
