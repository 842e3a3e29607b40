#!/usr/bin/env bash
# open_clip_torch 3.3.0: with the tokenizers of SigLIP and SigLIP 2, "1.5 cm" is "15 cm".
#
# Input: pairs of plain captions. They are cleaned as all configurations of SigLIP and SigLIP 2 in
#   the package ask for (text_cfg, tokenizer_kwargs, clean), and tokenized by the tokenizer that
#   comes in the wheel; SigLIP's own vocabulary sees the same cleaned text.
# Guess: captions that differ in a number or a question mark give different tokens.
# Seen: all punctuation is deleted before the words are looked up, and nothing takes its place. So
#   a decimal point vanishes between its digits (1.5 and 15, 0.5 and 05), as does a slash or a
#   hyphen (T1-2 and T12, "L4/5" and "L45"), a minus, "+/-", and the question mark that makes a
#   French diagnosis a doubt. Both captions of each pair are one and the same text to the model; a
#   training on sizes or doubts learns nothing from them. No error, no warning. The default
#   tokenizer of CLIP keeps them apart.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  open_clip_torch==3.3.0 torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
open_clip_torch 3.3.0
SigLIP's configurations ask for: canonicalize
Lytic lesion of 1.5 cm. and Lytic lesion of 15 cm.  SigLIP same    CLIP differ
Metastasis of T1-2. and Metastasis of T12.        SigLIP same    CLIP differ
Z-score -2.5 and Z-score 25                       SigLIP same    CLIP differ
Ostéosarcome ? and Ostéosarcome.                  SigLIP same    CLIP differ
Fracture (+/-). and Fracture.                     SigLIP same    CLIP differ
Lytic lesion. and Blastic lesion.                 SigLIP differ  CLIP differ
warnings 0
SEEN

cat > "$folder/run.py" <<'PY'
import warnings
from importlib.metadata import version

import open_clip
from open_clip.tokenizer import SimpleTokenizer

PAIRS = (
    ("Lytic lesion of 1.5 cm.", "Lytic lesion of 15 cm."),
    ("Metastasis of T1-2.", "Metastasis of T12."),
    ("Z-score -2.5", "Z-score 25"),
    ("Ostéosarcome ?", "Ostéosarcome."),
    ("Fracture (+/-).", "Fracture."),
    ("Lytic lesion.", "Blastic lesion."),
)

print("open_clip_torch", version("open_clip_torch"))
asked = {
    open_clip.get_model_config(name)["text_cfg"].get("tokenizer_kwargs", {}).get("clean")
    for name in open_clip.list_models()
    if "SigLIP" in name
}
print("SigLIP's configurations ask for:", *asked)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    siglip, clip = SimpleTokenizer(clean=asked.pop()), SimpleTokenizer()
    for pair in PAIRS:
        one = " and ".join(pair)
        same = ["same" if bool((t(pair[0]) == t(pair[1])).all()) else "differ" for t in (siglip, clip)]
        print(f"{one:<48}  SigLIP {same[0]:<6}  CLIP {same[1]}")
print("warnings", len(said))
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
