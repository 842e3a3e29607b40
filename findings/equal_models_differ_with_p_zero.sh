#!/usr/bin/env bash
# MLstatkit 0.1.91: DeLong's test of two models that rank alike says p = 0: the surest difference.
#
# Input: labels and scores of 100 radiographs, made here: a model; the same after temperature
#   scaling, as probabilities; the same with clinical data fused at the weight 0; one pair ranked
#   anew; two models that both make no error.
# Guess: models that rank all images alike do not differ: z = 0 and p = 1, or no p at all.
# Seen: z = 0 and p = 0, without a warning, so that a table of p values marks the two equal models as
#   the most significant row, and Holm's correction keeps it. With one pair of images exchanged p is
#   right. Why: where DeLong's variance of the difference is 0, a bootstrap takes over; its p is twice
#   the smaller of the shares of draws with a difference "0 or less" and "above 0", and none of the
#   differences, all 0, is above 0.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  MLstatkit==0.1.91 scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1

cat > "$folder/seen" <<'SEEN'
MLstatkit 0.1.91
the model itself     z  0.0  p exactly 0
temperature scaling  z  0.0  p exactly 0
clinical weight 0    z  0.0  p exactly 0
no error, both       z  0.0  p exactly 0
one pair exchanged   z -0.7  p 0.5
another model        z -4.2  p below .001
differences of AUC   0 0 0 0
warnings 0
SEEN

cat > "$folder/run.py" <<'PY'
import warnings
from importlib.metadata import version

import numpy as np
from MLstatkit import Delong_test

rng = np.random.default_rng(0)
labels = np.repeat([0, 1], 50)
model = np.round(labels + rng.normal(size=100), 3)
clinical = rng.normal(size=100)
exchanged = model.copy()
order = np.argsort(model)
low = next(i for i in range(40, 99) if labels[order[i]] < labels[order[i + 1]])
exchanged[order[[low, low + 1]]] = model[order[[low + 1, low]]]
pairs = {
    "the model itself": (model, model),
    "temperature scaling": (model, 1 / (1 + np.exp(-model / 2))),
    "clinical weight 0": (model, 0.7 * model + 0.0 * clinical),
    "no error, both": (labels + 0.0, 3.0 * labels - 1),
    "one pair exchanged": (model, exchanged),
    "another model": (model, clinical),
}
print("MLstatkit", version("MLstatkit"))
differences = []
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for name, (one, other) in pairs.items():
        z, p, first, second = Delong_test(labels, one, other, return_ci=False)
        told = "exactly 0" if p == 0 else "below .001" if p < 0.001 else f"{p:.1f}"
        print(f"{name:20} z {z:4.1f}  p {told}")
        differences.append(first - second)
print("differences of AUC  ", *(f"{d:.0f}" for d in differences[:4]))
print("warnings", len(said))
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
