"""Outlines as annotation tools write them: LabelMe, COCO, VGG (VIA), YOLO and Pascal VOC.

The text of a file comes in; shapes go out, each with its label and polygons in pixels of the image
as it is shown. What encloses nothing (a point, a line, an outline of two points) has no polygon, so
that a reader can name it. Sources: LabelMe 5's ``shape_type``; COCO's ``maskApi.c``;
VIA 2 user guide; Ultralytics' detect, segment and OBB formats; the VOC 2012 development kit.
"""

import base64
import json
import math
import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bonelib import datasets

Points = list[list[float]]
ORIENTATION = 0x0112  # of EXIF: above 4 the picture is shown with its sides swapped
ROUND = 64  # corners of a circle: its area to 0.2 %


class Shape(NamedTuple):
    """One annotation: its label, what its tool calls it, its parts, and whether it is a mere box.

    ``polygons`` is empty where it encloses nothing.
    """

    label: str
    kind: str
    polygons: list[Points]
    box: bool = False


def plain(label: object) -> str:
    """Write a label in small letters, with single blanks, none around it."""
    return " ".join(str(label).casefold().split())


def cell(shapes: Iterable[Shape]) -> str | None:
    """Write shapes as the JSON text of a ``mask`` cell; boxes only where there is nothing finer."""
    shapes = [shape for shape in shapes if shape.polygons]
    finer = [shape for shape in shapes if not shape.box] or shapes
    return datasets.polygons_text([p for s in finer for p in s.polygons]) if finer else None


def open_notes(shapes: Iterable[Shape]) -> list[str]:
    """Say, by kind, how many shapes enclose nothing and are left out."""
    kinds = Counter(shape.kind for shape in shapes if not shape.polygons)
    named = ", ".join(f"{kind} ({n})" for kind, n in kinds.most_common())
    return [f"{kinds.total()} shapes enclose no area: {named}; they are left out."] if kinds else []


# ---------------------------------------------------------------------- forms
def _ring(points: Iterable) -> list[Points]:
    """Return a polygon where points enclose something."""
    ring = [[x if isinstance(x, int) else float(x) for x in point] for point in points]
    if any(len(point) != 2 for point in ring):
        raise ValueError("a point has two numbers")
    return [ring] if len({tuple(point) for point in ring}) > 2 else []


def _box(x: float, y: float, wide: float, high: float) -> list[Points]:
    x, y, wide, high = float(x), float(y), float(wide), float(high)
    return _ring([[x, y], [x + wide, y], [x + wide, y + high], [x, y + high]])


def _corners(first: Iterable[float], second: Iterable[float]) -> list[Points]:
    (x0, x1), (y0, y1) = (sorted(map(float, pair)) for pair in zip(first, second, strict=True))
    return _box(x0, y0, x1 - x0, y1 - y0)


def _ellipse(x: float, y: float, a: float, b: float, angle: float = 0.0) -> list[Points]:
    turns = 2 * math.pi * np.arange(ROUND) / ROUND
    along, across = a * np.cos(turns), b * np.sin(turns)
    xs = x + along * math.cos(angle) - across * math.sin(angle)
    ys = y + along * math.sin(angle) + across * math.cos(angle)
    return _ring(zip(xs.tolist(), ys.tolist(), strict=True)) if a > 0 and b > 0 else []


def _runs(mask: np.ndarray, left: float = 0, top: float = 0) -> list[Points]:
    """Cover a mask by boxes, one for equal runs in rows below each other: holes stay open."""
    begun: dict[tuple[int, int], int] = {}
    boxes = []
    for row, line in enumerate([*np.asarray(mask, bool), np.zeros(mask.shape[1], bool)]):
        edges = np.flatnonzero(np.diff(np.r_[False, line, False]))
        runs = set(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
        for run in sorted(set(begun) - runs):
            first = begun.pop(run)
            boxes += _box(left + run[0], top + first, run[1] - run[0], row - first)
        for run in runs:
            begun.setdefault(run, row)
    return boxes


# ---------------------------------------------------------------------- tools
def labelme(data: bytes) -> list[Shape]:
    """Read a file of LabelMe: polygon, rectangle, circle, mask; other types enclose nothing.

    Raises:
        ValueError: It is no such file, or a shape is broken.
    """
    try:
        shapes = json.loads(data.decode("utf-8-sig"))["shapes"]
        return [
            Shape(
                plain(shape["label"]),
                kind := shape.get("shape_type") or "polygon",
                _labelme(kind, shape),
                kind == "rectangle",
            )
            for shape in shapes
        ]
    except (KeyError, TypeError, IndexError, OSError) as error:
        raise ValueError(f"it is no file of LabelMe: {error}") from error


def _labelme(kind: str, shape: dict) -> list[Points]:
    points = shape["points"]
    if kind == "rectangle" and len(points) == 2:
        return _corners(*points)
    if kind == "circle":
        (x, y), edge = points
        return _ellipse(x, y, *[math.dist((x, y), edge)] * 2)
    if kind == "mask":
        from PIL import Image

        with Image.open(BytesIO(base64.b64decode(shape["mask"]))) as picture:
            mask = np.asarray(picture.convert("L")) > 0
        return _runs(mask, *map(float, points[0]))
    return (
        _ring(points) if kind in ("polygon", "rectangle", "oriented_rectangle", "rotation") else []
    )


def coco(data: bytes) -> dict[str, list[Shape]]:
    """Read a file of COCO, by image: polygons, run lengths (plain or packed), else the box.

    Raises:
        ValueError: It is no such file, or an annotation is broken.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        labels = {one["id"]: one.get("name", "") for one in content.get("categories", [])}
        found: dict[str, list[Shape]] = {name: [] for name in names.values()}
        for one in content["annotations"]:
            kind, polygons = _coco(one)
            label = plain(labels.get(one.get("category_id"), ""))
            name = names.get(one["image_id"], "")
            found.setdefault(name, []).append(Shape(label, kind, polygons, kind == "bbox"))
        return found
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"it is no file of COCO: {error}") from error


def _coco(one: dict) -> tuple[str, list[Points]]:
    drawn = one.get("segmentation")
    if isinstance(drawn, dict):
        high, wide = map(int, drawn["size"])
        counts = drawn["counts"]
        counts = counts if isinstance(counts, list) else _unpacked(counts)
        if sum(counts) != high * wide:
            raise ValueError(f"run lengths of {sum(counts)} pixels in a mask of {high * wide}")
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return "run lengths", _runs(flat.reshape(wide, high).T)  # columns come first
    if drawn:
        rings = drawn if isinstance(drawn[0], list) else [drawn]
        if isinstance(rings[0][0], list):  # pairs, as some exporters write them
            rings = [[number for point in ring for number in point] for ring in rings]
        pairs = [zip(ring[::2], ring[1::2], strict=True) for ring in rings]
        return "polygon", [polygon for ring in pairs for polygon in _ring(ring)]
    return ("bbox", _box(*one["bbox"])) if one.get("bbox") else ("annotation", [])


def _unpacked(text: str) -> list[int]:
    """Unpack run lengths: 5 bits a character, each the difference to the last but one."""
    counts, value, shift = [], 0, 0
    for sign in text:
        bits = ord(sign) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    return counts


def via(data: bytes) -> dict[str, list[Shape]]:
    """Read a file of the VGG Image Annotator 1 or 2, by image; regions are a list or a dict.

    Raises:
        ValueError: It is no such file, or a region is broken.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
        content = content.get("_via_img_metadata", content)
        found = {}
        for one in content.values():
            regions = one["regions"]
            regions = regions.values() if isinstance(regions, dict) else regions
            found[one["filename"]] = [
                Shape(_via_label(region), form["name"], _via(form), form["name"] == "rect")
                for region in regions
                for form in [region["shape_attributes"]]
            ]
        return found
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no file of VIA 1 or 2: {error}") from error


def _via(form: dict) -> list[Points]:
    if form["name"] == "rect":
        return _box(*(form[key] for key in ("x", "y", "width", "height")))
    if form["name"] == "circle":
        return _ellipse(form["cx"], form["cy"], form["r"], form["r"])
    if form["name"] == "ellipse":
        return _ellipse(*(form[k] for k in ("cx", "cy", "rx", "ry")), form.get("theta", 0.0))
    if form["name"] == "polygon":
        return _ring(zip(form["all_points_x"], form["all_points_y"], strict=True))
    return []


def _via_label(region: dict) -> str:
    """Return the values of a region's attributes; of check boxes those that are ticked."""
    values = (region.get("region_attributes") or {}).values()
    return plain(" ".join(" ".join(v) if isinstance(v, dict) else str(v) for v in values))


def yolo(text: str, size: tuple[int, int]) -> list[Shape]:
    """Read lines of YOLO in shares of an image of ``size`` (width, height).

    A class, then a box of four numbers (centre, width, height), or corners: of a segment or of an
    oriented box. A last number more is a confidence.

    Raises:
        ValueError: A line is none of these; its number is told.
    """
    shapes = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            shares = [float(word) for word in words[1:]]
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if len(shares) < 4 or not all(-0.5 <= share <= 1.5 for share in shares):
            raise ValueError(f"line {number}: it is no class with four or more shares of the image")
        shares = shares[: len(shares) // 2 * 2]
        points = np.reshape(shares, (-1, 2)) * size
        if len(points) == 2:
            polygons = _box(*(points[0] - points[1] / 2), *points[1])
        else:
            polygons = _ring(points.tolist())
        shapes.append(Shape(plain(words[0]), "line", polygons, len(points) == 2))
    return shapes


def voc(data: bytes) -> list[Shape]:
    """Read a file of Pascal VOC: ``polygon`` where there is one, else ``bndbox``.

    Raises:
        ValueError: It is no such file, or an object is broken.
    """
    try:
        root = xml.fromstring(data)
        return [_voc(one) for one in root.iter("object")]
    except (xml.ParseError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no file of Pascal VOC: {error}") from error


def _voc(one: xml.Element) -> Shape:
    label, box, drawn = plain(one.findtext("name", "")), one.find("bndbox"), one.find("polygon")
    if drawn is not None:  # <x1><y1><x2>…, or <pt><x><y></pt>
        numbers = [float(leaf.text) for leaf in drawn.iter() if leaf.tag[:1] in "xy" and leaf.text]
        if polygons := _ring(np.reshape(numbers, (-1, 2)).tolist()):
            return Shape(label, "polygon", polygons)
    if box is None:
        return Shape(label, "object without a box", [])
    x0, y0, x1, y1 = (float(box.findtext(k)) for k in ("xmin", "ymin", "xmax", "ymax"))
    return Shape(label, "bndbox", _corners((x0, y0), (x1, y1)), True)


# ---------------------------------------------------------------------- any file
def read_file(file: Path, image: str | Path | None) -> list[Shape]:
    """Read the shapes of one image from a file of any of these tools, which its content tells.

    Args:
        image: Path of the image: a file of COCO or VIA holds several, shares of YOLO need its size.

    Raises:
        ValueError: It is none of them, or it holds nothing of this image.
    """
    data = file.read_bytes()
    if file.suffix.lower() == ".xml":
        return voc(data)
    if file.suffix.lower() == ".txt":
        from PIL import Image

        if image is None:
            raise ValueError("shares of an image that is not there")
        with Image.open(image) as opened:  # the header alone
            lies = opened.getexif().get(ORIENTATION, 1) > 4 and opened.format == "JPEG"
            return yolo(data.decode("utf-8-sig"), opened.size[::-1] if lies else opened.size)
    content = json.loads(data.decode("utf-8-sig"))
    if "shapes" in content:
        return labelme(data)
    several = coco(data) if "annotations" in content else via(data)
    if image is None or Path(image).name not in several:
        raise ValueError("it holds nothing of this image")
    return several[Path(image).name]


def faults(broken: dict[str, str]) -> list[str]:
    """Say which files of outlines can't be read, and why the first can't."""
    why = f" ({next(iter(broken.values()))})" if broken else ""
    return datasets.counted(broken, f"{{n}} annotations can't be read: {{names}}{why}.")
