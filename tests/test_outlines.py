# Protects outlines: every form of every common tool, drawn where the tool draws it.
import base64
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bonelib import datasets, images
from bonelib.datasets import outlines

SIZE = 64
PACKED = "m05400MM030M0330000`0"  # of pycocotools 2.0.11
SQUARE = [[10, 20], [30, 20], [30, 40], [10, 40]]


def drawn(shapes):
    """Draw shapes as the project does, into the pixels of an image of SIZE × SIZE."""
    place = {"image_id": "a", "width": SIZE, "height": SIZE, "scale_x": 1.0, "scale_y": 1.0}
    place |= {"offset_x": 0, "offset_y": 0, "turn": 1}
    cell = outlines.cell(shapes)
    return images.mask(cell, pd.Series(place), size=SIZE) if cell else np.zeros((SIZE, SIZE), bool)


def square():
    found = np.zeros((SIZE, SIZE), bool)
    found[20:40, 10:30] = True
    return found


def ring():
    """A mask with a hole and a second part, as (whole picture, cut-out, left, top)."""
    whole = np.zeros((SIZE, SIZE), bool)
    whole[12:32, 8:40] = True
    whole[18:24, 15:22] = False
    whole[40:44, 10:12] = True
    return whole, whole[12:44, 8:40], 8, 12


def labelme(kind, points, **more):
    shape = {"label": " Osteosarcoma ", "points": points, "shape_type": kind} | more
    return outlines.labelme(("\ufeff" + json.dumps({"shapes": [shape]})).encode())


# ---------------------------------------------------------------------------- LabelMe
@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("polygon", SQUARE),
        ("rectangle", [[10, 20], [30, 40]]),
        ("rectangle", [[30, 40], [10, 20]]),
        ("rectangle", SQUARE),
        ("oriented_rectangle", SQUARE),
        ("polygon", [[*map(float, point)] for point in SQUARE]),
    ],
)
def test_a_square_of_labelme_is_that_square(kind, points):
    (shape,) = shapes = labelme(kind, points)
    assert (drawn(shapes) == square()).all()
    assert shape.label == "osteosarcoma" and shape.kind == kind
    assert shape.box == (kind == "rectangle")


def test_a_circle_has_its_area_and_a_mask_every_pixel():
    disc = drawn(labelme("circle", [[32, 32], [32, 52]]))
    assert disc.sum() == pytest.approx(np.pi * 20**2, rel=0.02) and disc[32, 32]
    assert not disc[:12].any() and not disc[52:].any()
    whole, part, left, top = ring()
    stream = io.BytesIO()
    Image.fromarray(part).save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()).decode()
    shapes = labelme("mask", [[left, top], [39, 43]], mask=text)
    assert (drawn(shapes) == whole).all()


@pytest.mark.parametrize(
    ("kind", "points"),
    [("linestrip", SQUARE), ("line", SQUARE[:2]), ("point", SQUARE[:1]), ("points", SQUARE)]
    + [("polygon", SQUARE[:2]), ("polygon", [SQUARE[0]] * 4), ("circle", [[5, 5], [5, 5]])],
)
def test_what_encloses_nothing_is_named(kind, points):
    shapes = labelme(kind, points)
    assert outlines.cell(shapes) is None
    assert outlines.open_notes(shapes) == [
        f"1 shapes enclose no area: {kind} (1); they are left out."
    ]


def test_the_shapes_of_labelme_in_the_shared_case_are_read(case):
    table = datasets.read("btxrd", case("labelme-shapes")).set_index("image_id")  # LabelMe 5.4.1
    table.index = table.index.str[3:9].astype(int)
    box = [[[40, 60], [80, 60], [80, 100], [40, 100]]]
    for number in (1, 2, 5, 8, 9):
        assert json.loads(table["mask"][number]) == box
    assert json.loads(table["mask"][4]) == [[[44, 65], [56, 65], [56, 85], [44, 85]]]
    assert len(json.loads(table["mask"][3])[0]) == outlines.ROUND
    assert table["mask"].isna().tolist() == [n in (6, 7, 10, 11, 12) for n in table.index]
    told = "\n".join(table.attrs["notes"])
    assert "2 shapes enclose no area: linestrip (1), polygon (1)" in told
    assert "can't be read" not in told and "name another entity" not in told


# ---------------------------------------------------------------------------- COCO
def coco(**annotation):
    content = {"images": [{"id": 7, "file_name": "a.png"}], "categories": [{"id": 1, "name": "X"}]}
    content["annotations"] = [{"image_id": 7, "category_id": 1} | annotation]
    return outlines.coco(json.dumps(content).encode())["a.png"]


def test_every_form_of_coco_is_the_same_square():
    flat = [number for point in SQUARE for number in point]
    lengths = [10 * SIZE + 20, *[20, SIZE - 20] * 19, 20]
    lengths.append(SIZE * SIZE - sum(lengths))
    for more in (
        {"segmentation": [flat], "bbox": [0, 0, 9, 9]},
        {"segmentation": flat},
        {"segmentation": [SQUARE]},
        {"segmentation": {"size": [SIZE, SIZE], "counts": lengths}, "iscrowd": 1},
        {"segmentation": [], "bbox": [10, 20, 20, 20]},
        {"bbox": [10, 20, 20, 20]},
    ):
        (shape,) = shapes = coco(**more)
        assert (drawn(shapes) == square()).all() and shape.label == "x", more
    assert coco(keypoints=[1, 2, 3])[0].polygons == []


def test_packed_run_lengths_of_coco_are_those_of_its_own_tool():
    # Its mask.encode of this ring of 9 × 12 pixels.
    right = np.zeros((9, 12), bool)
    right[2:7, 3:10] = True
    right[4, 5:7] = False
    (shape,) = coco(segmentation={"size": [9, 12], "counts": PACKED})
    found = np.zeros_like(right)
    for (x0, y0), _, (x1, y1), _ in shape.polygons:
        found[int(y0) : int(y1), int(x0) : int(x1)] = True
    assert (found == right).all()
    with pytest.raises(ValueError, match="run lengths of 108 pixels in a mask of 120"):
        coco(segmentation={"size": [10, 12], "counts": PACKED})


# ---------------------------------------------------------------------------- VIA
@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_every_form_of_via_is_read_of_both_versions(project, listed):
    xs, ys = zip(*SQUARE, strict=True)
    forms = [
        {"name": "polygon", "all_points_x": xs, "all_points_y": ys},
        {"name": "rect", "x": 10, "y": 20, "width": 20, "height": 20},
        {"name": "circle", "cx": 32, "cy": 32, "r": 20},
        {"name": "ellipse", "cx": 32, "cy": 32, "rx": 24, "ry": 8, "theta": np.pi / 2},
        {"name": "polyline", "all_points_x": xs, "all_points_y": ys},
        {"name": "point", "cx": 1, "cy": 2},
    ]
    label = {"type": {"Tumour": True}} if project else {"label": "Tumour"}
    regions = [{"shape_attributes": form, "region_attributes": label} for form in forms]
    regions = regions if listed else {str(n): r for n, r in enumerate(regions)}
    content = {"a.png123": {"filename": "a.png", "regions": regions}}
    content = {"_via_img_metadata": content} if project else content
    shapes = outlines.via(json.dumps(content).encode())["a.png"]
    assert {shape.label for shape in shapes} == {"tumour"}
    assert (drawn(shapes[:1]) == square()).all() and (drawn(shapes[1:2]) == square()).all()
    assert drawn(shapes[2:3]).sum() == pytest.approx(np.pi * 20**2, rel=0.02)
    upright = drawn(shapes[3:4])
    assert upright[:, 32].sum() == pytest.approx(48, abs=1) and upright[32].sum() in (15, 16)
    assert outlines.open_notes(shapes) == [
        "2 shapes enclose no area: polyline (1), point (1); they are left out."
    ]


# ---------------------------------------------------------------------------- YOLO and VOC
def test_every_form_of_yolo_is_the_same_square():
    corners = " ".join(f"{n / SIZE}" for point in SQUARE for n in point)
    box = f"{20 / SIZE} {30 / SIZE} {20 / SIZE} {20 / SIZE}"
    for line in (f"3 {box}", f"3 {box} 0.91", f"3 {corners}", f"3 {corners} 0.5", f"tumour {box}"):
        shapes = outlines.yolo(f"\n{line}\n", (SIZE, SIZE))
        assert (drawn(shapes) == square()).all(), line
        assert shapes[0].label == line.split()[0] and shapes[0].box == (box in line)
    triangle = outlines.yolo("0 .1 .1 .5 .1 .1 .5", (10, 20))
    assert triangle[0].polygons == [[[1, 2], [5, 2], [1, 10]]]
    for wrong in ("0 .1 .2 .3", "0 .1 .2 .3 x", "0 100 200 30 40", "0"):
        with pytest.raises(ValueError, match="line 2"):
            outlines.yolo(f"0 .1 .1 .1 .1\n{wrong}", (10, 20))


def test_voc_gives_polygons_and_boxes_also_of_floats():
    flat = "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(SQUARE, 1))
    points = "".join(f"<pt><x>{x}.0</x><y>{y}.0</y></pt>" for x, y in SQUARE)
    box = "<bndbox><xmin>10.0</xmin><ymin>20</ymin><xmax>30</xmax><ymax>4e1</ymax></bndbox>"
    for inner in (box, f"<polygon>{flat}</polygon>{box}", f"{box}<polygon>{points}</polygon>"):
        text = f"<annotation><object><name>A B</name>{inner}</object></annotation>"
        (shape,) = outlines.voc(text.encode())
        assert (drawn([shape]) == square()).all() and shape.label == "a b"
        assert shape.box == (inner == box)
    bare = outlines.voc(b"<annotation><object><name>a</name></object></annotation>")
    assert outlines.open_notes(bare)[0].startswith("1 shapes enclose no area: object without")


# ---------------------------------------------------------------------------- in tables
def test_a_mask_of_ones_own_table_may_be_a_file_of_any_tool(tmp_path):
    for name in "abcdefg":
        Image.new("L", (SIZE, SIZE)).save(tmp_path / f"{name}.png")
    shape = {"label": "x", "points": SQUARE, "shape_type": "polygon"}
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [shape]}))
    several = {"images": [{"id": 1, "file_name": "b.png"}], "categories": []}
    several["annotations"] = [{"image_id": 1, "bbox": [10, 20, 20, 20]}]
    (tmp_path / "coco.json").write_text(json.dumps(several))
    (tmp_path / "d.txt").write_text(f"0 {20 / SIZE} {30 / SIZE} {20 / SIZE} {20 / SIZE}\n")
    (tmp_path / "e.xml").write_text("<annotation></annotation>")
    (tmp_path / "f.json").write_text("[1, 2")
    masks = "a.json", "coco.json", "coco.json", "d.txt", "e.xml", "f.json", "g.png"
    rows = [f"{n},{n}.png,{mask}" for n, mask in zip("abcdefg", masks, strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["image_id,path,mask", *rows]))
    table = datasets.read("table", tmp_path).set_index("image_id")["mask"]
    for name in "abd":
        assert json.loads(table[name]) == [SQUARE]
    assert table[["c", "e", "f"]].isna().all() and table["g"] == str(tmp_path / "g.png")
    told = "\n".join(datasets.read("table", tmp_path).attrs["notes"])
    assert "2 annotations can't be read: coco.json, f.json (it holds nothing of this image)" in told


# ---------------------------------------------------------------------------- real files
def extents(shapes):
    """The boxes around all parts, sorted."""
    parts = [np.array(part) for shape in shapes for part in shape.polygons]
    return np.array(sorted([*part.min(0), *part.max(0)] for part in parts))


def test_the_four_formats_of_fracatlas_agree_but_where_its_reader_says_so():
    root = Path(os.environ.get("BONELIB_DATA", "")) / "fracatlas"
    if "BONELIB_DATA" not in os.environ or not root.is_dir():
        pytest.skip("needs fracatlas in the folder BONELIB_DATA")
    folder = root / "Annotations"
    first = outlines.coco((folder / "COCO JSON" / "COCO_fracture_masks.json").read_bytes())
    vgg = outlines.via((folder / "VGG JSON" / "VGG_fracture_masks.json").read_bytes())
    files = datasets.files_below(root / "images" / "Fractured", root / "images" / "Non_fractured")
    differ, compared = {"vgg": set(), "voc": set(), "yolo": set()}, 0
    for name, shapes in first.items():
        if not shapes or name not in files:
            continue
        compared += 1
        found = {
            "vgg": vgg.get(name, []),
            "voc": outlines.read_file(folder / "PASCAL VOC" / f"{name[:-4]}.xml", files[name]),
            "yolo": outlines.read_file(folder / "YOLO" / f"{name[:-4]}.txt", files[name]),
        }
        right = extents(shapes)
        for tool, others in found.items():
            box = extents(others)
            if box.shape != right.shape or abs(box - right).max() > 2:
                differ[tool].add(name[3:-4])
    assert compared > 300
    odd = {"0000851", "0002086", "0002395", "0002471", "0002614"}
    assert differ == {"vgg": odd, "voc": set(), "yolo": set()}
