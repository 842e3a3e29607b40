#!/usr/bin/env bash
# Pillow 13.0.0, OpenCV 5.0.0: a white-is-zero TIFF is positive in 8 bits, a negative in 16.
#
# Input: one step wedge as a valid TIFF, written by tifffile as uint8, uint16 and float32, black is
#   zero and white is zero (PhotometricInterpretation 0, as film digitisers write).
# Guess: a reader turns white-is-zero greys, or leaves them to the caller, at every depth alike.
# Seen: both readers turn 8 bits and leave 16 bits and floats, without a word. They give back no
#   more than an array, so that a film scanned at 16 bits is a negative of the one scanned at 8.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pillow==13.0.0 opencv-python-headless==5.0.0.93 tifffile==2026.3.3 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
pillow 13.0.0 opencv 5.0.0
stored white is zero: 0, 1/4, all
uint8    Pillow  100%  75%   0%   OpenCV  100%  75%   0%
uint16   Pillow    0%  25% 100%   OpenCV    0%  25% 100%
float32  Pillow    0%  25% 100%   OpenCV    0%  25% 100%
SEEN

cat > "$folder/run.py" <<'PY'
import io

import cv2
import numpy as np
import PIL
import tifffile
from PIL import Image

print("pillow", PIL.__version__, "opencv", cv2.__version__)
print("stored white is zero: 0, 1/4, all")
for kind, top in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
    wedge, file = np.array([[0, top / 4, top]]).astype(kind), io.BytesIO()
    tifffile.imwrite(file, wedge, photometric="miniswhite")
    line = f"{kind:<7}"
    content = np.frombuffer(file.getvalue(), np.uint8)
    readers = {
        "Pillow": np.asarray(Image.open(file)),
        "OpenCV": cv2.imdecode(content, cv2.IMREAD_UNCHANGED),
    }
    for name, read in readers.items():
        line += f"  {name} " + "".join(f" {v / top:4.0%}" for v in read[0].tolist()) + " "
    print(line.rstrip())
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
