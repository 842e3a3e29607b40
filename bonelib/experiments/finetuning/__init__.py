"""Fine-tuning under one protocol, as notebook 05 argues it: starts, strategies, and few labels.

The cohort, a finished pretraining and a plan come in; predictions of every method, thresholds and a
bundle for each start and strategy go out. ``bonelib train`` carries out the same trainings.
"""

from bonelib.experiments.finetuning.comparing import (
    compare,
    draw,
    draw_efficiency,
    efficiency,
    evidence,
    read,
    read_efficiency,
    read_strategies,
    seeds,
    strategies,
)
from bonelib.experiments.finetuning.heads import few, left_out, predict
from bonelib.experiments.finetuning.setup import (
    Setup,
    bundle_of,
    count,
    outlined,
    prepare,
    reopen,
)
from bonelib.experiments.finetuning.training import progress, train
