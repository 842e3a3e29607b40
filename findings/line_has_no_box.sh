#!/usr/bin/env bash
# torchvision 0.29.1: the box of a mask is a pixel short, and that of a line has no area.
#
# Input: masks of 40 x 40, 40 x 4 and 40 x 1 pixels (a fracture line), and of one pixel; their boxes
#   by masks_to_boxes, and what the box functions of the same package make of them.
# Guess: a box encloses its mask: its area is that of these filled rectangles, its IoU with itself
#   1. The documentation promises x1 < x2 and y1 < y2.
# Seen: x2 and y2 are the last pixel's index, while box_area, box_iou and nms measure to the far
#   edge. The box of 40 x 4 has an area of 117, not 160. That of a line has none: its IoU with
#   itself is nan and with the box that encloses it 0, nms keeps both, and remove_small_boxes drops
#   it. Silent. See issue 8793 (closed) and pull request 8798 (open) of pytorch/vision, which would
#   change the documentation.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torchvision==0.29.1 torch==2.14.1 numpy==2.4.6

cat > "$folder/run.py" <<'PY'
import torch
import torchvision
from torchvision import ops

print("torchvision", torchvision.__version__.split("+")[0])
print("mask     pixels  area of box  IoU with itself, outer box  nms keeps  min_size 1")
for high, wide in ((40, 40), (40, 4), (40, 1), (1, 1)):
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10 : 10 + high, 20 : 20 + wide] = True
    box = ops.masks_to_boxes(mask)
    encloses = torch.tensor([[20.0, 10.0, 20.0 + wide, 10.0 + high]])
    same, other = ops.box_iou(box, box).item(), ops.box_iou(box, encloses).item()
    kept = len(ops.nms(torch.cat([encloses, box]), torch.tensor([0.9, 0.8]), 0.5))
    stays = "stays" if len(ops.remove_small_boxes(box, 1.0)) else "dropped"
    row = f"{high:>2} x {wide:<4} {int(mask.sum()):>5} {ops.box_area(box).item():>12.0f}"
    print(f"{row} {same:>15.2f} {other:>11.2f} {kept:>10}  {stays:>10}")
PY
"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
torchvision 0.29.1
mask     pixels  area of box  IoU with itself, outer box  nms keeps  min_size 1
40 x 40    1600         1521            1.00        0.95          1       stays
40 x 4      160          117            1.00        0.73          1       stays
40 x 1       40            0             nan        0.00          2     dropped
 1 x 1        1            0             nan        0.00          2     dropped
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
