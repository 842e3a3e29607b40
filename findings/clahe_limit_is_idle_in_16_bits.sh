#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: in 16 bits, CLAHE's clipLimit does nothing, and rounding decides.
#
# Input: one smooth grey picture of 512 x 512, made here: in uint8, in uint16, and in uint16 as the
#   uint8 picture times 257. No two of them differ by more than half an 8-bit step. CLAHE has 8 x 8
#   tiles.
# Guess: in 16 bits CLAHE gives the 8-bit result in finer steps, a larger clipLimit gives more
#   contrast, and half an 8-bit step at the input makes no visible difference.
# Seen: contrast (standard deviation after / before) grows with clipLimit in uint8. In uint16 every
#   clipLimit from 1 to 16 gives the same picture to the bit, with 3.4 times the contrast; if the
#   values were once rounded to 8 bits, the same call leaves the contrast as it was. The limit is
#   counted in pixels for each of 65,536 grey levels and raised to at least 1; here a tile has 4096
#   pixels, and 16 x 4096 / 65536 = 1. One pixel a level limits little where most pixels have a
#   level of their own, and nearly everything where many share one.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opencv-python-headless==5.0.0.93 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
opencv 5.0.0
clipLimit                  1     2     4     8    16  different results
uint8                    1.2   1.5   2.1   3.5   4.4  5
uint16                   3.4   3.4   3.4   3.4   3.4  1
uint8 x 257 in uint16    1.0   1.0   1.0   1.0   1.0  1
SEEN

cat > "$folder/run.py" <<'PY'
import cv2
import numpy as np

LIMITS = (1, 2, 4, 8, 16)
cv2.setNumThreads(1)
y, x = np.mgrid[:512, :512] / 511
grey = 100 + 40 * np.sin(3 * x) * np.cos(2 * y) + 10 * np.sin(60 * x)  # within 50 and 150 of 255
eight = np.rint(grey).astype(np.uint8)
pictures = {
    "uint8": eight,
    "uint16": np.rint(grey * 257).astype(np.uint16),
    "uint8 x 257 in uint16": eight.astype(np.uint16) * 257,
}

print("opencv", cv2.__version__)
print(f"{'clipLimit':<22}", " ".join(f"{limit:5d}" for limit in LIMITS), " different results")
for name, picture in pictures.items():
    results = [cv2.createCLAHE(limit, (8, 8)).apply(picture) for limit in LIMITS]
    gains = " ".join(f"{result.std() / picture.std():5.1f}" for result in results)
    print(f"{name:<22}", gains, f" {len({result.tobytes() for result in results})}")
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
