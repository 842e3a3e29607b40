#!/usr/bin/env bash
# rapidocr 3.10.0: a line that is read on a small picture is not found with more blank around it.
#
# Input: ten plain lines (invented names, dates, numbers), made here, 17 pixels high, white on a dark
#   uniform ground. Each stands alone at the same place, in the same pixels, in a picture of
#   1000 x 1000 and in one of 2000 x 2000. A last picture of 2000 x 2000 holds all ten.
# Guess: what is read in the small picture is read in the large one. Neither is resized: both sides
#   lie within min_side_len, max_side_len (2000) and the detector's limit_side_len (736, min).
# Seen: 10 of 10 alone in the small picture, 0 of 10 alone in the large one, and 10 of 10 in the
#   large one when they stand together. Whether a line is found thus depends on how much else there
#   is to read. A lone name in the dark corner of a radiograph is the usual case: overlapping tiles
#   find it, the whole picture does not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  rapidocr==3.10.0 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
rapidocr 3.10.0
alone in 1000 x 1000     read 10 of 10
alone in 2000 x 2000     read 0 of 10
together in 2000 x 2000  read 10 of 10
SEEN

cat > "$folder/run.py" <<'PY'
import logging
from importlib.metadata import version

import cv2
import numpy as np
from rapidocr import RapidOCR

LINES = (
    "DUPONT MARIE", "12/03/1951", "ID 0042317", "MARTIN PAUL", "SMITH ANNA",
    "03.05.2019", "KLINIKUM NORD", "DR LEROY", "BERNARD LEA", "1987-11-02",
)  # invented
logging.disable(logging.CRITICAL)
read = RapidOCR()


def found(side, lines):
    """Write these lines at their places in a dark square of this side; count the texts read."""
    picture = np.full((side, side), 20, np.uint8)
    for place, line in enumerate(LINES):
        if line in lines:
            at = (60, 80 + 70 * place)
            cv2.putText(picture, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 235, 2, cv2.LINE_AA)
    return len(read(picture).txts or ())


print("rapidocr", version("rapidocr"))
for side in (1000, 2000):
    alone = sum(found(side, (line,)) for line in LINES)
    print(f"alone in {side} x {side}     read {alone} of {len(LINES)}")
print(f"together in 2000 x 2000  read {found(2000, LINES)} of {len(LINES)}")
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
