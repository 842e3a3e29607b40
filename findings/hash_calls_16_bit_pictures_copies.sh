#!/usr/bin/env bash
# ImageHash 4.3.2: the perceptual hashes of unlike 16-bit radiographs are one and the same.
#
# Input: six smooth random pictures, each as 8 bits, as a 16-bit PNG of 0 to 3000, the same above a
#   film base of 1000, and as a float32 TIFF of 0 to 1. Two pictures count as copies if at most 10
#   of 64 bits differ, a usual threshold.
# Guess: a hash looks at the content: no pictures are copies at any depth, and each is a copy of
#   its own 8-bit version.
# Seen: so in 8 bits only. Above a film base all 15 pairs are copies, at a distance of 0; at 0 to
#   3000 dhash and average_hash call most pairs copies. No deeper picture is a copy of its own
#   8-bit version. Nothing warns. Each hash begins with Pillow's convert("L"), which cuts off all
#   above 255 (Pillow's issue 3011) and makes floats of 0 to 1 black. A search for duplicates across
#   splits drops unlike radiographs, or misses the copy of one at another depth.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  ImageHash==4.3.2 Pillow==13.0.0 numpy==2.4.6 scipy==1.17.1

cat > "$folder/seen" <<'SEEN'
ImageHash 4.3.2  Pillow 13.0.0
depth                  hash          hashes  copies of 15 pairs  like its 8 bits
8 bits                 phash              6                   0           6 of 6
8 bits                 dhash              6                   0           6 of 6
8 bits                 average_hash       6                   0           6 of 6
16 bits, 0 to 3000     phash              6                   0           0 of 6
16 bits, 0 to 3000     dhash              6                  11           0 of 6
16 bits, 0 to 3000     average_hash       6                   9           0 of 6
16 bits, 1000 to 4000  phash              1                  15           0 of 6
16 bits, 1000 to 4000  dhash              1                  15           0 of 6
16 bits, 1000 to 4000  average_hash       1                  15           0 of 6
float32, 0 to 1        phash              1                  15           0 of 6
float32, 0 to 1        dhash              1                  15           0 of 6
float32, 0 to 1        average_hash       1                  15           0 of 6
warnings 0
SEEN

cat > "$folder/run.py" <<'PY'
import io
import warnings
from importlib.metadata import version
from itertools import combinations

import imagehash
import numpy as np
from PIL import Image


def picture(seed):
    """A smooth picture of 0 to 1 from 25 random cosines."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:256, :256] / 255
    waves = [
        draw.normal() * np.cos(np.pi * (i * x + j * y) + draw.uniform(0, 6))
        for i in range(5)
        for j in range(5)
    ]
    total = sum(waves)
    return (total - total.min()) / np.ptp(total)


def stored(values, suffix):
    """The values after a round trip through a lossless file."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, suffix)
    file.seek(0)
    return Image.open(file)


DEPTHS = {
    "8 bits": lambda p: stored((255 * p).astype(np.uint8), "PNG"),
    "16 bits, 0 to 3000": lambda p: stored((3000 * p).astype(np.uint16), "PNG"),
    "16 bits, 1000 to 4000": lambda p: stored((1000 + 3000 * p).astype(np.uint16), "PNG"),
    "float32, 0 to 1": lambda p: stored(p.astype(np.float32), "TIFF"),
}
pictures = [picture(seed) for seed in range(6)]
print("ImageHash", version("ImageHash"), " Pillow", version("Pillow"))
print("depth                  hash          hashes  copies of 15 pairs  like its 8 bits")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for depth, make in DEPTHS.items():
        for name in ("phash", "dhash", "average_hash"):
            function = getattr(imagehash, name)
            hashes = [function(make(p)) for p in pictures]
            own = [function(DEPTHS["8 bits"](p)) for p in pictures]
            copies = sum(a - b <= 10 for a, b in combinations(hashes, 2))
            like = sum(a - b <= 10 for a, b in zip(hashes, own, strict=True))
            print(f"{depth:<22} {name:<13} {len(set(map(str, hashes))):>6} {copies:>19} {like:>11} of 6")
print("warnings", len(said))
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
