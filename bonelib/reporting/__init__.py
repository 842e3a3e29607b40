"""Tables of a thesis, recomputed from the predictions that runs have stored.

Records and predictions come in; frames, Markdown and LaTeX go out, nothing is written. No number is
copied from a record: a metric that can't be recomputed is not printed.
"""

from bonelib.reporting import evidence
from bonelib.reporting.changes import changed_records, changes
from bonelib.reporting.chapter import DRAWN, thesis
from bonelib.reporting.characteristics import (
    MISSING,
    characteristics,
    characteristics_form,
)
from bonelib.reporting.checklists import (
    CARD,
    CHECKLISTS,
    checklist,
    checklist_form,
    filled,
    model_card,
    sentences,
)
from bonelib.reporting.localising import localisation, localisation_form
from bonelib.reporting.recipes import SAME, choice, contrasts, over_seeds, recipes
from bonelib.reporting.studies import START, study_rows, study_table, with_table
from bonelib.reporting.tables import (
    PARTS,
    SCORED,
    fusion_gains,
    pooled_scores,
    results,
    scores,
    to_latex,
    to_markdown,
)
