"""Metrics, intervals and paired tests, all recomputed from a table of stored predictions.

Logits come in and leave as probabilities in a predictions table; every metric, threshold, subgroup
and comparison is a function of that table. Intervals resample whole patients, since two views of
one lesion are not two observations. Sources of the methods: ``evaluation/ranking.py``.
"""

from bonelib.evaluation.agreement import LIMITS, bland_altman, of_reader
from bonelib.evaluation.counting import AT_90
from bonelib.evaluation.curves import (
    calibration,
    decision_curve,
    precision_recall,
    risk_coverage,
    roc,
    selective_risk,
)
from bonelib.evaluation.kinds import (
    Primary,
    chance,
    lower_is_better,
    primary,
    primary_among,
    threshold_free,
)
from bonelib.evaluation.measures import (
    DRAWS,
    SMALL,
    choose_threshold,
    compare,
    confusion,
    drawn,
    estimate,
    means,
    metrics,
    repeated,
    score,
)
from bonelib.evaluation.methods import (
    METHOD,
    WORDING,
    Method,
    by_method,
    method_columns,
    refuse_unaccompanied,
)
from bonelib.evaluation.ranking import auroc, average_precision, bootstrap_auroc, delong, holm
from bonelib.evaluation.strata import age_band, gap, subgroups
from bonelib.evaluation.tables import (
    as_task,
    entropy,
    pool,
    predictions,
    probabilities,
    units,
    with_labels,
)
