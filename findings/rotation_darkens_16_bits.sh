#!/usr/bin/env bash
# Pillow 13.0.0: a 16-bit picture that is rotated or warped with interpolation becomes black.
#
# Input: a smooth grey picture, made here, in 16 bits (mode I;16, as a 16-bit PNG opens) and the same
#   in 8 bits. Both are rotated, sheared and put into perspective by the same calls.
# Guess: 16 bits give the picture of 8 bits in finer steps, as resize and crop do; or Pillow says
#   that it can't, as its filters do ("image has wrong mode").
# Seen: with NEAREST right. With BILINEAR and BICUBIC every value is divided by 256, so that the
#   picture comes back nearly black, without an error or a warning. resize is right with every
#   filter. An augmentation that draws between the two gives some normal pictures and some black
#   ones. Pillow's issue 1127 (2015, closed) shows such a black picture.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pillow==13.0.0 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
pillow 13.0.0 I;16
mean, as part of the original's   NEAREST BILINEAR  BICUBIC
rotate       8 bits                    1.00     1.00     1.00
rotate      16 bits                    1.00     0.00     0.00
affine       8 bits                    1.00     1.00     1.00
affine      16 bits                    1.00     0.00     0.00
perspective  8 bits                    1.00     1.00     1.00
perspective 16 bits                    1.00     0.00     0.00
resize       8 bits                    1.00     1.00     1.00
resize      16 bits                    1.00     1.00     1.00
16 bits by 8 bits, centre         257        1        1
warnings 0
SEEN

cat > "$folder/run.py" <<'PY'
import sys
import warnings

import numpy as np
import PIL
from PIL import Image

FILTERS = ("NEAREST", "BILINEAR", "BICUBIC")
SIZE = (160, 200)
MOVES = {
    "rotate": lambda picture, how: picture.rotate(5, resample=how),
    "affine": lambda picture, how: picture.transform(
        SIZE, Image.Transform.AFFINE, (1, 0.05, 0, 0, 1, 0), resample=how
    ),
    "perspective": lambda picture, how: picture.transform(
        SIZE, Image.Transform.PERSPECTIVE, (1, 0.05, 0, 0, 1, 0, 0, 0), resample=how
    ),
    "resize": lambda picture, how: picture.resize((80, 100), how),
}


def centre(picture):
    """Leave out the corners, which a rotation fills with black."""
    values = np.asarray(picture).astype(float)
    height, width = values.shape
    return values[height // 4 : -height // 4, width // 4 : -width // 4].mean()


y, x = np.mgrid[: SIZE[1], : SIZE[0]] / 200
grey = np.rint(255 * (0.5 + 0.1 * np.sin(2 * x) * np.cos(3 * y)))
Image.fromarray((grey * 257).astype(np.uint16)).save(f"{sys.argv[1]}/16.png")
pictures = {8: Image.fromarray(grey.astype(np.uint8)), 16: Image.open(f"{sys.argv[1]}/16.png")}

print("pillow", PIL.__version__, pictures[16].mode)
print("mean, as part of the original's  ", " ".join(f"{name:>8}" for name in FILTERS).lstrip())
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for move, apply in MOVES.items():
        for bits, picture in pictures.items():
            means = [centre(apply(picture, Image.Resampling[name])) for name in FILTERS]
            row = " ".join(f"{mean / centre(picture):8.2f}" for mean in means)
            print(f"{move:<11} {bits:2d} bits               ", row)
    parts = [
        centre(MOVES["rotate"](pictures[16], Image.Resampling[name]))
        / centre(MOVES["rotate"](pictures[8], Image.Resampling[name]))
        for name in FILTERS
    ]
    print("16 bits by 8 bits, centre        ", " ".join(f"{part:8.0f}" for part in parts).lstrip())
print("warnings", len(said))
PY

"$folder/venv/bin/python" -I "$folder/run.py" "$folder" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
