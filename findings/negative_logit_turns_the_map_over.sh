#!/usr/bin/env bash
# grad-cam 1.5.7: AblationCAM shows the evidence against a class where its logit is negative.
#
# Input: a network that sees bright squares (one convolution, ReLU, mean, linear head) on three
#   images with a square each. The bias of the head is 5, 0.5, -0.5 or -5; it moves the logit and no
#   evidence.
# Guess: a channel's weight is how far the score falls without it, so a constant in the score changes
#   no map: each peaks on the square.
# Seen: where the logit is negative the map is empty on the square and full elsewhere. Of a binary
#   classifier with one logit these are all images that it calls negative, so that missed lesions are
#   shown upside down. GradCAM is the same throughout. Silent. Why: the fall is divided by the score,
#   whose sign turns that of every weight (the method's paper, as remembered, divides by it too).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  grad-cam==1.5.7 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6

cat > "$folder/run.py" <<'PY'
from importlib.metadata import version

import numpy as np
import torch
from pytorch_grad_cam import AblationCAM, GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

PLACES = [(2, 4), (20, 3), (9, 22)]  # of squares of 6 x 6 in images of 32 x 32


class Squares(nn.Module):
    """Its first channel is high where it is bright, its second where it is dark."""

    def __init__(self, bias):
        super().__init__()
        self.see, self.active, self.head = nn.Conv2d(3, 2, 5, padding=2), nn.ReLU(), nn.Linear(2, 1)
        with torch.no_grad():
            self.see.weight.fill_(1 / 75)
            self.see.weight[1] *= -1
            self.see.bias.copy_(torch.tensor([0.0, 0.5]))
            self.head.weight.copy_(torch.tensor([[3.0, -0.1]]))
            self.head.bias.fill_(bias)

    def forward(self, image):
        return self.head(self.active(self.see(image)).mean(dim=(2, 3)))


image = torch.zeros(3, 3, 32, 32)
for one, (row, column) in zip(image, PLACES):
    one[:, row : row + 6, column : column + 6] = 1

print("grad-cam", version("grad-cam"))
print("share of the map inside the square, mean of three images")
print("bias  logit  GradCAM  AblationCAM")
for bias in (5, 0.5, -0.5, -5):
    model, shares = Squares(bias).eval(), []
    for make in (GradCAM, AblationCAM):
        cam = make(model=model, target_layers=[model.active])
        maps = cam(input_tensor=image, targets=[ClassifierOutputTarget(0)] * 3)
        inside = [m[r : r + 6, c : c + 6].sum() for m, (r, c) in zip(maps, PLACES)]
        shares.append(np.mean(inside / maps.sum(axis=(1, 2)).clip(1e-9)))
    logit = float(model(image).mean())
    print(f"{bias:>4} {logit:>6.1f} {shares[0]:>8.2f} {shares[1]:>12.2f}")
PY
"$folder/venv/bin/python" -I "$folder/run.py" 2>"$folder/progress" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
grad-cam 1.5.7
share of the map inside the square, mean of three images
bias  logit  GradCAM  AblationCAM
   5    5.1     0.65         0.78
 0.5    0.6     0.65         0.78
-0.5   -0.4     0.65         0.00
  -5   -4.9     0.65         0.00
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
