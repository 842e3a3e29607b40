"""The results chapter, as notebook 09 argues it: all is recomputed from what runs keep."""

from bonelib.experiments.results.facts import best_model
from bonelib.experiments.results.scoring import (
    by_set,
    chart,
    choices,
    contrasts,
    draw,
    metrics,
    over_seeds,
    read,
    read_contrasts,
    read_of,
    recipes,
    records,
    save,
    scores,
    start,
)
from bonelib.experiments.results.writing import (
    bundle,
    changed,
    checklists,
    cohort_table,
    known,
    localisation,
)
