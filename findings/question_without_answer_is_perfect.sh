#!/usr/bin/env bash
# scikit-learn 1.9.1: a query without a relevant answer counts as 1 in LRAP.
#
# Input: random scores of 200 queries (images) for 50 answers (captions), two of them relevant. For
#   a part of the queries nothing is: no caption of their class is in the library.
# Guess: such a query is left out, or counts 0, or the mean is nan.
# Seen: label_ranking_average_precision_score gives it 1, silently: the more queries find nothing,
#   the better a random ranking. ndcg_score counts the same query 0, average_precision_score
#   (average="samples") too, with a warning. With one relevant answer to each query LRAP is the mean
#   reciprocal rank, for which it is used. The function's page doesn't say it; pull request 13447
#   (merged) mentions it in passing.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1

cat > "$folder/run.py" <<'PY'
import warnings

import numpy as np
import sklearn
from sklearn import metrics

draw = np.random.default_rng(0)
scores = draw.random((200, 50))
relevant = np.zeros((200, 50), int)
for row in relevant:
    row[draw.choice(50, 2, replace=False)] = 1

measures = {
    "LRAP": metrics.label_ranking_average_precision_score,
    "average precision": lambda y, s: metrics.average_precision_score(y, s, average="samples"),
    "NDCG": metrics.ndcg_score,
}
print("scikit-learn", sklearn.__version__)
print("queries of 200 that nothing is relevant to:  0    50   150  warns")
for name, measure in measures.items():
    found = []
    for empty in (0, 50, 150):
        now = relevant.copy()
        now[:empty] = 0
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found.append(f"{measure(now, scores):5.2f}")
    print(f"{name:<42}", *found, "", "yes" if said else "no")
PY
"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
scikit-learn 1.9.1
queries of 200 that nothing is relevant to:  0    50   150  warns
LRAP                                        0.11  0.33  0.78  no
average precision                           0.11  0.08  0.03  yes
NDCG                                        0.31  0.23  0.08  no
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
