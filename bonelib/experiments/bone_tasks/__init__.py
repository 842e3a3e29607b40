"""The bone tasks under one protocol, as notebook 08 argues them: every encoder, every task.

The cohort and, where there are some, pretrainings come in; predictions of heads on frozen features
and of fine-tuned towers, with few labels and with all, go out. The protocol is that of Englebert et
al. 2024, arXiv:2405.08932 (frozen and fine-tuned, 1, 10 and 100 % of the labels, studies pooled),
but for settings: inner folds choose those of a head, validation patients the epoch of a tower.
"""

from bonelib.experiments.bone_tasks.comparing import (
    bland_altman,
    differences,
    draw_readers,
    draw_values,
    evidence,
    pooled,
    read_differences,
    read_labels,
    read_readers,
    read_values,
    readers,
    reference,
    scores,
    shown,
)
from bonelib.experiments.bone_tasks.predicting import finetune, predict
from bonelib.experiments.bone_tasks.setup import (
    SETTINGS,
    Setup,
    find_pretrained,
    plan,
    prepare,
    read_setup,
    start,
)
