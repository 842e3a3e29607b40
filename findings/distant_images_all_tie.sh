#!/usr/bin/env bash
# torchmetrics 1.9.0: the AUROC of anomaly distances falls to chance although the ranks are clear.
#
# Input: distances of 300 normal and 60 abnormal images from normal ones, such as k-NN or
#   Mahalanobis scoring gives them: about 1, and the same numbers shifted to about 10 and 24; in one
#   update, and image by image. scikit-learn on the same numbers.
# Guess: an AUROC depends on ranks, so that neither a shift nor the batches matter. Values outside 0
#   to 1 go through a sigmoid, says the documentation; that keeps ranks.
# Seen: in float32 the sigmoid of all above 17 is 1: clear ranks become ties, 0.50. And each update
#   decides for itself whether its values need a sigmoid: image by image distances below 1 stay, and
#   those above are squeezed in between. Average precision likewise, all silent. See issues 2819 and
#   2195 of Lightning-AI/torchmetrics (open).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torchmetrics==1.9.0 torch==2.14.1 scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1

cat > "$folder/run.py" <<'PY'
import numpy as np
import sklearn
import torch
import torchmetrics
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

draw = np.random.default_rng(0)
label = np.repeat([0, 1], [300, 60])
order = draw.permutation(len(label))
base = np.concatenate([draw.normal(0, 0.3, 300), draw.normal(0.6, 0.3, 60)])[order]
label = label[order]


def ours(make, values, size):
    """Update the measure with batches of a size."""
    made = make()
    for start in range(0, len(values), size):
        part = slice(start, start + size)
        made.update(torch.tensor(values[part]), torch.tensor(label[part]))
    return float(made.compute())


print("torchmetrics", torchmetrics.__version__, " scikit-learn", sklearn.__version__)
print("distances about     scikit-learn  one update  image by image")
pairs = (("AUROC", BinaryAUROC, roc_auc_score),)
pairs += (("AP", BinaryAveragePrecision, average_precision_score),)
for name, make, truth in pairs:
    for shift in (1, 10, 24):
        values = (base + shift).astype(np.float32)
        found = truth(label, values), ours(make, values, len(values)), ours(make, values, 1)
        print(f"{shift:<6} {name:<9}", *(f"{v:>14.2f}" for v in found))
PY
"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
torchmetrics 1.9.0  scikit-learn 1.9.1
distances about     scikit-learn  one update  image by image
1      AUROC               0.92           0.92           0.69
10     AUROC               0.92           0.92           0.92
24     AUROC               0.92           0.50           0.50
1      AP                  0.74           0.74           0.23
10     AP                  0.74           0.74           0.74
24     AP                  0.74           0.17           0.17
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
