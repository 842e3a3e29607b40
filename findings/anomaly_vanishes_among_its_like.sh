#!/usr/bin/env bash
# PyOD 3.6.7: the anomaly score of a row depends on the rows that are scored with it.
#
# Input: ECOD, COPOD and k-NN fitted on 300 normal rows of 8 Gaussian features. Then 300 abnormal
#   rows (each feature 2 standard deviations higher) are scored one by one and in calls of 10, 50
#   and 300; 50 fresh normal rows alone, and in one call with the 300 abnormal ones.
# Guess: decision_function scores with "the fitted detector", as its documentation says: a row gets
#   the same score in whatever company.
# Seen: so in k-NN. ECOD and COPOD rank the rows of the training and of the call together, so that
#   anomalies hide each other: one by one nearly all lie above the threshold that fitting set, in
#   one call about a tenth of them, and normal rows beside them change too. The AUROC of a test set
#   is another than that of images that come one by one. Silent. See issues 400 and 401 of
#   yzhao062/pyod (open; the authors call it expected).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pyod==3.6.7 numba==0.68.1 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6

cat > "$folder/run.py" <<'PY'
from importlib.metadata import version

import numpy as np
from pyod.models.copod import COPOD
from pyod.models.ecod import ECOD
from pyod.models.knn import KNN

draw = np.random.default_rng(0)
normal, fresh = draw.normal(size=(300, 8)), draw.normal(size=(50, 8))
abnormal = draw.normal(size=(300, 8)) + 2

print("pyod", version("pyod"))
print("of 300 abnormal rows above the threshold, by rows in a call; of 50 normal ones")
print("          1    10    50   300    alone  with the abnormal")
for make in (KNN, ECOD, COPOD):
    fitted = make().fit(normal)

    def above(rows, size):
        calls = [fitted.decision_function(rows[i : i + size]) for i in range(0, len(rows), size)]
        return int((np.concatenate(calls) > fitted.threshold_).sum())

    found = [above(abnormal, size) for size in (1, 10, 50, 300)]
    together = fitted.decision_function(np.concatenate([fresh, abnormal]))[: len(fresh)]
    false = [above(fresh, len(fresh)), int((together > fitted.threshold_).sum())]
    print(f"{make.__name__:<5}", *(f"{n:>5}" for n in found), f"{false[0]:>8} {false[1]:>18}")
PY
"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
pyod 3.6.7
of 300 abnormal rows above the threshold, by rows in a call; of 50 normal ones
          1    10    50   300    alone  with the abnormal
KNN     299   299   299   299        4                  4
ECOD    299   298   259    35        6                  2
COPOD   297   299   295    26        6                  0
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
