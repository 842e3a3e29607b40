#!/usr/bin/env bash
# torch 2.14.1: on a CPU a fused optimiser step moves other weights than those of a view.
#
# Input: a first convolution of 4 x 3 x 3 x 3, as of RGB weights; for grey radiographs its first
#   input channel becomes the parameter, as a view (weight[:, :1]) or as a copy. All gradients are
#   1, three steps at rate 0.1.
# Guess: fused=True gives the weights that the plain step gives, or refuses a view with gaps.
# Seen: SGD, Adagrad, Adam and AdamW count through memory as if the view had no gaps: of its 36
#   weights 18 stand still, and 18 weights of the other two input channels move instead. With
#   the copy all is right, and so is the plain step with both. Silent.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6

cat > "$folder/run.py" <<'PY'
import torch

print("torch", torch.__version__.split("+")[0])
print("optimiser  step   grey layer  moved of 36  moved of the others' 72")
for optimiser in ("SGD", "Adagrad", "Adam", "AdamW"):
    for fused in (False, True):
        for copied in (True, False):
            torch.manual_seed(0)
            colours = torch.randn(4, 3, 3, 3)
            before = colours.clone()
            grey = colours[:, :1].clone() if copied else colours[:, :1]
            parameter = torch.nn.Parameter(grey)
            step = getattr(torch.optim, optimiser)([parameter], lr=0.1, fused=fused)
            for _ in range(3):
                parameter.grad = torch.ones(4, 1, 3, 3)
                step.step()
            own = int((parameter.detach() != before[:, :1]).sum())
            others = int((colours[:, 1:] != before[:, 1:]).sum())
            how, kind = "fused" if fused else "plain", "copy" if copied else "view"
            print(f"{optimiser:<10} {how:<6} {kind:<10} {own:>12} {others:>24}")
PY
"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
torch 2.14.1
optimiser  step   grey layer  moved of 36  moved of the others' 72
SGD        plain  copy                 36                        0
SGD        plain  view                 36                        0
SGD        fused  copy                 36                        0
SGD        fused  view                 18                       18
Adagrad    plain  copy                 36                        0
Adagrad    plain  view                 36                        0
Adagrad    fused  copy                 36                        0
Adagrad    fused  view                 18                       18
Adam       plain  copy                 36                        0
Adam       plain  view                 36                        0
Adam       fused  copy                 36                        0
Adam       fused  view                 18                       18
AdamW      plain  copy                 36                        0
AdamW      plain  view                 36                        0
AdamW      fused  copy                 36                        0
AdamW      fused  view                 18                       18
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
