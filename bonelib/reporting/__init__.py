"""Tables of a thesis, recomputed from the predictions that runs have stored.

Records and predictions come in; frames, Markdown and LaTeX go out, nothing is written. No number is
copied from a record: a metric that can't be recomputed is not printed.
"""

from bonelib.reporting.recipes import SAME, choice, contrasts, over_seeds, recipes
from bonelib.reporting.studies import START, study_rows, study_table, with_table
from bonelib.reporting.tables import (
    fusion_gains,
    pooled_scores,
    results,
    scores,
    to_latex,
    to_markdown,
)
