#!/usr/bin/env bash
# scikit-learn 1.9.1: quadratic kappa measures grade 3 against grade 1 as one step if 2 is missing.
#
# Input: two readers' grades (0 to 4, as Kellgren and Lawrence's) of 40 knees, made here. Nobody gave
#   grade 2, as happens in a fold. The same pairs are also written with the labels named.
# Guess: the weight of a disagreement is the square of the difference of the grades, so that the
#   numbers 1 and 3 lie two apart, whoever else is in the table.
# Seen: the weight is the square of the difference of places among those grades that occur. Kappa
#   rises from .856 to .886 here, without a warning, and back with labels=[0, 1, 2, 3, 4]. With
#   the grades times ten it is the same again: the numbers play no part. Two folds, or
#   two models one of which never says 2, are then measured with two rulers.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  scikit-learn==1.9.1 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
scikit-learn 1.9.1
by the formula         0.856
quadratic              0.886
quadratic, 0 to 4      0.856
quadratic, grades x 10 0.886
warnings 0
SEEN

cat > "$folder/run.py" <<'PY'
import warnings

import numpy as np
import sklearn
from sklearn.metrics import cohen_kappa_score

PAIRS = {(0, 0): 10, (0, 1): 3, (1, 1): 8, (1, 3): 3, (3, 3): 9, (3, 1): 2, (3, 4): 1, (4, 4): 4}
first, second = np.repeat(list(PAIRS), list(PAIRS.values()), axis=0).T


def by_hand(one, other):
    """Cohen's (1968) weighted kappa with squared differences of the grades themselves."""
    seen = np.mean((one - other) ** 2)
    chance = np.mean((one[:, None] - other[None, :]) ** 2)
    return 1 - seen / chance


print("scikit-learn", sklearn.__version__)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    print(f"by the formula         {by_hand(first, second):.3f}")
    print(f"quadratic              {cohen_kappa_score(first, second, weights='quadratic'):.3f}")
    named = cohen_kappa_score(first, second, weights="quadratic", labels=range(5))
    print(f"quadratic, 0 to 4      {named:.3f}")
    tens = cohen_kappa_score(first * 10, second * 10, weights="quadratic")
    print(f"quadratic, grades x 10 {tens:.3f}")
print("warnings", len(said))
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
