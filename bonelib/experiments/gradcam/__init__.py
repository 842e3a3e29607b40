"""Heat maps judged by lesion outlines, as notebook 07 argues it.

A finished fine-tuning comes in; the map that validation lesions choose, its scores on test lesions
beside maps that saw no image, sanity checks, a grounding audit and a sheet of cases go out. The
models are loaded by the run whose predictions were scored, so that what is explained is what was
measured.
"""

from bonelib.experiments.gradcam.auditing import (
    drops,
    grounding,
    read_removed,
    removed,
    sanity,
    verdicts,
)
from bonelib.experiments.gradcam.cases import cases
from bonelib.experiments.gradcam.choosing import SETTINGS, choose, grid, load, plan, winner
from bonelib.experiments.gradcam.judging import cost, differences, judge, scores, where
from bonelib.experiments.gradcam.showing import (
    draw,
    draw_drops,
    draw_where,
    named,
    peaks,
    read,
    read_cases,
    read_cost,
    read_drops,
    read_sanity,
    read_where,
    sheet,
    wide,
)
