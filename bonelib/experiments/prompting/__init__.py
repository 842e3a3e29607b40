"""Classification by words alone, step by step as notebook 06 argues it.

A pretraining and a task go in; the predictions of sentences and of metadata for the test images
come out, how they scored, and what the score may be called. Each function is a section of the
notebook. Where there is nothing to ask with (a task without words, a model without a text tower),
it opens no test label and every table is empty.
"""

from bonelib.experiments.prompting.answers import (
    draw,
    evidence,
    judge,
    read_scores,
    read_sites,
    show_ends,
    spread,
)
from bonelib.experiments.prompting.stages import (
    calibration,
    draw_calibration,
    draw_regions,
    draw_risk,
    read_calibration,
    read_regions,
    read_risk,
    regions,
    risk,
)
from bonelib.experiments.prompting.words import (
    SETTINGS,
    find_words,
    plan,
    read_words,
    show_prompts,
)
