#!/usr/bin/env bash
# MLstatkit 0.1.91, statkit 1.1.0: p of a permutation test of AUCs depends on the scale of the scores.
#
# Input: labels of 200 radiographs and the probabilities of two models, made here. The second model is
#   given also as the probabilities for a prevalence of 1 in 20, in per cent, and both
#   as ranks: strictly rising functions, which change no rank and so no AUC.
# Guess: a test of two AUCs looks at what AUC looks at: p is the same for every scale, as it is with
#   DeLong's test.
# Seen: p is 0.00 where both are probabilities and 0.1 to 0.2 for the other prevalence or per cent, in
#   both packages; AUCs and DeLong's p stay. Two models that were calibrated to different prevalences
#   don't differ "significantly" until one ranks their scores. Silent. Why: the test swaps the two
#   scores of an image and ranks them among the others' again; one from another scale lies
#   anywhere. Published tests of this kind swap ranks (Venkatraman and Begg 1996).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  MLstatkit==0.1.91 statkit==1.1.0 scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1

cat > "$folder/run.py" <<'PY'
from importlib.metadata import version

import numpy as np
from MLstatkit import Delong_test, Permutation_test
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from statkit.non_parametric import paired_permutation_test

rng = np.random.default_rng(3)
labels = np.repeat([0, 1], 100)
common = 0.7 * rng.normal(size=200)
one = expit(1.8 * labels - 0.9 + common + 0.7 * rng.normal(size=200))
two = expit(1.0 * labels - 0.5 + common + 0.7 * rng.normal(size=200))
pairs = {
    "probabilities": (one, two),
    "prevalence 1 in 20": (one, expit(logit(two) - np.log(19))),
    "per cent": (one, 100 * two),
    "both as ranks": (rankdata(one) / 200, rankdata(two) / 200),
}
print("MLstatkit", version("MLstatkit"), "statkit", version("statkit"))
print("second model          AUCs         DeLong's p  MLstatkit  statkit")
for name, (first, second) in pairs.items():
    p = Delong_test(labels, first, second, return_ci=False)[1]
    swaps = Permutation_test(labels, first, second, metric_str="roc_auc", n_bootstraps=2000)
    paired = paired_permutation_test(
        labels, first, second, metric=roc_auc_score, n_iterations=2000, random_state=0
    )
    told = ["below .01" if v < 0.01 else f"{v:.1f}" for v in (p, swaps[2], paired)]
    print(f"{name:<20} {swaps[0]:.2f}  {swaps[1]:.2f} {told[0]:>15} {told[1]:>10} {told[2]:>9}")
PY
"$folder/venv/bin/python" -I "$folder/run.py" 2>"$folder/progress" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
MLstatkit 0.1.91 statkit 1.1.0
second model          AUCs         DeLong's p  MLstatkit  statkit
probabilities        0.91  0.81       below .01  below .01 below .01
prevalence 1 in 20   0.91  0.81       below .01        0.1       0.1
per cent             0.91  0.81       below .01        0.2       0.2
both as ranks        0.91  0.81       below .01  below .01 below .01
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
