#!/usr/bin/env bash
# torch 2.14.1: fuse folds batch norms twice into a convolution that runs twice.
#
# Input: one 3 x 3 convolution on two levels of a pyramid (a picture and its half), a batch norm
#   behind each use: the same for both levels, or one for each, as in the heads of EfficientDet; and
#   one convolution for each level. Running statistics of 200 random batches; evaluation mode.
# Guess: torch.fx.experimental.optimization.fuse, torch.ao's fuse_fx and jit.freeze keep the
#   features, or leave such a layer as it is.
# Seen: fuse folds at each use, into a convolution that has a norm folded in already: both levels
#   are wrong. fuse_fx is right with one norm; with two the first level is wrong. jit.freeze is
#   right, and all three are with two convolutions. Silent. See issues 104593 and 197539 of
#   pytorch/pytorch (open: a convolution with a norm behind one of its uses).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6

cat > "$folder/run.py" <<'PY'
import warnings

import torch
from torch import nn

warnings.simplefilter("ignore")  # torch.ao and torch.jit say that they will move
from torch.ao.quantization.quantize_fx import fuse_fx  # noqa: E402
from torch.fx.experimental.optimization import fuse  # noqa: E402


class Pyramid(nn.Module):
    """Two levels, one convolution, and a batch norm behind each use of it."""

    def __init__(self, norms, convolutions=1):
        super().__init__()
        made = [nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(convolutions)]
        self.convolutions = nn.ModuleList(made)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(norms))

    def forward(self, image):
        fine = self.norms[0](self.convolutions[0](image))
        half = nn.functional.max_pool2d(image, 2)
        coarse = self.norms[-1](self.convolutions[-1](half))
        return fine.mean((2, 3)), coarse.mean((2, 3))


print("torch", torch.__version__.split("+")[0])
print("convolutions  norms  by          level 1  level 2")
torch.manual_seed(0)
with torch.no_grad():
    for convolutions, norms in ((2, 2), (1, 1), (1, 2)):
        network = Pyramid(norms, convolutions).train()
        for _ in range(200):
            network(3 * torch.randn(4, 8, 16, 16) + 1)
        network.eval()
        image = 3 * torch.randn(4, 8, 16, 16) + 1
        expected = network(image)
        ways = {
            "fuse": fuse,
            "fuse_fx": fuse_fx,
            "jit.freeze": lambda n, x=image: torch.jit.freeze(torch.jit.trace(n, x)),
        }
        for name, way in ways.items():
            same = [torch.allclose(a, b, atol=1e-3) for a, b in zip(expected, way(network)(image))]
            words = ["same" if s else "wrong" for s in same]
            print(f"{convolutions:>12} {norms:>6}  {name:<11} {words[0]:<8} {words[1]}")
PY
"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
torch 2.14.1
convolutions  norms  by          level 1  level 2
           2      2  fuse        same     same
           2      2  fuse_fx     same     same
           2      2  jit.freeze  same     same
           1      1  fuse        wrong    wrong
           1      1  fuse_fx     same     same
           1      1  jit.freeze  same     same
           1      2  fuse        wrong    wrong
           1      2  fuse_fx     wrong    same
           1      2  jit.freeze  same     same
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
