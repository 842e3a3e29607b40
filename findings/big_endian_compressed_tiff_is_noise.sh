#!/usr/bin/env bash
# Pillow 13.0.0: signed and float greys of a compressed big-endian TIFF come out byte-swapped.
#
# Input: a valid TIFF of one grey, 200 values, written by tifffile in five number types, in both
#   byte orders, uncompressed and with deflate. tifffile reads each of them back as written.
# Guess: Pillow reads the same numbers from all four files of a type, as it does for uint8.
# Seen: so it is for uint8 and uint16. For int16, int32 and float32 the compressed big-endian file
#   is noise, without an error or a warning; the same file uncompressed is right. libtiff has put
#   the bytes into the machine's order already, and only the unsigned 16-bit modes know that.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
pillow 13.0.0
            little-endian             big-endian
              plain   deflate     plain   deflate
uint8         equal     equal     equal     equal
uint16        equal     equal     equal     equal
int16         equal     equal     equal     noise
int32         equal     equal     equal     noise
float32       equal     equal     equal     noise
SEEN

cat > "$folder/run.py" <<'PY'
import io
import warnings

import numpy as np
import PIL
import tifffile
from PIL import Image

GREYS = np.arange(200).reshape(10, 20)
warnings.simplefilter("error")

print("pillow", PIL.__version__)
print("            little-endian             big-endian")
print("              plain   deflate     plain   deflate")
for kind in ("uint8", "uint16", "int16", "int32", "float32"):
    line = f"{kind:<9}"
    for order in "<>":
        for compression in (None, "zlib"):
            values, file = GREYS.astype(kind), io.BytesIO()
            tifffile.imwrite(
                file, values, byteorder=order, photometric="minisblack", compression=compression
            )
            file.seek(0)
            assert np.array_equal(tifffile.imread(file), values)
            same = np.array_equal(np.asarray(Image.open(file)), values)
            line += f"{'equal' if same else 'noise':>10}"
    print(line)
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
