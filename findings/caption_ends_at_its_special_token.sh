#!/usr/bin/env bash
# open_clip 3.3.0: a caption with an additional special token counts only up to that token.
#
# Input: pairs of captions that differ in one place only, with "<bone>" and "<date>" given to the
#   tokenizer as additional_special_tokens (a marker for a field, a placeholder for a name that was
#   taken out); a small CLIP with random weights whose vocabulary has the tokenizer's size.
# Guess: a caption's feature depends on all its words, as without such tokens.
# Seen: what stands behind the special token makes no difference at all: "<bone> with osteosarcoma"
#   and "<bone> with no lesion" get one and the same feature, silently, so that no training can tell
#   them apart. The text tower takes the feature at the token with the largest number, which is the end
#   of the text only until a token is added behind it; and attention looks back only. With
#   pool_type "eos" and eos_id 49407 in the text configuration all words count. (transformers mended
#   the same in its CLIP, pull request 24777.)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  open_clip_torch==3.3.0 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
open_clip 3.3.0
captions that differ in <>                                         default    eos
radiograph of the femur with <osteosarcoma / no lesion>             differ differ
radiograph of the <bone> with <osteosarcoma / no lesion>             equal differ
<Ewing sarcoma / enchondroma> of the <bone>                         differ differ
<date>: <Ewing sarcoma / enchondroma> of the femur                   equal differ
<bone> seen <date>: <lytic / sclerotic> lesion                       equal differ
<bone>: <lytic / sclerotic> lesion seen <date>                      differ differ
warnings 0
SEEN

cat > "$folder/run.py" <<'PY'
import warnings
from importlib.metadata import version

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer

CAPTIONS = (
    "radiograph of the femur with <osteosarcoma / no lesion>",
    "radiograph of the <bone> with <osteosarcoma / no lesion>",
    "<Ewing sarcoma / enchondroma> of the <bone>",
    "<date>: <Ewing sarcoma / enchondroma> of the femur",
    "<bone> seen <date>: <lytic / sclerotic> lesion",
    "<bone>: <lytic / sclerotic> lesion seen <date>",
)


def pair(caption):
    """Both captions that "<one / other>" stands for."""
    start, end = caption.rindex("<", 0, caption.index(" / ")), caption.index(" / ")
    stop = caption.index(">", end)
    one, other = caption[start + 1 : end], caption[end + 3 : stop]
    return [caption[:start] + word + caption[stop + 1 :] for word in (one, other)]


def tower(**text):
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=1, width=64, head_width=32, image_size=32, patch_size=16)
    size = {"vocab_size": tokenizer.vocab_size, "width": 64, "heads": 2, "layers": 2}
    return CLIP(64, vision, CLIPTextCfg(**size, **text)).eval()


print("open_clip", version("open_clip_torch"))
print(f"{'captions that differ in <>':<66} default    eos")
with warnings.catch_warnings(record=True) as said, torch.no_grad():
    warnings.simplefilter("always")
    tokenizer = SimpleTokenizer(additional_special_tokens=["<bone>", "<date>"])
    towers = tower(), tower(pool_type="eos", eos_id=tokenizer.eot_token_id)
    for caption in CAPTIONS:
        tokens = tokenizer(pair(caption))
        features = [each.encode_text(tokens) for each in towers]
        words = ["equal" if torch.allclose(a, b, atol=1e-5) else "differ" for a, b in features]
        print(f"{caption:<66} {words[0]:>7} {words[1]:>6}")
print("warnings", sum("token" in str(each.message).lower() for each in said))
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
