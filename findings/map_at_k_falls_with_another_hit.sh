#!/usr/bin/env bash
# torchmetrics 1.9.0: average precision at k falls when one more relevant case is found.
#
# Input: a query for similar cases with four relevant ones among ten; rankings that have more and
#   more of them in the first five places. RetrievalMAP(top_k=5), beside the precisions at the
#   relevant places within five, summed and divided by min(5, relevant cases).
# Guess: the two agree; one more relevant case within the first five can only raise the measure.
# Seen: torchmetrics divides by the relevant cases that were found, not by those there are. A single
#   hit in the first place is 1.00, the best there is; a second one in the fifth makes it 0.70; all
#   four get less than the one. Recall and NDCG of torchmetrics order the first four rightly.
#   Silent; the page of RetrievalMAP doesn't say it. See issue 9989 of pyg-team/pytorch_geometric
#   (open: two libraries disagree) and pull request 1501 of torchmetrics, which brought top_k.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torchmetrics==1.9.0 torch==2.14.1 numpy==2.4.6

cat > "$folder/run.py" <<'PY'
import torch
import torchmetrics
from torchmetrics.retrieval import RetrievalMAP, RetrievalNormalizedDCG, RetrievalRecall

K = 5
scores = torch.linspace(1, 0.1, 10)  # the ranking is the order of the row


def by_hand(relevant):
    """Return average precision at K over the relevant cases that there are."""
    hits = relevant.cumsum(0) / torch.arange(1, len(relevant) + 1)
    return (hits * relevant)[:K].sum() / min(K, int(relevant.sum()))


print("torchmetrics", torchmetrics.__version__)
print("relevant cases   found  RetrievalMAP  by hand  recall  NDCG")
for places in ([1, 7, 8, 9], [1, 5, 8, 9], [1, 4, 5, 9], [1, 3, 4, 5], [2, 3, 4, 5]):
    relevant = torch.zeros(10, dtype=torch.long)
    relevant[torch.tensor(places) - 1] = 1
    query = torch.zeros(10, dtype=torch.long)
    made = [m(top_k=K) for m in (RetrievalMAP, RetrievalRecall, RetrievalNormalizedDCG)]
    ap, recall, dcg = (float(m(scores, relevant, indexes=query)) for m in made)
    found = int(relevant[:K].sum())
    row = f"{places!s:<15} {found:>6} {ap:>13.2f} {float(by_hand(relevant)):>8.2f}"
    print(f"{row} {recall:>7.2f} {dcg:>5.2f}")
PY
"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
torchmetrics 1.9.0
relevant cases   found  RetrievalMAP  by hand  recall  NDCG
[1, 7, 8, 9]         1          1.00     0.25    0.25  0.39
[1, 5, 8, 9]         2          0.70     0.35    0.50  0.54
[1, 4, 5, 9]         3          0.70     0.52    0.75  0.71
[1, 3, 4, 5]         4          0.80     0.80    1.00  0.90
[2, 3, 4, 5]         4          0.68     0.68    1.00  0.76
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
