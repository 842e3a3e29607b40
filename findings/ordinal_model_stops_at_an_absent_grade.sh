#!/usr/bin/env bash
# statsmodels 0.15.0: a grade that a fold lacks makes the ordinal model useless; it isn't refused.
#
# Input: 400 rows of two features; a grade of 0 to 4 rises with the first one, as that of Kellgren
#   and Lawrence. A fold has no grade 2. OrderedModel (logit) gets the grades as an ordered
#   categorical of all five, which pandas keeps in a part of a table, and once without the unused
#   one.
# Guess: the absent grade gets probability 0 and the model is that of four grades, or it is refused.
# Seen: the threshold above the absent grade starts at log(0), from where no optimiser comes on.
#   bfgs and lbfgs return their start: slope 0 and one grade for all rows, no error, with warnings
#   about the optimiser that don't name the grade. newton gives nan and says that it converged.
#   Missing grades are refused (issue 7353 of statsmodels), unused ones not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  statsmodels==0.15.0 pandas==3.1.1 numpy==2.4.6 scipy==1.17.1

cat > "$folder/run.py" <<'PY'
import warnings

import numpy as np
import pandas as pd
import statsmodels
from statsmodels.miscmodels.ordinal_model import OrderedModel

warnings.simplefilter("ignore")
draw = np.random.default_rng(0)
features = draw.normal(size=(400, 2))
grade = np.digitize(2 * features[:, 0] + draw.logistic(size=400), [-2, -0.5, 0.5, 2])
table = pd.Series(pd.Categorical(grade, categories=range(5), ordered=True))
fold = (table != 2).to_numpy()

print("statsmodels", statsmodels.__version__)
print("categories  optimiser  converged  slope  grades predicted")
parts = table[fold].reset_index(drop=True), features[fold]
for name, grades in (("4", parts[0].cat.remove_unused_categories()), ("5", parts[0])):
    for method in ("bfgs", "lbfgs", "newton"):
        fitted = OrderedModel(grades, parts[1], distr="logit").fit(method=method, disp=False)
        predicted = np.asarray(fitted.predict(parts[1]))
        calls = "nan" if np.isnan(predicted).any() else len(np.unique(predicted.argmax(1)))
        slope, done = np.asarray(fitted.params)[0], fitted.mle_retvals["converged"]
        print(f"{name:<11} {method:<10} {done!s:<9} {abs(slope):6.1f}  {calls}")
PY
"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
cat > "$folder/seen" <<'SEEN'
statsmodels 0.15.0
categories  optimiser  converged  slope  grades predicted
4           bfgs       True         2.4  4
4           lbfgs      True         2.4  4
4           newton     True         2.4  4
5           bfgs       False        0.0  1
5           lbfgs      False        0.0  1
5           newton     True         nan  nan
SEEN
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
