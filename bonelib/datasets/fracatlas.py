"""FracAtlas: radiographs of hand, leg, hip and shoulder, with or without a fracture.

Source: Abedeen I. et al., Scientific Data 10:521 (2023), doi 10.1038/s41597-023-02432-4; data
doi 10.6084/m9.figshare.22363012, licence CC BY 4.0. 4,083 images, labelled by two radiologists and
an orthopaedist: fracture, body part, view, hardware; outlines of the fractures as polygons (COCO,
VGG) and boxes (YOLO, Pascal VOC). COCO's are read, the others compared with them.

Known faults: no patient ids; 59 truncated JPEGs among the intact (``images.cache`` names and leaves
them out); IMG0003298 lies in ``Fractured/`` with one outlined fracture, but its row says 0; a few
JPEGs are turned by EXIF and outlined as shown; VGG lacks outlines that the other formats have in
IMG0000851, 2086, 2395 and 2471, and draws one of IMG0002614 elsewhere; hardware goes with a
fracture almost always, hip and shoulder hardly ever.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from bonelib import cohort, datasets

PARTS = ("hand", "leg", "hip", "shoulder")
FOLDERS = {"Fractured": 1, "Non_fractured": 0}
COCO = Path("Annotations", "COCO JSON", "COCO_fracture_masks.json")
VGG = Path("Annotations", "VGG JSON", "VGG_fracture_masks.json")
YOLO, VOC = Path("Annotations", "YOLO"), Path("Annotations", "PASCAL VOC")
APART = 2  # pixels: Pascal VOC cuts to whole pixels, YOLO rounds to four decimals


def read(root: str | Path, *, missing: str = datasets.LEAVE_OUT) -> pd.DataFrame:
    """Read the FracAtlas folder; the label is that of ``dataset.csv``, not of the folder.

    Args:
        missing: Rows without a file, as in ``datasets.keep_existing``.

    Returns:
        The cohort table with ``fracture`` (intact, fractured), ``fracture_count``, ``hardware``
        (0/1), and ``mask``: the outlines as JSON polygons in pixels of the stored image.

    Raises:
        FileNotFoundError: No ``dataset.csv`` or no image is there.
        ValueError: Columns or values are not those of the release; all problems are listed.
    """
    file = datasets.locate(root, ("dataset.csv",), inner="FracAtlas")
    root = file.parent
    notes: list[str] = []
    csv = datasets.read_table(file, notes)
    flags = (*PARTS, *cohort.VIEWS, "hardware", "fractured")
    problems = datasets.flag_problems(csv, flags)
    if "image_id" not in csv:
        problems.append("The column 'image_id' is missing.")
    datasets.refuse(problems, file)

    files = datasets.files_below(*(root / "images" / name for name in FOLDERS))
    masks, sizes = _outlines(root / COCO, notes)
    notes += _disagreements(root, masks, sizes)
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
    table = datasets.keep_existing(table, missing=missing, notes=notes)
    table.attrs["notes"] = notes
    return table


def _outlines(
    file: Path, notes: list[str]
) -> tuple[dict[str, str], dict[str, tuple[float, float]]]:
    """Collect from the COCO file each image's polygons, as JSON text, and its width and height."""
    if not file.is_file():
        notes.append(f"No {file.name} beside the images: no fracture has an outline.")
        return {}, {}
    coco = json.loads(file.read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    sizes = {i["file_name"]: (i["width"], i["height"]) for i in coco["images"]}
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
    return {name: datasets.polygons_text(points) for name, points in polygons.items()}, sizes


def _disagreements(
    root: Path, masks: dict[str, str], sizes: dict[str, tuple[float, float]]
) -> list[str]:
    """Compare the boxes around COCO's polygons with the other three formats, where they lie."""
    coco = {name: [_around(points) for points in json.loads(text)] for name, text in masks.items()}
    found = []
    for name, folder, boxes in (
        ("VGG", root / VGG, _vgg),
        ("YOLO", root / YOLO, _yolo),
        ("Pascal VOC", root / VOC, _voc),
    ):
        if not folder.exists() or not coco:
            continue
        other, broken = boxes(folder, sizes)
        # A format that lists no image without a fracture says the same as one with empty entries.
        images = sorted({image for image in coco | other if coco.get(image) or other.get(image)})
        counts, places = [], []
        for image in images:
            first, second = coco.get(image, []), other.get(image, [])
            if len(first) != len(second):
                counts.append(f"{image} ({len(second)} of {len(first)})")
            elif (_apart(first, second).min(axis=1) > APART).any():
                places.append(image)
        if counts:
            found.append(
                f"{name} has another number of fractures than COCO in {len(counts)} images, "
                f"e.g. {', '.join(counts[:4])}; COCO's are kept."
            )
        if places:
            found.append(
                f"{name} places fractures elsewhere than COCO (by more than {APART} pixels) in "
                f"{len(places)} images, e.g. {', '.join(places[:3])}; COCO's are kept."
            )
        if broken:
            found.append(f"{len(broken)} {name} annotations can't be read: {broken[0]}.")
    return found


def _around(points: Iterable) -> list[float]:
    x, y = zip(*points, strict=True)
    return [min(x), min(y), max(x), max(y)]


def _apart(first: list, second: list) -> np.ndarray:
    """Largest distance between the edges of each box of one list and each of the other."""
    return np.abs(np.array(first)[:, None] - np.array(second)[None]).max(axis=2)


def _vgg(file: Path, sizes: dict) -> tuple[dict[str, list], list[str]]:
    boxes, broken = {}, []
    for image, entry in json.loads(file.read_text(encoding="utf-8")).items():
        try:
            shapes = [region["shape_attributes"] for region in entry["regions"].values()]
            rings = [zip(s["all_points_x"], s["all_points_y"], strict=True) for s in shapes]
            boxes[image] = [_around(ring) for ring in rings]
        except (KeyError, TypeError, ValueError, AttributeError):
            broken.append(image)
    return boxes, broken


def _yolo(folder: Path, sizes: dict) -> tuple[dict[str, list], list[str]]:
    boxes, broken = {}, []
    for name, path in datasets.files_below(folder).items():
        image = f"{path.stem}.jpg"
        lines = path.read_text(errors="replace").split("\n") if path.suffix == ".txt" else []
        lines = [line.split() for line in lines if line.strip()]
        if not lines or name == "labels.txt":
            continue
        try:
            wide, high = sizes.get(image, (1, 1))  # an image without outlines: only counted
            found = [tuple(map(float, line[1:5])) for line in lines]
            boxes[image] = [
                [(x - w / 2) * wide, (y - h / 2) * high, (x + w / 2) * wide, (y + h / 2) * high]
                for x, y, w, h in found
            ]
        except ValueError:
            broken.append(name)
    return boxes, broken


def _voc(folder: Path, sizes: dict) -> tuple[dict[str, list], list[str]]:
    boxes, broken = {}, []
    for name, path in datasets.files_below(folder).items():
        try:
            objects = ElementTree.fromstring(path.read_bytes()).iter("object")
            corners = ("xmin", "ymin", "xmax", "ymax")
            boxes[f"{path.stem}.jpg"] = [
                [float(item.findtext(f"bndbox/{corner}", "")) for corner in corners]
                for item in objects
            ]
        except (ElementTree.ParseError, ValueError):
            broken.append(name)
    return boxes, broken


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
