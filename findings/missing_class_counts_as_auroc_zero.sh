#!/usr/bin/env bash
# torchmetrics 1.9.0: a class that a fold lacks enters the macro AUROC as 0.
#
# Input: probabilities of three classes for 90 images whose labels are 0 and 1 only (a fold without
#   the rare tumour); AUROC and average precision, exact and with thresholds=200.
# Guess: the AUROC of the missing class is not defined, so it is nan and left out of the macro average,
#   as average precision does it (with a warning).
# Seen: AUROC gives the missing class 0, below chance, and averages it: 0.51 instead of 0.77. The
#   exact version warns that positives are missing; with thresholds nothing is said, and average
#   precision counts 0 too. For labels that are not exclusive both count 0 in either version. The
#   curves fill an undefined rate with 0 (pull request 583), and only nan is left out of the average.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torchmetrics==1.9.0 torch==2.14.1 scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1

cat > "$folder/seen" <<'SEEN'
torchmetrics 1.9.0  scikit-learn 1.9.1
metric, thresholds                  of each class  macro  warned
scikit-learn roc_auc                0.73 0.80       0.77   no
scikit-learn average_precision      0.70 0.83       0.77   no
multiclass_auroc                    0.73 0.80 0.00  0.51   yes
multiclass_auroc 200                0.74 0.80 0.00  0.51   no
multiclass_average_precision        0.70 0.83  nan  0.77   yes
multiclass_average_precision 200    0.70 0.83 0.00  0.51   no
multilabel_auroc                    0.73 0.80 0.00  0.51   yes
multilabel_auroc 200                0.74 0.80 0.00  0.51   no
multilabel_average_precision        0.70 0.83 0.00  0.51   yes
multilabel_average_precision 200    0.70 0.83 0.00  0.51   no
SEEN

cat > "$folder/run.py" <<'PY'
import warnings
from importlib.metadata import version

import numpy as np
import torch
import torchmetrics.functional.classification as metrics
from sklearn.metrics import average_precision_score, roc_auc_score

draw = np.random.default_rng(0)
labels = np.repeat([0, 1], 45)
logits = torch.tensor(np.eye(3)[labels] + draw.normal(size=(90, 3)))
chances = logits.softmax(1)
single = torch.tensor(labels)
several = torch.nn.functional.one_hot(single, 3)


def row(name, classes, macro, warned):
    words = " ".join(f"{abs(float(value)):4.2f}" for value in classes)
    print(f"{name:<35} {words:<14}  {macro:.2f}   {warned}")


print("torchmetrics", version("torchmetrics"), " scikit-learn", version("scikit-learn"))
print("metric, thresholds                  of each class  macro  warned")
for function in (roc_auc_score, average_precision_score):
    known = [function(labels == k, chances[:, k]) for k in (0, 1)]
    row(f"scikit-learn {function.__name__[:-6]}", known, np.mean(known), "no")
for task, target in (("multiclass", single), ("multilabel", several)):
    for score in ("auroc", "average_precision"):
        for thresholds in (None, 200):
            function = getattr(metrics, f"{task}_{score}")
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                each = function(chances, target, 3, average=None, thresholds=thresholds)
                macro = function(chances, target, 3, average="macro", thresholds=thresholds)
            row(f"{task}_{score} {thresholds or ''}", each, macro, "yes" if said else "no")
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
