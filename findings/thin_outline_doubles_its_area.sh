#!/usr/bin/env bash
# pycocotools 2.0.11, scikit-image 0.26.0, OpenCV 5.0.0, Pillow 13.0.0: a thin outline has one area
# or twice as much, by the library that fills it.
#
# Input: rectangles 60 pixels long and 1 to 32 wide, such as the outline of a fracture line, each at
#   40 random angles and places in a picture of 128 x 128, as polygons.
# Guess: the four masks differ by some pixels of the edge, their areas by less than 10 %.
# Seen: pycocotools (COCO files) and polygon2mask (scikit-image) fill what the polygon encloses.
#   fillPoly (OpenCV) and ImageDraw (Pillow, with which LabelMe's shape_to_mask draws) fill every
#   pixel that the edge touches as well, half a pixel more on each side. A line 1 pixel wide has 1.6
#   to 2.0 times its area, and two true masks of one outline overlap by an IoU of 0.6; at 32 pixels
#   all agree. See issue 659 of cocodataset/cocoapi (open: one pixel off).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pycocotools==2.0.11 scikit-image==0.26.0 opencv-python-headless==5.0.0.93 Pillow==13.0.0 \
  numpy==2.4.6

cat > "$folder/run.py" <<'PY'
from importlib.metadata import version

import cv2
import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from skimage.draw import polygon2mask

SIDE = 128


def rectangle(length, width, angle, centre):
    """Return the corners (x, y) of a turned rectangle."""
    along = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * width / 2
    signs = ((1, 1), (1, -1), (-1, -1), (-1, 1))
    return np.array([centre + a * along + b * across for a, b in signs])


def masks(corners):
    """Fill the polygon with each library."""
    run_lengths = coco.merge(coco.frPyObjects([corners.ravel().tolist()], SIDE, SIDE))
    picture = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in corners], fill=1)
    filled = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(filled, [np.rint(corners).astype(np.int32)], 1)
    inside = polygon2mask((SIDE, SIDE), corners[:, ::-1])
    return [np.asarray(m) > 0 for m in (coco.decode(run_lengths), inside, filled, picture)]


for name in ("pycocotools", "scikit-image", "opencv-python-headless", "Pillow"):
    print(name, version(name))
print("width   filled area / area of the polygon           IoU of COCO's")
print("pixels  pycocotools scikit-image  OpenCV  Pillow    and Pillow's")
draw = np.random.default_rng(0)
for width in (1, 2, 4, 8, 32):
    areas, overlaps = [], []
    for _ in range(40):
        made = masks(rectangle(60, width, draw.uniform(0, np.pi), draw.uniform(60, 68, 2)))
        areas.append([m.sum() for m in made])
        overlaps.append((made[0] & made[3]).sum() / (made[0] | made[3]).sum())
    a, b, c, d = np.mean(areas, 0) / (60 * width)
    print(f"{width:>6}  {a:>11.1f} {b:>12.1f} {c:>7.1f} {d:>7.1f} {np.mean(overlaps):>15.1f}")
PY
"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
pycocotools 2.0.11
scikit-image 0.26.0
opencv-python-headless 5.0.0.93
Pillow 13.0.0
width   filled area / area of the polygon           IoU of COCO's
pixels  pycocotools scikit-image  OpenCV  Pillow    and Pillow's
     1          1.0          1.0     2.0     1.6             0.6
     2          1.0          1.0     1.5     1.3             0.7
     4          1.0          1.0     1.2     1.2             0.8
     8          1.0          1.0     1.1     1.1             0.9
    32          1.0          1.0     1.0     1.0             1.0
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
